"""Answers from memory alone are the same as those of the other ports, and only members get them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hubbub.chat.caller import Caller
from hubbub.chat.commands import (
    AddApplication,
    AddChat,
    AddUser,
    Command,
    EndSession,
    Outcome,
    PostMessage,
    RemoveMember,
)
from hubbub.chat.errors import RateLimited
from hubbub.chat.feed import Feed
from hubbub.chat.model import ChatKey, User
from hubbub.chat.ticket import Ticket
from hubbub.embedded.at_once import FromMemory
from hubbub.embedded.intake import DirectIntake
from hubbub.embedded.remembered import Remembered
from hubbub.embedded.store import SqliteStore
from hubbub.embedded.view import MemoryCache
from hubbub.http.limits import LocalGate

ANN, BOB = User(1, "ann", "a@x", "A", 1), User(2, "bob", "b@x", "B", 1)
CHAT = ChatKey("token", 1)


class Direct:
    """A queue that stores each command at once."""

    depth = 0
    fault = None

    def __init__(self, store: SqliteStore, remembered: Remembered) -> None:
        self._store = store
        self._remembered = remembered
        self.accepted: list[Command] = []

    def accept(self, command: Command) -> Ticket:
        self.accepted.append(command)
        ticket = Ticket(command)
        outcome = self._store.apply([command])[0]
        self._remembered.applied(command, outcome)
        ticket.resolve(outcome)
        return ticket


class Service:
    """The embedded mode's memory, still empty, over a store with Ann's chat."""

    def __init__(self, store: SqliteStore, rate: int = 1000, catch_up: Callable[[], None] = lambda: None) -> None:
        self.cache = MemoryCache(store, Feed())
        self.gate = LocalGate(rate)
        self.queue = Direct(store, Remembered(self.cache, self.gate))
        self.intake = DirectIntake(self.queue, lambda: 5)
        self.at_once = FromMemory(self.cache, self.intake, self.gate, catch_up)

    async def mark(self, user: User) -> str:
        return (await self.gate.enter(user.id)).mark

    async def read(self) -> str:
        """Read everything as Ann, so that it is in memory; return her mark."""
        caller = Caller(ANN)
        await self.cache.role(caller, CHAT.token)
        await self.cache.newest(caller, CHAT, 10)
        await self.cache.chats(caller, CHAT.token, 10)
        return await self.mark(ANN)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "hubbub.db")
    users = [AddUser(user.ref, user.email, user.name, "hash", 1) for user in (ANN, BOB)]
    store.apply([*users, AddApplication(CHAT.token, "T", ANN.id, 2), AddChat(CHAT.token, None, 3)])
    yield store
    store.close()


def number_of(ticket: Ticket | None) -> Outcome:
    assert ticket is not None
    outcomes: list[Outcome] = []
    ticket.then(outcomes.append)
    return outcomes[0]


async def test_a_member_gets_the_same_answers_as_from_the_other_ports(store: SqliteStore) -> None:
    service = Service(store)
    mark = await service.read()
    for number in (1, 2):
        assert number_of(service.at_once.post(ANN, mark, CHAT, "hello", "")) == number
        kept = service.at_once.newest(ANN, mark, CHAT, 10)
        assert kept is not None
        assert kept.page == await service.cache.newest(Caller(ANN), CHAT, 10)
        listed = service.at_once.chats(ANN, mark, CHAT.token, 10)
        assert listed == await service.cache.chats(Caller(ANN), CHAT.token, 10)
        assert listed is not None
        assert b'"messagesCount":%d' % number in listed


async def test_what_is_not_in_memory_is_left_to_the_other_ports(store: SqliteStore) -> None:
    service = Service(store)
    mark = await service.mark(ANN)
    assert service.at_once.newest(ANN, mark, CHAT, 10) is None
    assert service.at_once.chats(ANN, mark, CHAT.token, 10) is None
    assert service.at_once.post(ANN, mark, CHAT, "hello", "") is None


async def test_users_who_are_not_members_get_nothing(store: SqliteStore) -> None:
    service = Service(store)
    mark = await service.read()

    async def gets_nothing(user: User, mark: str) -> None:
        assert service.at_once.newest(user, mark, CHAT, 10) is None
        assert service.at_once.chats(user, mark, CHAT.token, 10) is None
        assert service.at_once.post(user, mark, CHAT, "hello", "") is None
        assert service.queue.accepted == []

    await gets_nothing(BOB, await service.mark(BOB))
    service.cache.settled(RemoveMember(CHAT.token, ANN.id), None)
    await gets_nothing(ANN, mark)


async def test_a_session_that_may_have_ended_gets_nothing(store: SqliteStore) -> None:
    service = Service(store)
    mark = await service.read()
    over = await service.gate.sessions_change(ANN.id)
    for after in (False, True):
        if after:
            await over()
        for sent in (mark, ""):
            assert service.at_once.newest(ANN, sent, CHAT, 10) is None
            assert service.at_once.chats(ANN, sent, CHAT.token, 10) is None
            assert service.at_once.post(ANN, sent, CHAT, "hello", "") is None
    assert service.queue.accepted == []


async def test_each_request_counts_against_the_rate_of_its_user(store: SqliteStore) -> None:
    service = Service(store, rate=1)
    mark = await service.read()  # the first of the two requests that are allowed
    assert service.at_once.newest(ANN, mark, CHAT, 10) is not None
    for _ in range(2):
        with pytest.raises(RateLimited):
            service.at_once.post(ANN, mark, CHAT, "hello", "")
    with pytest.raises(RateLimited):
        service.at_once.chats(ANN, mark, CHAT.token, 10)
    assert not any(isinstance(command, PostMessage) for command in service.queue.accepted)
    assert await (await service.intake.post(Caller(ANN), CHAT, "hello", None)) == 1, "a refused post takes no number"


async def test_a_list_that_is_not_answered_is_no_hit(store: SqliteStore) -> None:
    service = Service(store, rate=1)
    mark = await service.read()  # one of two, and a miss
    assert service.at_once.newest(ANN, "of another session", CHAT, 10) is None
    assert (service.cache.hits, service.cache.misses) == (0, 1)
    assert service.at_once.newest(ANN, mark, CHAT, 10) is not None
    with pytest.raises(RateLimited):
        service.at_once.newest(ANN, mark, CHAT, 10)
    assert (service.cache.hits, service.cache.misses) == (1, 1)
    await service.cache.newest(Caller(ANN), CHAT, 10)
    assert (service.cache.hits, service.cache.misses) == (2, 1)


@pytest.mark.parametrize("ended_by", [EndSession("s", 1, ANN.id), RemoveMember(CHAT.token, ANN.id)])
@pytest.mark.parametrize("asked", ["newest", "chats", "post"])
async def test_what_another_process_has_ended_is_over_at_once(
    store: SqliteStore, asked: str, ended_by: Command
) -> None:
    service = Service(store, catch_up=lambda: remembered.applied(ended_by, None))
    remembered = Remembered(service.cache, service.gate)
    mark = await service.read()
    if asked == "newest":
        assert service.at_once.newest(ANN, mark, CHAT, 10) is None
    elif asked == "chats":
        assert service.at_once.chats(ANN, mark, CHAT.token, 10) is None
    else:
        assert service.at_once.post(ANN, mark, CHAT, "hello", "") is None
