"""The index has each chat up to some message; what is above, searches read."""

from __future__ import annotations

import itertools
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hubbub.chat.commands import AddChat, DeleteApplication, DeleteChat
from hubbub.chat.errors import Unavailable
from hubbub.chat.model import ChatKey
from hubbub.chat.ports import Candidates, Document
from hubbub.chat.search import Sieve, parse
from hubbub.embedded import index_chats, index_shares, indexer, scan
from hubbub.embedded.following import Following
from hubbub.embedded.index import IndexFile, Progress
from hubbub.embedded.index_chats import Part
from hubbub.embedded.index_shares import Change
from tests.conftest import eventually
from tests.searching import Searched, put

ONE, TWO = ChatKey("T", 1), ChatKey("T", 2)
SMALL = 5


def posts(numbers: Iterable[int], body: str = "walrus", chat: ChatKey = ONE) -> list[Document]:
    return [Document(chat, number, f"{body} {number}") for number in numbers]


def down(first: int, last: int) -> list[int]:
    return list(range(first, last - 1, -1))


@pytest.fixture
def searched(tmp_path: Path) -> Iterator[Searched]:
    searched = Searched(tmp_path, small=SMALL)
    searched.steps()
    yield searched
    searched.close()
    searched.store.close()


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a chat join by some messages in a step: three where there is much else to do, and eight at most."""
    monkeypatch.setattr(indexer, "MOST_CHARACTERS", 240)
    monkeypatch.setattr(indexer, "_DUE", 80)
    monkeypatch.setattr(indexer, "_REBUILT_AT_ONCE", 80)


def while_one_joins(searched: Searched, messages: int = 99) -> IndexFile:
    """Let the index have TWO, and ONE be due, with so many messages."""
    searched.put(posts(range(1, SMALL + 2), chat=TWO))
    searched.steps()
    searched.put(posts(range(1, messages + 1)))
    searched.step()
    file = searched.index.current
    assert file is not None
    return file


# The same candidates -------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    ["walrus", "walros", "Wal", "wa", "a", "crème", "CREME", "naïveté", "日本語", "本", "タワー", "🎉", "x1", "2026"]
)
TEXTS = st.lists(WORDS | st.text(max_size=8), max_size=6).flatmap(
    lambda words: st.sampled_from([" ", "\n", "-", "", "\x00"]).map(lambda between: between.join(words))
)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Searched, Iterator[int]]]:
    searched = Searched(tmp_path_factory.mktemp("both"), small=0)
    searched.steps()
    yield searched, itertools.count(1)
    searched.close()
    searched.store.close()


def storable(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(["\ufdfa" * 3, "a\u0591" * 40, "line\nfeed", "nul\x00nul", "ﬁne"], "fine nul", 1000, None)
@example(["walrus", "WALRUS é", "walrsu"], "walrus", 1000, None)
@given(
    st.lists(TEXTS.filter(storable), min_size=1, max_size=8),
    TEXTS,
    st.sampled_from([1000, 2]),
    st.none() | st.integers(1, 9),
)
def test_a_scan_names_the_candidates_that_the_index_names(
    both: tuple[Searched, Iterator[int]], texts: list[str], q: str, limit: int, below: int | None
) -> None:
    searched, chats = both
    chat = ChatKey("T", next(chats))
    searched.put([Document(chat, number, text) for number, text in enumerate(texts, 1)])
    searched.steps()
    query = parse(q)
    if not query.terms:
        return
    for typos in (False, True):
        named, reached = searched.index.candidates(chat, query, typos=typos, limit=limit, below=below)
        assert reached == len(texts)
        scanned = searched.scan._above(0, chat, query, typos=typos, limit=limit, below=below)
        assert scanned == Candidates(named)


def test_a_scan_reads_some_messages_at_a_time(searched: Searched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_READ", 3)
    searched.put([*posts(range(1, 10)), Document(ONE, 10, "penguin")])
    read: list[int] = []
    real = searched.store.scanned

    def scanned(*what: Any) -> Any:
        found = real(*what)
        read.append(len(found[1]))
        return found

    monkeypatch.setattr(searched.store, "scanned", scanned)
    query = parse("walrus")
    assert searched.numbers(ONE, "walrus") == down(9, 1)
    assert searched.scan.candidates(ONE, query, typos=False, limit=4).numbers == down(9, 6)
    assert searched.scan.candidates(ONE, query, typos=False, limit=4, below=6).numbers == down(5, 2)
    assert searched.scan.candidates(ONE, query, typos=False, limit=4, below=1).numbers == []
    assert read == [3, 3, 3, 1, 3, 3, 3, 2]


# Small chats ---------------------------------------------------------------------------------------------------------


def test_every_change_of_a_small_chat_counts_at_once(searched: Searched) -> None:
    """Nothing waits for the indexer, which does not take a step here."""
    searched.put(posts(range(1, SMALL + 1)))
    assert searched.numbers(ONE, "walrus") == down(SMALL, 1)
    searched.put([Document(ONE, 2, "penguin", edited=True), Document(ONE, 3, None)])
    assert searched.numbers(ONE, "walrus") == [5, 4, 1]
    assert searched.numbers(ONE, "pengiun", typos=True) == [2]
    searched.store.apply([DeleteApplication("T")])
    assert searched.numbers(ONE, "walrus") == []


def test_of_a_small_chat_no_text_is_read_and_nothing_is_indexed(
    searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Any] = []
    for method in ("changes", "documents", "of_chats"):
        real: Callable[..., Any] = getattr(Following, method)

        def recorded(following: Following, what: Any, *more: Any, real: Callable[..., Any] = real) -> Any:
            read.extend(what)
            return real(following, what, *more)

        monkeypatch.setattr(Following, method, recorded)
    searched.put(posts(range(1, SMALL + 1)))
    searched.put([Document(ONE, 2, "penguin", edited=True), Document(ONE, 3, None)])
    searched.steps()
    assert read == []
    file = searched.index.current
    assert file is not None
    assert file.position == searched.store.following.last_change(), "the store may forget these changes"
    assert file.find(ONE, '"wal"', 10) == ([], 0)


def test_a_chat_that_has_given_many_numbers_is_indexed_though_few_are_left(searched: Searched) -> None:
    searched.put(posts(range(1, 4)))
    searched.put([Document(ONE, 1, None), Document(ONE, 2, None)])
    searched.steps()
    assert not searched.has(ONE)
    searched.put(posts([SMALL + 1]))
    searched.put([Document(ONE, SMALL + 1, None)])
    searched.steps()
    assert searched.has(ONE)
    assert searched.numbers(ONE, "walrus") == [3]


# Joining the index ---------------------------------------------------------------------------------------------------


def test_all_is_found_before_during_and_after_a_chat_joins(searched: Searched, slowly: None) -> None:
    there: dict[int, str] = {}

    def bring(documents: Sequence[Document]) -> None:
        searched.put(documents)
        for each in documents:
            if each.body is None:
                del there[each.number]
            else:
                there[each.number] = each.body

    def as_stored() -> None:
        for word in ("walrus", "penguin"):
            wanted = [number for number, body in there.items() if word in body]
            assert searched.numbers(ONE, word) == sorted(wanted, reverse=True)

    bring(posts(range(1, 30)))
    for step in range(1, 30):
        searched.step()
        as_stored()
        if searched.has(ONE):
            break
        # Behind and before what the chat has brought in, and at its end.
        bring([Document(ONE, step, "penguin", edited=True)] if step in there else [])
        bring([Document(ONE, 25 - step, "penguin", edited=True)] if 25 - step in there else [])
        if step % 2:
            bring(posts([max(there) + 1]))
            assert searched.numbers(ONE, "walrus")[0] == max(there), "a new message is found at once"
    assert searched.has(ONE)
    assert step > 4, "it took several steps"
    assert "penguin" in {*there.values()}
    bring([Document(ONE, 1, None), Document(ONE, 4, None), *posts([max(there) + 1])])
    assert searched.numbers(ONE, "walrus")[0] == max(there)
    searched.steps()
    as_stored()


def test_changes_while_a_chat_joins_are_in_the_index(searched: Searched, slowly: None) -> None:
    """Each kind of change, before and behind what the chat has brought in."""
    searched.put(posts(range(1, 15)))
    file = searched.index.current
    assert file is not None
    while file.reached(ONE) < 3:
        searched.step()
    searched.put([Document(ONE, 1, "penguin", edited=True), Document(ONE, 2, None)])
    searched.put([Document(ONE, 13, "penguin", edited=True), Document(ONE, 14, None), *posts([15])])
    assert file.reached(ONE) < 13
    assert not searched.has(ONE)
    searched.steps()
    assert searched.has(ONE)
    assert searched.numbers(ONE, "walrus") == [15, *down(12, 3)]
    assert searched.numbers(ONE, "penguin") == [13, 1]


def test_what_is_stored_just_after_the_last_message_was_read_is_indexed(
    searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step that brings in the last messages must not claim to have seen the changes after they were read."""
    real = Following.of_chats

    def meanwhile(following: Following, due: Sequence[Part], most: float) -> Any:
        read = real(following, due, most)
        if due:
            searched.put([Document(ONE, 1, "penguin", edited=True), Document(ONE, 2, None), *posts([SMALL + 2])])
        return read

    monkeypatch.setattr(Following, "of_chats", meanwhile)
    searched.put(posts(range(1, SMALL + 2)))
    searched.step()
    searched.step()
    assert searched.has(ONE)
    searched.steps()
    assert searched.numbers(ONE, "walrus") == down(SMALL + 2, 3)
    assert searched.numbers(ONE, "penguin") == [1]


