"""Every message that a word matches with as many typos as count is a candidate of that word."""

from __future__ import annotations

from collections.abc import Iterator
from string import ascii_lowercase

import pytest
from rapidfuzz.distance import OSA

from hubbub.chat.search import FUZZIER_FROM, FUZZY_FROM, grams, parse, spaced


def with_a_typo(word: str) -> Iterator[str]:
    """The word with a letter missing, too many or another, or two exchanged, at each place."""
    for at in range(len(word)):
        yield word[:at] + word[at + 1 :]
        yield word[:at] + "z" + word[at + 1 :]
    for at in range(len(word) + 1):
        yield word[:at] + "z" + word[at:]
    for at in range(len(word) - 1):
        yield word[:at] + word[at + 1] + word[at] + word[at + 2 :]


@pytest.mark.parametrize("length", range(FUZZY_FROM, 14))
def test_a_typo_anywhere_leaves_a_candidate(length: int) -> None:
    word = ascii_lowercase[:length]
    (term,) = parse(word).terms
    others = set(with_a_typo(word))
    if length >= FUZZIER_FROM:
        # Where the second typo undoes the first, or is at the same place, the distance is not 2.
        others |= {two for one in others for two in with_a_typo(one) if OSA.distance(word, two) == 2}
    missed = [other for other in others if not any(way <= grams(spaced(other)) for way in term.typos)]
    assert missed == []
