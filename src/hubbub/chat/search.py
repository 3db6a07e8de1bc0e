"""What finds what: how texts and queries are folded, which messages a query may match, and how well each does.

An index knows messages only by the grams of their text (three characters in a row, words standing between two blanks).
It names candidates; whether and how well a candidate matches is decided here, on the text that is stored now. So every
index gives the same answers, an edit or a delete counts at once, and what an index still holds of an older text does
no harm.

A message matches when each term of the query is in it: as a word, as the beginning or a part of one, or, from four
letters on, with a typo (two from eight on). Text in scripts that put no blanks between words matches as it stands.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from rapidfuzz.distance import OSA

from hubbub.chat.model import Message

GRAM = 3
CANDIDATES = 1000
TYPO_CANDIDATES = 300  # looking for typos costs more, and what it finds comes last
_MOST_TERMS = 32
_MOST_GRAMS = 24
_FUZZY_FROM, _FUZZIER_FROM = 4, 8
_AS_WORD, _AS_PREFIX, _AS_PART, _AS_TYPO, _AS_TYPOS = 8.0, 5.0, 3.0, 1.0, 0.5
_TOGETHER = 2.0
_OVERLOOKED = 0.01

# Han, Hiragana, Katakana: each character is a word of its own, for there is no telling where words end.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_WORDS = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+|[\u2190-\u2bff\U0001f000-\U0001faff]")
_TERMS = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+|[\u2190-\u2bff\U0001f000-\U0001faff]")
_SPACED_ASCII = re.compile(r"[^a-z0-9]+")
_ACCENTS = re.compile("[\u0300-\u036f]")
_ONE_UNSPACED = re.compile(rf"[{_UNSPACED}]")


def fold(text: str) -> str:
    """Without case, accents and the differences between forms of one character (NFKC)."""
    if text.isascii():
        return text.lower()
    plain = _ACCENTS.sub("", unicodedata.normalize("NFKD", text.casefold()))
    return unicodedata.normalize("NFKC", plain).casefold()


def spaced(text: str) -> str:
    """The text's words as an index takes them in: folded, two blanks before, between and after."""
    folded = fold(text)
    if folded.isascii():
        return "  " + _SPACED_ASCII.sub("  ", folded).strip() + "  "
    return "  " + "  ".join(_WORDS.findall(folded)) + "  "


def grams(spaced_text: str) -> set[str]:
    """All that an index of grams keeps of a text."""
    return {spaced_text[at : at + GRAM] for at in range(len(spaced_text) - GRAM + 1)} - {" " * GRAM}


class Term(NamedTuple):
    """One word of a query, or a run of unspaced characters. ``sure`` grams are in every message that has the term as a
    word, a beginning or a part; of ``typos``, one set's are in every message that has it with as many typos as count.
    """

    text: str
    spaced: str
    sure: frozenset[str]
    typos: tuple[frozenset[str], ...]
    unspaced: bool


class Query(NamedTuple):
    terms: tuple[Term, ...]
    phrase: str


def parse(q: str) -> Query:
    """Any text is a query; none of it is syntax."""
    folded = fold(q)
    terms = tuple(dict.fromkeys(_TERMS.findall(folded)))[:_MOST_TERMS]
    return Query(tuple(_term(text) for text in terms), spaced(q).strip())


def _term(text: str) -> Term:
    unspaced = _ONE_UNSPACED.match(text) is not None
    if unspaced:
        whole = "  " + "  ".join(text) + "  "
        return Term(text, whole, frozenset(grams(whole)), (), True)
    inside = text if len(text) >= GRAM else "  " + text
    return Term(text, f"  {text}  ", frozenset(grams(inside)), _typos(text), False)


def _typos(text: str) -> tuple[frozenset[str], ...]:
    """A typo spares one of two pieces of a word, two typos one of three (as pigeons and holes have it). Two letters
    that changed places across a cut would hurt both pieces, so pieces begin one letter behind the cut where they can.
    """
    length = len(text)
    if length < _FUZZY_FROM:
        return ()
    if length < _FUZZIER_FROM:
        cut = length // 2
        gap = 1 if length - cut - 1 >= 2 else 0
        pieces = [f"  {text[:cut]}", f"{text[cut + gap :]}  "]
    else:
        third = length // 3
        pieces = [f"  {text[:third]}", text[third : length - third], f"{text[length - third :]}  "]
    return tuple(frozenset(grams(piece)) for piece in pieces)


def some(of: frozenset[str]) -> list[str]:
    """As many of the grams as an index is asked for at once: enough to name few candidates."""
    return sorted(of)[:: max(1, -(-len(of) // _MOST_GRAMS))]


def rank(query: Query, messages: Sequence[Message]) -> list[Message]:
    """Those that match: without typos before those with, then best first, then newest."""
    scored = [(score, message) for message in messages if (score := _score(query, message.body))]
    scored.sort(key=lambda each: (-each[0], -each[1].number))
    return [message for _, message in scored]


def _score(query: Query, body: str) -> float:
    """0 when it does not match; below 1 when a typo had to be overlooked."""
    text = spaced(body)
    scores = []
    for term in query.terms:
        score = _of_term(term, text)
        if not score:
            return 0.0
        scores.append(score)
    together = _TOGETHER if len(scores) > 1 and query.phrase in text else 0.0
    return (sum(scores) / len(scores) + together) * (_OVERLOOKED if min(scores) <= _AS_TYPO else 1.0)


def _of_term(term: Term, text: str) -> float:
    if term.spaced in text:
        return _AS_WORD
    if term.unspaced:
        return 0.0
    if "  " + term.text in text:
        return _AS_PREFIX
    if len(term.text) >= GRAM and term.text in text:
        return _AS_PART
    if not term.typos:
        return 0.0
    allowed = 1 if len(term.text) < _FUZZIER_FROM else 2
    least = min(
        (OSA.distance(term.text, word, score_cutoff=allowed) for word in text.split()),
        default=allowed + 1,
    )
    return 0.0 if least > allowed else _AS_TYPO if least == 1 else _AS_TYPOS