def test_some_chats_that_are_due_are_next_in_turn(searched: Searched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_chats, "_DUE_AT_ONCE", 2)
    file = searched.index.current
    assert file is not None
    file.add([], due=[Part(number, ChatKey("T", number)) for number in range(1, 6)])
    turns: list[list[int]] = []
    for _ in range(4):
        due = file.due()
        turns.append([each.id for each in due])
        file.add([], parts=[each._replace(reached=each.reached + 1) for each in due])
    assert turns == [[1, 2], [3, 4], [5], [1, 2]]


def test_chats_that_join_take_turns(tmp_path: Path, slowly: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.embedded.index_chats._DUE_AT_ONCE", 2)
    searched = Searched(tmp_path, small=SMALL)
    searched.steps()
    chats = [ChatKey("T", number) for number in range(1, 6)]
    searched.put(posts(range(1, 500), chat=chats[0]))
    for chat in chats[1:]:
        searched.put(posts(range(1, 8), chat=chat))
    for _ in range(40):
        searched.step()
    assert [searched.has(chat) for chat in chats] == [False, True, True, True, True]
    searched.steps()
    assert searched.has(chats[0])
    searched.close()
    searched.store.close()


@pytest.mark.parametrize("stops_after", range(9))
def test_a_process_that_ends_while_a_chat_joins_goes_on_later(
    searched: Searched, slowly: None, stops_after: int
) -> None:
    searched.put(posts(range(1, 31)))
    for _ in range(stops_after):
        searched.step()
    searched.close()
    searched.put([Document(ONE, 1, "penguin", edited=True), Document(ONE, 30, None), *posts([31])])
    searched.open()
    wanted = [31, *down(29, 2)]
    assert set(searched.numbers(ONE, "walrus")).issuperset(wanted), "the index may still have what was edited"
    searched.steps()
    assert searched.has(ONE)
    assert searched.numbers(ONE, "walrus") == wanted
    assert searched.numbers(ONE, "penguin") == [1]


def test_a_step_that_fails_adds_nothing(searched: Searched, slowly: None, monkeypatch: pytest.MonkeyPatch) -> None:
    searched.put(posts(range(1, 31)))
    searched.step()
    failing = True
    note = IndexFile._note

    def noted(file: IndexFile, progress: Progress) -> None:
        if failing:
            raise sqlite3.OperationalError("database or disk is full")
        note(file, progress)

    monkeypatch.setattr(IndexFile, "_note", noted)
    steps = 0
    while not searched.has(ONE):
        file = searched.index.current
        assert file is not None
        before = file.reached(ONE)
        failing = True
        with pytest.raises(sqlite3.OperationalError):
            searched.step()
        assert file.reached(ONE) == before
        assert searched.numbers(ONE, "walrus") == down(30, 1)
        failing = False
        searched.step()
        steps += 1
    assert steps > 3
    assert searched.numbers(ONE, "walrus") == down(30, 1)


def test_a_chat_that_joins_leaves_room_for_what_else_is_new(searched: Searched, slowly: None) -> None:
    """A message of another chat is found after one step, however much joins."""
    while_one_joins(searched)
    searched.put(posts([SMALL + 2], chat=TWO))
    searched.step()
    assert not searched.has(ONE)
    assert searched.numbers(TWO, "walrus") == down(SMALL + 2, 1)


def test_a_chat_joins_at_some_speed_however_much_else_is_new(searched: Searched, slowly: None) -> None:
    file = while_one_joins(searched)
    for step in range(1, 4):
        searched.put(posts(range(step * 20, step * 20 + 20), chat=TWO))
        searched.step()
        assert file.reached(ONE) >= 2 * step


def test_an_index_takes_no_message_of_a_chat_that_it_does_not_have(searched: Searched) -> None:
    file = searched.index.current
    assert file is not None
    file.add(posts(range(1, 4)), Progress(0))
    assert file._writing.execute("SELECT count(*) FROM grams WHERE grams MATCH '\"wal\"'").fetchone() == (0,)


def test_what_the_index_has_is_not_taken_in_again(searched: Searched) -> None:
    searched.put(posts(range(1, SMALL + 2)))
    searched.steps()
    searched.indexer.ask(Part(1, ONE))
    file = searched.index.current
    assert file is not None
    searched.step()
    assert file.due() == [Part(1, ONE, SMALL + 1)]
    searched.steps()
    assert searched.has(ONE)
    assert file._writing.execute("SELECT count(*) FROM grams WHERE grams MATCH '\"wal\"'").fetchone() == (SMALL + 1,)


def test_the_messages_above_are_taken_in_once_they_are_many(searched: Searched) -> None:
    file = searched.index.current
    assert file is not None
    reached = []
    for number in range(1, 5 * SMALL):
        searched.put(posts([number]))
        searched.steps()
        assert searched.numbers(ONE, "walrus") == down(number, 1)
        reached.append(file.reached(ONE))
    assert sorted(set(reached)) == [0, SMALL + 1, 2 * SMALL + 2, 3 * SMALL + 3, 4 * SMALL + 4]


@pytest.mark.parametrize("limit", [1, 3, 8, 1000])
@pytest.mark.parametrize("below", [None, 1, 3, SMALL + 1, SMALL + 2, SMALL + 3, SMALL + 4])
def test_what_the_index_has_and_what_is_above_are_one_list(searched: Searched, limit: int, below: int | None) -> None:
    searched.put(posts(range(1, SMALL + 2)))
    searched.steps()
    searched.put(posts(range(SMALL + 2, SMALL + 6)))
    found = searched.scan.candidates(ONE, parse("walrus"), typos=False, limit=limit, below=below)
    assert (found.numbers, found.whole) == (down((below or SMALL + 6) - 1, 1)[:limit], True)


def test_what_is_taken_in_between_the_two_looks_is_not_missed(
    searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched.put(posts(range(1, SMALL + 2)))
    real = searched.store.scanned

    def meanwhile(*what: Any) -> Any:
        searched.steps()
        return real(*what)

    monkeypatch.setattr(searched.store, "scanned", meanwhile)
    assert searched.numbers(ONE, "walrus") == down(SMALL + 1, 1)
    assert searched.has(ONE)


def test_of_an_erased_chat_the_index_keeps_no_text(searched: Searched) -> None:
    searched.put(posts(range(1, SMALL + 2)) + posts(range(1, SMALL + 2), chat=TWO))
    searched.steps()
    for chat in (ONE, TWO):
        searched.put([Document(chat, 1, "penguin", edited=True)])
    searched.steps()
    file = searched.index.current
    assert file is not None
    texts = "SELECT count(*) FROM edited_content"
    assert file._writing.execute(texts).fetchone() == (2,)
    searched.store.apply([DeleteChat(ONE)])
    searched.store.erase()
    searched.steps()
    assert file._writing.execute(texts).fetchone() == (1,)
    assert searched.numbers(TWO, "penguin") == [1]
    searched.store.apply([DeleteApplication("T")])
    searched.store.erase()
    searched.steps()
    assert file._writing.execute(texts).fetchone() == (0,)


def test_an_erased_text_leaves_the_file_also_if_nothing_more_happens(
    searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched.put(posts(range(1, SMALL + 2)))
    searched.steps()
    searched.put([Document(ONE, 1, "porcupine", edited=True)])
    searched.steps()
    file = searched.index.current
    assert file is not None
    file.sync()
    assert b"porcupine" in file.path.read_bytes()
    searched.store.apply([DeleteChat(ONE)])
    searched.store.erase()
    searched.steps()
    monkeypatch.setattr(indexer, "_SYNC_S", 0.0)
    searched.step()
    assert b"porcupine" not in file.path.read_bytes()
    searched.store.count_messages()
    assert set(searched.store.following.noted(0)[1]) == {(1, 0)}, "all others are forgotten"
    syncs: list[None] = []
    monkeypatch.setattr(file, "sync", lambda: syncs.append(None))
    searched.step()
    assert syncs == []


def test_a_file_of_a_build_between_two_versions_is_made_anew(searched: Searched) -> None:
    searched.put(posts(range(1, SMALL + 2)))
    searched.steps()
    file = searched.index.current
    assert file is not None
    searched.close()
    with sqlite3.connect(file.path) as between:
        between.execute("CREATE TABLE joining (id INTEGER)")
    searched.open()
    searched.steps()
    assert searched.index.current is not None
    assert searched.has(ONE)
    assert searched.numbers(ONE, "walrus") == down(SMALL + 1, 1)


def test_two_chats_join_from_the_same_commit_that_brings_their_messages(searched: Searched) -> None:
    searched.put(posts(range(1, SMALL + 20)) + posts(range(1, SMALL + 30), chat=TWO))
    assert searched.steps() == 2
    assert searched.has(ONE)
    assert searched.has(TWO)
    assert searched.numbers(ONE, "walrus") == down(SMALL + 19, 1)
    assert searched.numbers(TWO, "walrus") == down(SMALL + 29, 1)


# Other beginnings ----------------------------------------------------------------------------------------------------


def test_a_rebuild_takes_in_the_chats_that_are_not_small(searched: Searched, slowly: None) -> None:
    searched.put(posts(range(1, SMALL + 4)))
    searched.put(posts(range(1, SMALL + 1), chat=TWO))
    searched.put([Document(ONE, 1, "penguin", edited=True), Document(ONE, 2, None)])
    searched.close()
    for file in searched.folder.glob("search-*"):
        file.unlink()
    searched.open()
    with pytest.raises(Unavailable):
        searched.numbers(ONE, "walrus")
    searched.step()
    assert (searched.has(ONE), searched.has(TWO)) == (True, False)
    for chat, wanted in ((ONE, down(SMALL + 3, 3)), (TWO, down(SMALL, 1))):
        assert searched.numbers(chat, "walrus") == wanted
    assert searched.numbers(ONE, "penguin") == [1]


def test_an_index_that_has_small_chats_keeps_them(searched: Searched) -> None:
    """As that of a version that indexed all chats, some changes of which may have waited."""
    searched.put(posts(range(1, 4)) + posts(range(1, SMALL + 3), chat=TWO))
    file = searched.index.current
    assert file is not None
    waiting = [Change(1, 1, 2, number, 8) for number in range(1, SMALL + 3)]
    put(file, posts(range(1, 4)), Progress(searched.store.following.last_change(), later=waiting))
    searched.close()
    with sqlite3.connect(file.path) as old:
        old.execute("DROP TABLE parts")
    searched.open()
    assert searched.has(ONE)
    searched.put([Document(ONE, 1, "penguin", edited=True), Document(ONE, 2, None), *posts([4])])
    assert searched.numbers(TWO, "walrus") == down(SMALL + 2, 1)
    searched.steps()
    assert searched.numbers(ONE, "walrus") == [4, 3]
    assert searched.numbers(ONE, "penguin") == [1]
    assert searched.has(TWO), "of this chat the old version had indexed nothing"
    assert searched.numbers(TWO, "walrus") == down(SMALL + 2, 1)


def test_a_message_that_waits_and_joins_in_the_same_step_is_indexed_once(searched: Searched) -> None:
    searched.put(posts(range(1, 4)))
    searched.put([Document(ONE, 1, "penguin", edited=True)])
    file = searched.index.current
    assert file is not None
    waiting = [Change(1, 1, 1, number, 8) for number in range(1, 4)]
    last = searched.store.following.last_change()
    file.add([], Progress(last, later=waiting), due=[Part(1, ONE)])
    assert searched.steps() == 1
    assert file.reached(ONE) == 3
    assert searched.numbers(ONE, "walrus") == [3, 2]
    assert searched.numbers(ONE, "penguin") == [1]


# Bounds --------------------------------------------------------------------------------------------------------------


def test_a_small_chat_whose_searches_take_much_work_is_indexed(
    searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "_READ", 5)  # so that the last read finds none
    searched.put([Document(ONE, number, "é" + "walrus " * 1000) for number in range(1, 6)])
    searched.put([Document(TWO, 1, "walrus")])
    for _ in range(2):
        assert searched.numbers(TWO, "walrus") == [1]
        assert searched.numbers(ONE, "walrus") == down(5, 1)
        searched.steps()
        assert not searched.has(ONE)
    assert searched.numbers(ONE, "walrus") == down(5, 1)
    searched.put([Document(ONE, 2, None)])
    searched.steps()
    assert (searched.has(ONE), searched.has(TWO)) == (True, False)
    assert searched.numbers(ONE, "walrus") == [5, 4, 3, 1]


def test_the_work_of_few_chats_is_remembered(searched: Searched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_CHATS", 3)
    for number in range(1, 20):
        searched.put([Document(ChatKey("T", number), 1, "walrus")])
        assert searched.numbers(ChatKey("T", number), "walrus") == [1]
        assert len(searched.scan._work) <= 3
    searched.numbers(ChatKey("T", 100), "walrus")
    assert ChatKey("T", 100) not in searched.scan._work


def test_a_scan_does_so_much_work(searched: Searched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "STEPS", 1000)
    monkeypatch.setattr(scan, "_READ", 2)
    searched.put([*posts(range(1, 4)), *posts(range(4, 20), "penguin")])
    found = searched.scan.candidates(ONE, parse("walrus"), typos=False)
    assert (found.numbers, found.whole) == ([], False)
    found = searched.scan.candidates(ONE, parse("walrus"), typos=False, below=6)
    assert (found.numbers, found.whole) == ([3, 2, 1], True)


def test_a_scan_that_found_enough_is_whole(searched: Searched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "STEPS", 1000)
    monkeypatch.setattr(scan, "_SIEVED", 1)
    searched.put([*posts(range(1, 20), "penguin"), *posts(range(20, 24))])
    for limit, whole in ((2, True), (4, True), (5, False)):
        found = searched.scan.candidates(ONE, parse("walrus"), typos=False, limit=limit)
        assert (found.numbers, found.whole) == (down(23, 20)[:limit], whole)


def test_chats_that_join_share_a_step(searched: Searched) -> None:
    for number in range(1, 41):
        searched.put([Document(ChatKey("T", number), 1, "x" * 10_000)])
    chats = [Part(number, ChatKey("T", number)) for number in range(1, 41)]
    documents, joined = searched.store.following.of_chats(chats, index_shares.MOST_CHARACTERS)
    assert sum(len(each.body or "") for each in documents) < index_shares.MOST_CHARACTERS + 10_000
    assert len(joined) == len(documents) == 27


def test_a_chat_added_later_is_not_mistaken_for_one_that_joins(searched: Searched) -> None:
    searched.store.apply([AddChat("T", None, 1)])
    assert searched.numbers(ChatKey("T", 1), "walrus") == []
    assert searched.numbers(ChatKey("nobody", 1), "walrus") == []


@pytest.mark.parametrize("body", ["walrus " * 1400, "日本語の本" * 2000, "é\u0301" * 5000, "\ufdfa" * 10_000])
def test_a_look_takes_a_bounded_time_whatever_the_texts_are(searched: Searched, body: str) -> None:
    """A step takes some 10 ns, as the bound of steps assumes."""
    searched.put([Document(ONE, number, body) for number in range(1, 201)])
    sieved: list[int] = []

    class Counted(Sieve):
        def among(self, texts: Sequence[str]) -> list[int]:
            began = time.thread_time()
            found = super().among(texts)
            sieved.append(self.steps)
            spent[0] += time.thread_time() - began
            return found

    spent = [0.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "Sieve", Counted)
        looked = searched.scan.candidates(ONE, parse("walrus 日本 elephant"), typos=True)
    assert looked.whole == (sieved[-1] <= scan.STEPS)
    assert sieved[-1] <= scan.STEPS * 1.5
    assert sieved[-1] > 20_000_000 * spent[0], "a step takes less than 50 ns"


def test_a_query_that_looks_for_much_has_more_steps() -> None:
    few, many = (
        Sieve(parse("walrus"), typos=False),
        Sieve(parse(" ".join(map(chr, range(97, 123)))), typos=True),
    )
    few.among(["walrus " * 100])
    many.among(["walrus " * 100])
    assert many.steps > 1.5 * few.steps


def test_no_text_of_a_deleted_chat_is_copied_into_the_index(searched: Searched) -> None:
    searched.put([Document(ONE, number, "walrus", edited=True) for number in range(1, SMALL + 5)])
    searched.step()  # it begins to join
    searched.store.apply([DeleteChat(ONE)])
    searched.steps()
    file = searched.index.current
    assert file is not None
    assert file._writing.execute("SELECT count(*) FROM edited_content").fetchone() == (0,)
    assert file.due() == []


def test_a_chat_joins_quickly_while_many_messages_are_posted_elsewhere(searched: Searched, slowly: None) -> None:
    while_one_joins(searched, 199)
    for step in range(3):
        searched.put(posts(range(1000 + 150 * step, 1150 + 150 * step), chat=TWO))
        assert searched.indexer._step() < 0.1


def test_between_steps_that_take_in_much_the_index_rests_and_follows_what_it_has(
    searched: Searched, slowly: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many chats are due at once, what they cost is spread, and no edit waits for it."""
    file = while_one_joins(searched)
    monkeypatch.setattr(indexer, "_RESTS", 1_000_000)
    searched.step()
    reached = file.reached(ONE)
    assert 0 < reached < 99
    searched.put([Document(TWO, 1, "narwhal", edited=True), *posts(range(100, 110))])
    for _ in range(3):
        assert searched.indexer._step() <= 0.1, "edits are looked for as often as ever"
    assert file.reached(ONE) == reached
    assert searched.numbers(TWO, "narwhal") == [1]
    assert searched.numbers(ONE, "walrus") == down(109, 1)


def test_a_chat_whose_searches_read_too_much_does_not_wait_for_a_rest(
    searched: Searched, slowly: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer, "_RESTS", 1_000_000)
    searched.put(posts(range(1, 50)))
    searched.step()
    searched.step()
    searched.indexer._step()
    file = searched.index.current
    assert file is not None
    assert file.reached(ONE) < 49
    searched.indexer.ask(Part(1, ONE))
    for _ in range(20):
        pause = searched.indexer._step()
        assert pause < 0.1 or searched.has(ONE)
    assert searched.has(ONE)


def test_a_chat_that_is_asked_for_has_its_first_step_at_once(searched: Searched) -> None:
    searched.put(posts(range(1, 4)))
    searched.steps()
    searched.indexer.ask(Part(1, ONE))
    assert searched.indexer._step() < 0.1
    searched.indexer._step()
    assert searched.has(ONE)


class Clock:
    """The monotonic clock, which a test moves on by ``moved`` seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monotonic = time.monotonic
        self.moved = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: monotonic() + self.moved)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def held_up(searched: Searched, file: IndexFile, clock: Clock, seconds: float) -> None:
    """Do a step that takes so long."""
    add = file.add

    def slow_add(*args: Any, **kwargs: Any) -> None:
        add(*args, **kwargs)
        clock.moved += seconds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file, "add", slow_add)
        searched.step()


def test_a_slow_step_does_not_end_the_hurry_before_the_chat_has_had_its_turn(
    searched: Searched, slowly: None, clock: Clock
) -> None:
    file = while_one_joins(searched)
    searched.indexer.ask(Part(1, ONE))
    held_up(searched, file, clock, 3)
    for _ in range(3):
        reached = file.reached(ONE)
        searched.indexer._step()
        assert file.reached(ONE) > reached


def test_the_index_rests_no_longer_for_a_step_that_was_held_up(searched: Searched, slowly: None, clock: Clock) -> None:
    """A process may be stopped in the middle of a step, or a disk stall: that says nothing of what a step costs."""
    file = while_one_joins(searched)
    held_up(searched, file, clock, 3600)
    reached = file.reached(ONE)
    assert 0 < reached < 99
    clock.moved += 5
    searched.indexer._step()
    assert file.reached(ONE) > reached


def test_what_is_due_goes_on_after_a_rest_and_without_rests_there_is_a_pause(
    searched: Searched, slowly: None, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread that only ever rests, and none that never lets go."""
    file = while_one_joins(searched)
    monkeypatch.setattr(indexer, "_RESTS", 1_000_000)
    searched.step()
    reached = file.reached(ONE)
    searched.indexer._step()
    assert file.reached(ONE) == reached
    clock.moved = 1e9
    searched.indexer._step()
    assert file.reached(ONE) > reached
    searched.indexer.ask(Part(1, ONE))
    while not searched.has(ONE):
        assert searched.indexer._step() >= 0.02


def test_what_searches_ask_for_meanwhile_is_not_forgotten(searched: Searched, monkeypatch: pytest.MonkeyPatch) -> None:
    searched.put(posts([1]) + posts([1], chat=TWO))
    searched.steps()
    file = searched.index.current
    assert file is not None
    real = file.add

    def add(*what: Any, **more: Any) -> None:
        searched.indexer.ask(Part(2, TWO))  # as a search does on its thread
        real(*what, **more)

    monkeypatch.setattr(file, "add", add)
    searched.indexer.ask(Part(1, ONE))
    searched.step()
    monkeypatch.undo()
    searched.steps()
    assert (searched.has(ONE), searched.has(TWO)) == (True, True)


def test_the_thread_that_indexes_gives_way_to_requests(tmp_path: Path) -> None:
    lower = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    searched = Searched(tmp_path, small=SMALL, runs=True)
    try:
        thread = searched.indexer._thread.native_id
        assert thread is not None
        eventually(lambda: os.getpriority(os.PRIO_PROCESS, thread) == lower)
    finally:
        searched.close()
        searched.store.close()


def test_a_rebuild_says_when_it_is_done_also_if_all_chats_are_small(
    searched: Searched, caplog: pytest.LogCaptureFixture
) -> None:
    searched.put(posts([1]))
    searched.steps()
    with caplog.at_level(logging.INFO):
        searched.indexer.rebuild()
        searched.step()
    assert "was built" in caplog.text


def test_the_chats_that_are_known_are_bounded_in_a_rebuild_too(
    searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_chats, "_KNOWN_CHATS", 2)
    file = searched.index.current
    assert file is not None
    file.add([], due=[Part(number, ChatKey("T", number)) for number in range(1, 50)])
    file.add([Document(ChatKey("T", number), 1, "walrus") for number in range(1, 50)])
    assert len(file._chats._known) <= 2
