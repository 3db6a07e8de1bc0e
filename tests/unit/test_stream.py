"""What a stream sends, with which ids, what it costs, and how it ends."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hubbub.chat.caller import Caller
from hubbub.chat.chats import Chats
from hubbub.chat.commands import AddApplication, AddChat, AddUser, DeleteMessage, PostMessage
from hubbub.chat.errors import Unavailable
from hubbub.chat.feed import MOST_CHANGED, Event, Feed
from hubbub.chat.model import Message, MessagesRead, Role
from hubbub.chat.ports import Ports
from hubbub.embedded.store import SqliteStore
from hubbub.embedded.view import MemoryCache
from hubbub.http.stream import MOST_OF_SLICE, SLICE, Slices, Stream
from hubbub.http.turns import Turns
from tests.conftest import eventually_async
from tests.holds import holds
from tests.unit.fakes import CHAT, MEMBER, STRANGER, TOKEN, Fakes

_SENT = re.compile(rb'id: (\d+)\nevent: message\ndata: {"messageNumber":(\d+),')
_CHANGED = re.compile(rb'event: (edited|deleted)\ndata: {"messageNumber":(\d+)[,}]')


class Restarting(Unavailable):
    """An error of an adapter's own class."""


async def stream(ports: Ports, feed: Feed, caller: Caller = MEMBER, after: int = 0) -> Stream:
    async def again() -> Caller:
        return caller

    chats = Chats(ports)
    return Stream(chats, feed, Slices(Turns()), again, MEMBER, CHAT, await chats.enter(MEMBER, CHAT), after)


async def received(fakes: Fakes, feed: Feed, caller: Caller = MEMBER, after: int = 0) -> list[bytes]:
    listening = await stream(fakes.ports, feed, caller, after)
    return [piece async for piece in listening.events() if piece]


def messages(pieces: list[bytes]) -> list[tuple[int, int]]:
    """Return the id and the number of each message."""
    return [(int(identity), int(number)) for identity, number in _SENT.findall(b"".join(pieces))]


class Listening:
    """A listener to a stream. ``pieces`` has what the stream sent."""

    def __init__(self, listening: Stream) -> None:
        self.pieces: list[bytes] = []
        self._events = listening.events()
        self.task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for piece in self._events:
            self.pieces.append(piece)

    @property
    def messages(self) -> list[tuple[int, int]]:
        return messages(self.pieces)

    @property
    def changes(self) -> list[tuple[str, int]]:
        """The kind and the number of each change."""
        return [(kind.decode(), int(number)) for kind, number in _CHANGED.findall(b"".join(self.pieces))]


@pytest.fixture
async def large(tmp_path: Path) -> AsyncIterator[Ports]:
    """The ports of the embedded mode, with a chat of 20,000 messages of which the first is deleted."""
    store = SqliteStore(tmp_path / "hubbub.db")
    store.apply([AddUser("ref", "a@x", "A", "hash", 1), AddUser("r2", "b@x", "B", "hash", 1)])
    store.apply([AddUser("r3", "c@x", "C", "hash", 1), AddApplication(TOKEN, "T", MEMBER.user.id, 1)])
    store.apply([AddChat(TOKEN, None, 1)])
    store.apply([PostMessage(CHAT, number, 3, "ref", "C", f"message {number}", number) for number in range(1, 20_001)])
    store.apply([DeleteMessage(CHAT, 1, 3, any_sender=True)])
    fakes = Fakes()
    yield Ports(store, fakes.intake, MemoryCache(store, Feed()), fakes.index, fakes.ports.quotas, lambda: 1)
    store.close()


async def test_a_long_chat_is_sent_once_and_blocks_nobody(large: Ports) -> None:
    feed = Feed()
    listening = await stream(large, feed)
    with holds() as seen:
        heard = Listening(listening)
        await eventually_async(lambda: len(heard.pieces) > 800, 60)
        feed.end()
        await heard.task
    assert heard.messages == [(number, number) for number in range(2, 20_001)]
    assert seen.count > 800
    assert seen.longest_s < 0.1, seen


