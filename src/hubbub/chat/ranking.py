"""Which of the candidates match a query, and how well, for a bounded amount of work.

A message matches when each term of the query is in it: as a word, as the beginning or a part of one, or, from four
letters on, with a typo (two from eight on). Text in scripts without blanks between words matches as it is.

Work is counted in steps of some 40 ns, not in time, so that the result of a query does not depend on what else the
machine does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rapidfuzz import process
from rapidfuzz.distance import OSA

from hubbub.chat.model import Message
from hubbub.chat.search import FUZZIER_FROM, FUZZY_FROM, GRAM, Query, spaced

STEPS = 5_000_000  # for one query: 0.2 s. A thousand messages of 200 characters take a fifteenth
SLICE = 200_000  # done at a time, 8 ms
_A_CANDIDATE = 100  # to look it up in the index and to read it
_NOT_ASCII = 4  # times the work of ASCII text
_A_WORD = 2
_AS_WORD, _AS_PREFIX, _AS_PART, _AS_TYPO, _AS_TYPOS = 8.0, 5.0, 3.0, 1.0, 0.5
_TOGETHER = 2.0
_OVERLOOKED = 0.01
_LONG_WORDS = re.compile(rf"[^ ]{{{FUZZY_FROM - 1},}}")  # words that may match a term with a typo


class Ranking:
    """The matches of one query so far. ``look`` may run on a thread, one call at a time, while others read.

    ``truncated``: the steps ran out, or the search was ended, so there may be more or better matches.
    """

    def __init__(self, query: Query, steps: int = STEPS) -> None:
        self._query = query
        # Where a word almost matches in many places, each letter of it costs.
        self._passes = sum(25 + min(len(term.text), 100) for term in query.terms)  # a hundredth of a step a letter
        self._left = steps
        self._found: list[tuple[float, int]] = []
        self._ended = False
        self.looked_at = 0
        self.truncated = False

    @property
    def found(self) -> list[int]:
        """The numbers of those that match: without typos before those with, then best first, then newest."""
        return [number for _, number in sorted(self._found, reverse=True)]

    @property
    def count(self) -> int:
        return len(self._found)

    @property
    def over(self) -> bool:
        """Whether no more is to be looked at."""
        return self.truncated or self._left <= 0

    def end(self) -> None:
        """Stop: a running ``look`` stops at the next message."""
        self.truncated = self._ended = True

    def named(self, candidates: int) -> None:
        """Count the work of looking up that many candidates, whether they exist or not."""
        self._left -= candidates * _A_CANDIDATE

    def look(self, messages: Sequence[Message]) -> int:
        """Rank some of the messages, as many as one SLICE of work allows, but at least one; none once the work is used
        up. Returns how many were ranked.
        """
        until = self._left - SLICE
        for at, message in enumerate(messages):
            if self._ended or self._left <= 0:
                self.truncated = True
                return at
            if self._left <= until:
                return at
            score = self._score(message.body)
            self.looked_at += 1
            if score:
                self._found.append((score, message.number))
        return len(messages)

    def _score(self, body: str) -> float:
        """The score: 0 when the text does not match, below 1 when it matches only with a typo."""
        text = spaced(body)
        length = len(text)
        self._left -= len(body) + length * self._passes // 100 + (0 if body.isascii() else length * _NOT_ASCII)
        scores, typos = [], []
        for term in self._query.terms:
            if term.spaced in text:
                scores.append(_AS_WORD)
            elif not term.unspaced and "  " + term.text in text:
                scores.append(_AS_PREFIX)
            elif not term.unspaced and len(term.text) >= GRAM and term.text in text:
                scores.append(_AS_PART)
            elif term.typos:
                typos.append(term.text)
            else:
                return 0.0
        if typos:
            words = list(set(_LONG_WORDS.findall(text)))
            for wanted in typos:
                self._left -= len(words) * _A_WORD + length * (len(wanted) // 64) // 8
                score = _with_typos(wanted, words)
                if not score:
                    return 0.0
                scores.append(score)
        together = _TOGETHER if len(scores) > 1 and self._query.phrase in text else 0.0
        return (sum(scores) / len(scores) + together) * (_OVERLOOKED if min(scores) <= _AS_TYPO else 1.0)


def _with_typos(wanted: str, words: Sequence[str]) -> float:
    """One call for all the words of a text."""
    allowed = 1 if len(wanted) < FUZZIER_FROM else 2
    nearest = process.extractOne(wanted, words, scorer=OSA.distance, score_cutoff=allowed)
    if nearest is None:
        return 0.0
    return _AS_TYPO if nearest[1] == 1 else _AS_TYPOS
