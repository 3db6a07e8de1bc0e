"""How many streams may be open."""

from __future__ import annotations

import pytest

from hubbub.chat.errors import RateLimited, Unavailable
from hubbub.http.stream_limiter import MAX_STREAMS, StreamLimiter


def test_a_slot_that_is_given_up_can_be_taken_again() -> None:
    limiter = StreamLimiter(2)
    first, _ = limiter.take(1), limiter.take(1)
    with pytest.raises(RateLimited):
        limiter.take(1)
    limiter.take(2)
    assert limiter.taken == 3
    first.give_up()
    limiter.take(1)
    assert limiter.taken == 3


def test_the_streams_of_all_users_together_are_bounded() -> None:
    limiter = StreamLimiter(MAX_STREAMS)
    taken = [limiter.take(number) for number in range(MAX_STREAMS)]
    with pytest.raises(Unavailable):
        limiter.take(0)
    taken[0].give_up()
    limiter.take(0)