async def test_many_readers_at_once_block_nobody(large: Ports) -> None:
    feed, slices = Feed(), Slices(Turns())
    chats = Chats(large)

    async def again() -> Caller:
        return MEMBER

    chat = await chats.enter(MEMBER, CHAT)
    streams = [Stream(chats, feed, slices, again, MEMBER, CHAT, chat, 19_000) for _ in range(50)]
    all_heard = [Listening(each) for each in streams]
    turns, most, last = 0, 0, 0
    while any(len(heard.pieces) < 1 + 1000 // SLICE for heard in all_heard):
        await asyncio.sleep(0)
        turns += 1
        pieces = sum(len(heard.pieces) for heard in all_heard)
        if turns > 2:  # the first pieces say how soon to reconnect
            most = max(most, pieces - last)
        last = pieces
    assert all(heard.messages == [(number, number) for number in range(19_001, 20_001)] for heard in all_heard)
    feed.end()
    await asyncio.gather(*(heard.task for heard in all_heard))
    assert most <= 8


async def test_long_messages_are_sent_few_at_a_time(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "hubbub.db")
    store.apply([AddUser("ref", "a@x", "A", "hash", 1), AddUser("r2", "b@x", "B", "hash", 1)])
    store.apply([AddApplication(TOKEN, "T", MEMBER.user.id, 1), AddChat(TOKEN, None, 1)])
    store.apply([PostMessage(CHAT, number, 1, "ref", "A", "\x01" * 10_000, number) for number in range(1, 31)])
    fakes, feed = Fakes(), Feed()
    heard = Listening(
        await stream(
            Ports(store, fakes.intake, MemoryCache(store, feed), fakes.index, fakes.ports.quotas, lambda: 1), feed
        )
    )
    await eventually_async(lambda: len(heard.messages) == 30)
    feed.end()
    await heard.task
    assert heard.messages == [(number, number) for number in range(1, 31)]
    assert max(map(len, heard.pieces)) < MOST_OF_SLICE + 61_000
    store.close()


def test_the_first_listener_loads_nothing() -> None:
    code = "import sys, hubbub.http.routes.stream; sys.exit('anyio._backends._asyncio' not in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)  # other tests may have loaded it here


async def test_nothing_is_read_ahead_for_a_client_that_does_not_read(large: Ports) -> None:
    view = large.view
    asked = 0
    real = view.messages

    async def counted(*args: object, **options: object) -> MessagesRead:
        nonlocal asked
        asked += 1
        return await real(*args, **options)  # type: ignore[arg-type]

    view.messages = counted  # type: ignore[method-assign]
    events = (await stream(large, Feed())).events()
    for _ in range(3):
        await anext(events)
    await asyncio.sleep(0)
    assert asked == 2
    await events.aclose()  # type: ignore[attr-defined]


class Cluster(Fakes):
    """Fakes of a chat in which the numbers in ``open`` are taken but their messages are not shown yet."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[int] = []

        async def above(*_: object, limit: int, after: int = 0, **__: object) -> MessagesRead:
            found = [each for each in self.all() if each.number > after][:limit]
            return MessagesRead(found[::-1], self.view.lag, [number for number in self.open if number > after])

        async def numbered(_: object, numbers: list[int]) -> MessagesRead:
            found = [each for each in self.all() if each.number in numbers]
            return MessagesRead(found, self.view.lag, [number for number in self.open if number in numbers])

        self.view.messages = above  # type: ignore[method-assign, assignment]
        self.view.numbered = numbered  # type: ignore[method-assign, assignment]

    def all(self) -> list[Message]:
        return [Message(number, 3, "ref", "C", text, 1) for number, text in sorted(self.view.texts.items())]


def event(number: int) -> Event:
    return Event(number, b'{"messageNumber":%d,"body":"live"}' % number)


async def test_ids_wait_for_messages_that_may_still_come_and_for_nothing_else() -> None:
    fakes, feed = Cluster(), Feed()
    fakes.view.texts = dict.fromkeys((1, 2, 4, 6, 7, 9), "x")  # 3 and 8 are deleted
    fakes.open = [5]
    heard = Listening(await stream(fakes.ports, feed))
    await eventually_async(lambda: len(heard.messages) == 6)
    assert heard.messages == [(1, 1), (2, 2), (4, 4), (4, 6), (4, 7), (4, 9)]
    fakes.open = []
    fakes.view.texts[5] = "late"
    feed.publish(CHAT, event(5))
    await eventually_async(lambda: len(heard.messages) == 7)
    assert heard.messages[-1] == (9, 5)
    feed.end()
    await heard.task


async def test_a_gap_in_the_events_is_read_and_sent_once() -> None:
    fakes, feed = Cluster(), Feed()
    heard = Listening(await stream(fakes.ports, feed, after=5))
    await asyncio.sleep(0)
    fakes.view.texts |= {7: "unheard", 9: "heard"}  # 6 and 8 were taken by posts that were refused
    feed.publish(CHAT, event(9))
    await eventually_async(lambda: len(heard.messages) == 2)
    assert heard.messages == [(5, 9), (9, 7)]
    fakes.view.texts[10] = "next"
    feed.publish(CHAT, event(10))
    feed.publish(CHAT, event(7))
    await eventually_async(lambda: len(heard.messages) == 3)
    assert heard.messages[-1] == (10, 10)
    feed.end()
    await heard.task


async def test_an_answer_that_may_lag_moves_no_id_over_a_gap() -> None:
    fakes, feed = Cluster(), Feed()
    fakes.view.texts = dict.fromkeys((1, 2, 4), "x")
    fakes.view.lag = True
    heard = Listening(await stream(fakes.ports, feed))
    await eventually_async(lambda: len(heard.messages) == 2)
    fakes.view.texts[3] = "it was only not to be seen"
    fakes.view.lag = False
    await eventually_async(lambda: len(heard.messages) == 4)
    assert heard.messages == [(1, 1), (2, 2), (3, 3), (4, 4)]
    feed.end()
    await heard.task


async def test_a_page_is_not_sent_to_a_member_removed_while_it_was_read() -> None:
    fakes = Fakes()
    real = fakes.view.messages
    removed = False

    async def role(_: Caller, __: str) -> Role | None:
        return None if removed else Role.MEMBER

    async def read(*args: object, **options: object) -> MessagesRead:
        nonlocal removed
        removed = True
        return await real(*args, **options)  # type: ignore[arg-type]

    fakes.view.role = role  # type: ignore[method-assign, assignment]
    fakes.view.messages = read  # type: ignore[method-assign]
    pieces = await received(fakes, Feed())
    assert messages(pieces) == []
    assert pieces[-1].startswith(b'event: end\ndata: {"status":404,')


async def test_a_long_read_ends_with_its_session(large: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.http.stream.CHECK_S", 0.0)
    listening = await stream(large, Feed(), caller=STRANGER)
    pieces = [piece async for piece in listening.events()]
    assert len(messages(pieces)) == 25
    assert pieces[-1].startswith(b'event: end\ndata: {"status":404,')


async def test_a_stream_ends_with_the_reason_when_it_cannot_read() -> None:
    fakes = Fakes()

    async def refuse(*_: object, **__: object) -> object:
        raise Restarting("Try again.")

    fakes.view.messages = refuse  # type: ignore[assignment]
    assert (await received(fakes, Feed()))[-1] == b'event: end\ndata: {"status":503,"error":"Try again."}\n\n'


async def test_a_removed_member_is_told_so_within_a_second() -> None:
    pieces = await received(Fakes(), Feed(), STRANGER, after=5)
    assert pieces[-1].startswith(b'event: end\ndata: {"status":404,')


async def test_a_stream_ends_without_a_reason_when_the_process_stops() -> None:
    feed = Feed()
    feed.end()
    pieces = await received(Fakes(), feed, MEMBER, after=3)
    assert pieces[0] == b"retry: 1000\n\n"
    assert messages(pieces) == [(4, 4), (5, 5)]
    assert pieces[-1] == b": this process is stopping, connect again\n\n"


async def test_a_listener_that_does_not_read_keeps_little() -> None:
    feed = Feed()
    with feed.listen(CHAT) as listener:
        for number in range(1, 100):
            feed.publish(CHAT, Event(number, b"x" * 40_000))
        assert listener.missed
        assert await listener.take(0) == ([], [])


async def test_changes_are_sent_though_new_messages_are_too_many_to_keep() -> None:
    fakes, feed = Fakes(), Feed()
    fakes.view.texts = dict.fromkeys(range(1, 901), "x" * 100)
    changed = list(range(1, 600, 2))
    heard = Listening(await stream(fakes.ports, feed, after=100))
    await eventually_async(lambda: len(heard.messages) == 800)
    for number in changed:
        if number % 3 == 0:
            del fakes.view.texts[number]
        else:
            fakes.view.texts[number] = "as it is now"
        feed.publish(CHAT, Event(number, None))
    fakes.view.texts |= dict.fromkeys(range(901, 1201), "new")
    for number in range(901, 1201):
        feed.publish(CHAT, event(number))
        feed.publish(CHAT, Event(changed[number % 300], None))
    await eventually_async(lambda: len(heard.messages) == 1100 and len(heard.changes) == 300)
    assert heard.messages[800:] == [(number, number) for number in range(901, 1201)]
    assert heard.changes == [("deleted" if number % 3 == 0 else "edited", number) for number in changed]
    assert b"".join(heard.pieces).count(b'"as it is now"') == 200
    feed.end()
    await heard.task


async def test_a_message_comes_before_its_change() -> None:
    fakes, feed = Fakes(), Feed()
    heard = Listening(await stream(fakes.ports, feed, after=5))
    await asyncio.sleep(0)
    for number in range(6, 56):
        fakes.view.texts[number] = "edited"
        feed.publish(CHAT, event(number))
        feed.publish(CHAT, Event(number, None))
    await eventually_async(lambda: len(heard.changes) == 50)
    whole = b"".join(heard.pieces)
    for number in range(6, 56):
        sent = [match.start() for match in re.finditer(rb'"messageNumber":%d,' % number, whole)]
        assert len(sent) == 2
        assert b'"edited"' in whole[sent[1] : sent[1] + 200]
    feed.end()
    await heard.task


async def test_changes_wait_for_an_answer_that_does_not_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.http.stream._AGAIN_S", 0.01)
    fakes, feed = Fakes(), Feed()
    heard = Listening(await stream(fakes.ports, feed, after=5))
    await asyncio.sleep(0)
    fakes.view.lag = True
    asked = 0
    real = fakes.view.numbered

    async def numbered(*args: Any) -> MessagesRead:
        nonlocal asked
        asked += 1
        return await real(*args)

    fakes.view.numbered = numbered  # type: ignore[method-assign, assignment]
    for number in (2, 77):
        feed.publish(CHAT, Event(number, None))
    await eventually_async(lambda: asked > 3)
    assert heard.changes == []
    fakes.view.lag = False
    await eventually_async(lambda: heard.changes == [("edited", 2), ("deleted", 77)])
    feed.end()
    await heard.task


async def test_more_changes_than_can_be_kept_end_a_stream_with_a_reason() -> None:
    fakes, feed = Fakes(), Feed()
    heard = Listening(await stream(fakes.ports, feed, after=5))
    await asyncio.sleep(0)
    for number in range(1, MOST_CHANGED + 2):
        feed.publish(CHAT, Event(number, None))
    await eventually_async(heard.task.done)
    assert heard.pieces[-1].startswith(b'event: end\ndata: {"status":503,"error":"More messages were changed than')
    assert b"Load the chat again" in heard.pieces[-1]


async def test_with_more_listeners_each_keeps_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.chat.feed._MOST_BYTES_IN_ALL", 4000)
    monkeypatch.setattr("hubbub.chat.feed._MOST_CHANGED_IN_ALL", 40)
    feed = Feed()
    with ExitStack() as others:
        listeners = [others.enter_context(feed.listen(CHAT)) for _ in range(20)]
        for number in range(1, 4):
            feed.publish(CHAT, Event(number, b"x" * 100))
        assert all(listener.missed for listener in listeners)
        for number in range(1, 4):
            feed.publish(CHAT, Event(number, None))
        assert all(listener.lost for listener in listeners)
    with feed.listen(CHAT) as alone:
        for number in range(1, 31):
            feed.publish(CHAT, Event(number, b"x" * 100))
            feed.publish(CHAT, Event(number, None))
        taken = await alone.take(1)
        assert (len(taken.messages), len(taken.changed)) == (30, 30)
        assert not alone.missed
        assert not alone.lost


async def test_a_listener_keeps_a_bounded_number_of_changes() -> None:
    feed = Feed()
    with feed.listen(CHAT) as listener:
        for number in range(1, MOST_CHANGED + 1):
            feed.publish(CHAT, Event(number, None))
            feed.publish(CHAT, Event(number, None))
        assert not listener.lost
        feed.publish(CHAT, Event(MOST_CHANGED + 1, None))
        assert listener.lost
        assert len((await listener.take(0)).changed) == MOST_CHANGED
