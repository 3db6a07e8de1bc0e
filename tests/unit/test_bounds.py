"""What a process remembers for its clients stays within its bounds, and what was forgotten is found out again."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from hubbub.chat import model, search
from hubbub.chat.commands import AddApplication, AddChat, AddUser, Command, Outcome, PostMessage, RenameUser
from hubbub.chat.errors import Invalid, RateLimited, Unauthenticated, Unavailable
from hubbub.chat.feed import Feed
from hubbub.chat.model import ChatKey, is_token
from hubbub.chat.ports import Wants
from hubbub.cluster.database import Database
from hubbub.cluster.threads import Threads
from hubbub.embedded import committer, store, view
from hubbub.embedded.index import IndexFile, Progress, SqliteIndex
from hubbub.embedded.index_shares import Change
from hubbub.embedded.store import SqliteStore
from hubbub.embedded.view import MemoryCache
from hubbub.http import anonymous, hot_routes, limits, mail, schemas, sessions, stream_position
from hubbub.http.anonymous import AnonymousRate
from hubbub.http.fields import fields
from hubbub.http.hot_routes import HotRoutes
from hubbub.http.limits import LocalGate
from hubbub.http.mail import Mail
from hubbub.http.operator import RecentErrors
from hubbub.http.shortcuts import _limit_of
from hubbub.http.stream_position import GIVEN_UP_S, StreamPosition
from tests.committing import queue_with
from tests.unit.test_sessions import Ending, bearer, made

WANTS = Wants(ChatKey("T", 1))

# Rates ---------------------------------------------------------------------------------------------------------------


async def test_the_rates_of_many_users_are_forgotten_but_not_those_that_were_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "_MOST_BUCKETS", 10)
    clock = [100 * 10**9]
    monkeypatch.setattr("hubbub.http.limits.time.monotonic_ns", lambda: clock[0])
    gate = LocalGate(5)
    for user in range(20, 28):
        await gate.enter(user)
    clock[0] += 10 * 10**9  # these are back at their full rate
    for _ in range(10):
        await gate.enter(1)
    for user in range(40, 42):
        await gate.enter(user)
    assert len(gate._buckets) <= 10
    with pytest.raises(RateLimited):
        await gate.enter(1)


def test_the_counts_of_many_addresses_are_forgotten_but_not_those_that_were_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(anonymous, "_MOST_ADDRESSES", 10)
    clock = [100.0]
    monkeypatch.setattr("hubbub.http.anonymous.time.monotonic", lambda: clock[0])
    rate = AnonymousRate()
    for number in range(10):
        rate.count(f"192.0.2.{number}", 0)
    clock[0] += 10
    rate.count("198.51.100.1", (2 * anonymous.RATE - 2) * 1024)
    assert len(rate._gone_at) == 1
    with pytest.raises(RateLimited):
        rate.count("198.51.100.1", 2 * 1024)


# Sessions ------------------------------------------------------------------------------------------------------------


async def test_a_forgotten_session_is_verified_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_REMEMBERED", 3)
    known = made()
    tokens = [bearer(iat=-number) for number in range(5)]
    for _ in range(2):
        for token in tokens:
            assert (await known.enter(None, token, WANTS)).user.name == "Ann"
            assert len(known._remembered) <= 3


async def test_the_session_of_a_very_long_header_is_not_remembered() -> None:
    known = made()
    token = bearer().split()[1]
    cookie = b"a=" + b"b" * sessions._LONGEST_HEADER + b"; auth_token=" + token
    assert (await known.enter(cookie, None, WANTS)).user.name == "Ann"
    assert known.user_of(cookie, None) == ""
    await known.enter(b"auth_token=" + token, None, WANTS)
    assert known.user_of(b"auth_token=" + token, None) == "ann"


async def test_a_forgotten_ended_session_is_still_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_REMEMBERED_ENDED", 0)
    accounts = Ending()
    accounts.living = False
    known = made(accounts)
    for asked in (1, 2):
        with pytest.raises(Unauthenticated):
            await known.enter(None, bearer(), WANTS)
        assert accounts.asked == asked
        assert not known._ended


# Requests ------------------------------------------------------------------------------------------------------------


def test_request_lines_are_forgotten_and_long_ones_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot_routes, "_REMEMBERED", 5)
    hot = HotRoutes(*[cast(Any, None)] * 3)
    for number in range(1, 21):
        match = hot.match(b"GET", b"/api/v1/applications/t/chats/%d/messages" % number)
        assert match is not None
        assert match[1] == ChatKey("t", number)
        assert len(hot._remembered) <= 5
    hot._remembered.clear()
    long = hot.match(b"GET", b"/api/v1/applications/t/chats?a=" + b"x" * hot_routes._LONGEST_TARGET)
    assert long is not None
    assert not hot._remembered


@pytest.mark.parametrize(
    ("query", "limit"),
    [
        (b"limit=3", 3),
        (b"page=1", 10),
        (b"page=1&limit=25", 25),
        (b"limit=26", None),  # it may be a large page, which has to wait for its turn
        (b"limit=3&page=2", None),
        (b"limit=3&before=7", None),
        (b"after=0", None),
        (b"limit=0", None),
        (b"limit=x", None),
        (b"limit=%ff", None),
    ],
)
def test_a_query_for_few_of_the_newest_is_known(query: bytes, limit: int | None) -> None:
    assert _limit_of(query) == limit


@pytest.mark.parametrize(
    ("kind", "field", "most", "others"),
    [
        (schemas.Credentials, "password", 1000, {"email": "a@example.com"}),
        (schemas.AcceptedInvite, "code", 64, {}),
        (schemas.PasswordByLink, "code", 64, {"password": "long enough"}),
    ],
)
def test_a_password_and_a_code_have_so_many_characters(
    kind: type[schemas.Request], field: str, most: int, others: dict[str, str]
) -> None:
    assert getattr(fields(kind, json.dumps({field: "x" * most, **others}).encode()), field) == "x" * most
    with pytest.raises(Invalid, match=field):
        fields(kind, json.dumps({field: "x" * (most + 1), **others}).encode())


def test_many_words_that_look_like_tokens_are_told_from_others() -> None:
    most = model._looks_so.cache_parameters()["maxsize"]
    for number in range(2 * most):
        assert is_token(f"token{number}")
        assert not is_token(f"token {number}")
    assert model._looks_so.cache_info().currsize <= most


def test_the_operator_is_shown_the_latest_warnings() -> None:
    errors = RecentErrors()
    for number in range(200):
        errors.emit(logging.LogRecord("hubbub", logging.WARNING, "", 0, f"number {number}\nand more", None, None))
    assert len(errors.lines()) == 50
    assert errors.lines()[0].endswith("number 199")


async def test_so_many_mails_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "_MOST_WAITING", 3)
    sending, sent = Mail("smtp://127.0.0.1:1", "a@example.com"), asyncio.Event()

    async def one() -> None:
        await sent.wait()

    for _ in range(3):
        sending.later(one())
    with pytest.raises(Unavailable, match="Too many mails"):
        sending.later(one())
    sent.set()
    await sending.close()
    sending.later(one())
    await sending.close()


# Messages ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def chats(tmp_path: Path) -> Any:
    made = SqliteStore(tmp_path / "hubbub.db")
    made.apply([AddUser(f"ref{number}", f"{number}@x", "A", "hash", 1) for number in range(1, 10)])
    made.apply([AddApplication("T", "T", 1, 1), *[AddChat("T", None, 1)] * 9])
    yield made
    made.close()


async def test_the_ids_of_forgotten_chats_are_read_again(monkeypatch: pytest.MonkeyPatch, chats: SqliteStore) -> None:
    monkeypatch.setattr(store, "_KNOWN_CHATS", 2)
    for number in range(1, 4):
        for chat in range(1, 10):
            key = ChatKey("T", chat)
            assert chats.apply([PostMessage(key, number, 1, "ref1", "A", f"{chat}", 1)]) == [number]
            assert {each.body for each in await chats.messages(key, limit=10)} == {f"{chat}"}
            assert len(chats._written) <= 2
            assert len(chats._chat_ids) <= 2


async def test_few_names_of_renamed_users_are_kept(monkeypatch: pytest.MonkeyPatch, chats: SqliteStore) -> None:
    monkeypatch.setattr(view, "_NAMES", 3)
    cache = MemoryCache(chats, Feed())
    for user in range(1, 10):
        rename = RenameUser(user, f"new {user}")
        cache.settled(rename, chats.apply([rename])[0])
    assert dict(cache._names) == {7: "new 7", 8: "new 8", 9: "new 9"}


async def test_a_commit_takes_so_many_commands() -> None:
    taken: list[int] = []

    class Counting:
        faults = None, None
        retries = dead = 0

        def apply(self, batch: Sequence[Command]) -> list[Outcome]:
            taken.append(len(batch))
            time.sleep(0.01)  # so that the others wait meanwhile
            return [cast(PostMessage, command).number for command in batch]

        def housekeep(self) -> None: ...

    commits = await queue_with(cast(Any, Counting()), max_batch=7)
    tickets = [commits.accept(PostMessage(ChatKey("T", 1), at, 1, "ref", "A", "x", 1)) for at in range(50)]
    assert [await ticket for ticket in tickets] == list(range(50))
    assert max(taken) == 7
    await commits.close()
    assert committer._OVERHEAD * 1000 < 1024 * 1024, "a user's share has room for a thousand short messages"


def test_a_listener_is_sent_late_messages_of_the_latest_given_up_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(stream_position, "monotonic", lambda: clock[0])
    position = StreamPosition(0)
    assert position.read(301, deque(range(1, 301)), sure=True)
    clock[0] += GIVEN_UP_S + 1
    position.looked_for(range(1, 301), range(1, 301))
    assert position.missing == []
    late = [number for number in range(1, 301) if position.live(number)]
    assert late == list(range(201, 301))


@pytest.mark.parametrize(("what", "threads"), [("soon", 4), ("change", 2)], ids=["reads", "changes"])
async def test_so_many_requests_to_mysql_run_and_wait(what: str, threads: int) -> None:
    database = Database("mysql://nobody@127.0.0.1:1/none", pool_size=4)
    begun, go = list[int](), threading.Event()
    run = getattr(database, what)

    def work() -> int:
        begun.append(1)
        go.wait(10)
        return len(begun)

    waiting = [run(work) for _ in range(threads * 16)]
    with pytest.raises(Unavailable):
        await run(work)
    assert len(begun) <= threads
    go.set()
    assert max(await asyncio.gather(*waiting)) == threads * 16
    assert await run(work) == threads * 16 + 1
    database.close()


async def test_a_change_that_nobody_waits_for_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.cluster.database._CHANGE_S", 0.1)
    database = Database("mysql://nobody@127.0.0.1:1/none", pool_size=2)
    made, begun, go = list[str](), threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go.wait(10)
        made.append("the first")

    changes = [database.change(slow), database.change(lambda: made.append("the second"))]
    assert begun.wait(10)
    for outcome in await asyncio.gather(*changes, return_exceptions=True):
        assert isinstance(outcome, Unavailable)
    with pytest.raises(Unavailable):  # at once: the database did not answer just now
        await database.change(lambda: made.append("the third"))
    go.set()
    database.close()
    assert made == ["the first"]


async def test_who_waits_for_mysql_when_the_process_stops_is_told() -> None:
    threads, begun, go = Threads(1, "one", answer_s=30), threading.Event(), threading.Event()

    def slow() -> str:
        begun.set()
        go.wait(10)
        return "done"

    first, second = threads.soon(slow), threads.soon(slow)
    assert begun.wait(10)
    threading.Timer(0.1, go.set).start()
    threads.close()
    assert await first == "done"
    with pytest.raises(Unavailable, match="stopping"):
        await second


# Searches ------------------------------------------------------------------------------------------------------------


def test_a_query_counts_so_many_words_and_parts() -> None:
    words = [f"w{number:03d}" for number in range(100)]
    query = search.parse(" ".join(words))
    assert [term.text for term in query.terms] == words[:32]
    assert sum(len(search.some(term.sure, len(query.terms))) for term in query.terms) <= 96
    (long,) = search.parse("".join(f"{number:04d}" for number in range(200))).terms
    assert len(long.sure) > 100
    assert len(search.some(long.sure, 1)) <= 24


@pytest.fixture
def index(tmp_path: Path) -> Any:
    files = SqliteIndex(tmp_path, 1)
    yield files.start_anew()
    files.close()


def test_each_step_of_the_index_takes_some_changes_of_the_next_users(index: IndexFile) -> None:
    users = 50
    index.add(
        [],
        Progress(1, later=[Change(user, 1, 1, user * 1000 + at, 10) for user in range(users) for at in range(300)]),
    )
    seen: set[int] = set()
    for _ in range(-(-users // 20)):
        step = index.waiting()
        assert len({change.sender for change in step}) == 20
        assert len(step) <= 4000
        seen |= {change.sender for change in step}
    assert seen == set(range(users))
