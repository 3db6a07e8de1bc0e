"""What a text and a query are to search: how they are folded, and which messages a query may match.

An index knows messages only by the grams of their text (three characters in a row, words standing between two blanks).
It names candidates; whether and how well a candidate matches is decided in chat.ranking, on the text that is stored
now. So every index gives the same answers, an edit or a delete counts at once, and what an index still holds of an
older text does no harm.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

GRAM = 3
CANDIDATES = 1000
TYPO_CANDIDATES = 300  # looking for typos costs more, and what it finds comes last
FUZZY_FROM, FUZZIER_FROM = 4, 8
_MOST_TERMS = 32
_MOST_GRAMS = 24  # of one way to find a term
_MOST_GRAMS_IN_ALL = 96  # of all terms; an index walks one list for each
_GRAMS_A_STEP = 25  # that a Sieve looks for in the time that a character takes
_NOT_ASCII = 20  # steps more for a character of another text, once folded
_MOST_TIMES, _LONGEST_OF_ONE = 4, 18  # as long as a text may be once folded: a few characters become words
_MOST_MARKS = 30  # on one letter; no script comes near (and Unicode's stream-safe format has the same)

# Han, Hiragana, Katakana: each character is a word of its own, for there is no telling where words end.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_WORDS = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+|[\u2190-\u2bff\U0001f000-\U0001faff]")
_TERMS = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+|[\u2190-\u2bff\U0001f000-\U0001faff]")
_ASCII_WORDS = bytes(code if chr(code) in "abcdefghijklmnopqrstuvwxyz0123456789" else 32 for code in range(256))
_ASCII_LINES = _ASCII_WORDS[:10] + b"\n" + _ASCII_WORDS[11:]
_ACCENTS = re.compile("[\u0300-\u036f]")
_MAY_BE_MARKS = re.compile(rf"[^\w\s\x00-\x7f]{{{_MOST_MARKS + 1}}}")
_ONE_UNSPACED = re.compile(rf"[{_UNSPACED}]")


def fold(text: str) -> str:
    """The text without case, accents and the differences between forms of one character (NFKC)."""
    if text.isascii():
        return text.lower()
    if _MAY_BE_MARKS.search(text):
        # Normalizing puts the marks on a letter in order, in the square of their number: 0.2 s for ten thousand.
        text = _too_many_marks().sub(r"\1", text)
    plain = _ACCENTS.sub("", unicodedata.normalize("NFKD", text.casefold()))
    return unicodedata.normalize("NFKC", plain).casefold()[: _LONGEST_OF_ONE + _MOST_TIMES * len(text)]


@cache
def _too_many_marks() -> re.Pattern[str]:
    """A pattern of combining marks in a row; the first group has those to keep. It takes 20 ms to build and is rarely
    needed."""
    marks = "".join(chr(code) for code in range(0x300, 0x30000) if unicodedata.combining(chr(code)))
    return re.compile(f"([{marks}]{{{_MOST_MARKS}}})[{marks}]+")


def spaced(text: str) -> str:
    """The text's words as an index takes them in: folded, two blanks before, between and after."""
    folded = fold(text)
    if folded.isascii():
        # As the pattern would have it, but four times faster: every message passes here on its way into an index.
        return "  " + b"  ".join(folded.encode().translate(_ASCII_WORDS).split()).decode() + "  "
    return "  " + "  ".join(_WORDS.findall(folded)) + "  "


def grams(spaced_text: str) -> set[str]:
    """The grams of a text, which are all that an index stores of it."""
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
    """The query of a text. Any text is a query; it has no syntax."""
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
    """A typo spares one of two pieces of a word, two typos one of three (as pigeons and holes have it). Only two
    letters that changed places across a cut hurt the pieces on both sides: so these are looked for as one piece too,
    with the two letters exchanged.
    """
    length = len(text)
    if length < FUZZY_FROM:
        return ()
    pieces = 2 if length < FUZZIER_FROM else 3
    first = length // pieces
    cuts = (0, first, length - first, length) if pieces == 3 else (0, first, length)
    return tuple(_piece(text, cuts[begin : end + 1]) for end in range(1, pieces + 1) for begin in range(end))


def _piece(text: str, cuts: Sequence[int]) -> frozenset[str]:
    """The grams of the word from the first of the cuts to the last, with the letters at each cut between exchanged."""
    letters = list(text)
    for cut in cuts[1:-1]:
        letters[cut - 1], letters[cut] = letters[cut], letters[cut - 1]
    before, behind = "" if cuts[0] else "  ", "" if cuts[-1] < len(text) else "  "
    return frozenset(grams(before + "".join(letters[cuts[0] : cuts[-1]]) + behind))


def some(of: frozenset[str], terms: int) -> list[str]:
    """As many of the grams as an index is asked for, in a query of so many terms: enough to name few candidates."""
    most = min(_MOST_GRAMS, max(GRAM, _MOST_GRAMS_IN_ALL // terms))
    return sorted(of)[:: max(1, -(-len(of) // most))]


def wanted(query: Query, *, typos: bool) -> list[list[list[str]]]:
    """What the texts that an index names must have: of each term one of these ways to find it, and of a way all grams.
    It is the same for every index."""
    terms = len(query.terms)
    return [[some(way, terms) for way in (term.sure, *(term.typos if typos else ())) if way] for term in query.terms]


class Sieve:
    """Finds the candidates of a query in texts that no index has: the same that an index would name.

    ``steps`` counts its work, in steps of some 10 ns: one for a character of ASCII text, and more the more there is to
    look for.
    """

    def __init__(self, query: Query, *, typos: bool) -> None:
        # One blank is enough: wherever a word has one beside it, its spaced text has two.
        self._wanted = [
            [[gram.replace("  ", " ") for gram in way] for way in ways] for ways in wanted(query, typos=typos)
        ]
        self._a_character = 1 + sum(len(way) for ways in self._wanted for way in ways) / _GRAMS_A_STEP
        self.steps = 0

    def among(self, texts: Sequence[str]) -> list[int]:
        """The places of the candidates among the texts, none of which has a line feed."""
        words = _words_of_each(texts)
        self.steps += self._work(texts, words)
        places = list(range(len(words)))
        for ways in self._wanted:
            kept: set[int] = set()
            for way in ways:
                left = places
                for gram in way:
                    left = [at for at in left if gram in words[at]]
                kept.update(left)
            places = sorted(kept)
        return places

    def _work(self, texts: Sequence[str], words: Sequence[str]) -> int:
        """The steps that these texts take, with the words that they have."""
        others = sum(len(found) for text, found in zip(texts, words, strict=True) if not text.isascii())
        return int(sum(map(len, words)) * self._a_character) + others * _NOT_ASCII


def _words_of_each(texts: Sequence[str]) -> list[str]:
    """Each text as ``spaced`` has it, but with any number of blanks where that has two."""
    # Those of ASCII in one go, as it is a tenth of the work.
    framed = "".join(f" {text} \n" for text in texts if text.isascii())
    ascii_ones = iter(framed.lower().encode().translate(_ASCII_LINES).decode().split("\n"))
    return [next(ascii_ones) if text.isascii() else spaced(text) for text in texts]
