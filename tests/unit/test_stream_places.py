"""How many streams may be open."""

from __future__ import annotations

import pytest

from hubbub.chat.errors import RateLimited, Unavailable
from hubbub.http.places import MAX_STREAMS, Places


def test_a_place_that_is_given_up_can_be_taken_again() -> None:
    places = Places(2)
    first, _ = places.take(1), places.take(1)
    with pytest.raises(RateLimited):
        places.take(1)
    places.take(2)
    assert places.taken == 3
    first.give_up()
    places.take(1)
    assert places.taken == 3


def test_all_users_together_have_so_many() -> None:
    places = Places(MAX_STREAMS)
    taken = [places.take(number) for number in range(MAX_STREAMS)]
    with pytest.raises(Unavailable):
        places.take(0)
    taken[0].give_up()
    places.take(0)
