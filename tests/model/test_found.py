"""Errors that driving the real code has found, each with as few words of the protocol as possible."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from hubbub.cluster.protocol import AppliedBefore, Delete, Edit, Failed, Post, order_of
from hubbub.cluster.redis import stored
from hubbub.cluster.redis.connection import RedisClient
from hubbub.cluster.redis.keys import LIFETIME_MS
from hubbub.cluster.redis.numbers import Confirmed, Slot, change_entry, post_entry
from hubbub.loadtest.servers import Redis
from tests.model.real_redis import Drive, small_scripts
from tests.model.real_store import KEPT, Late


class Words:
    """A live chat, and the words that a test sends about it."""

    def __init__(self, drive: Drive) -> None:
        self.drive = drive
        self.store = drive.store
        self.store.copies = False
        self.numbers = drive.apis[0].numbers
        self.view = drive.apis[0].view
        self.chat = drive.chat

    async def numbered(self) -> Post:
        slot = await self.numbers.reserve(self.chat, 7, None)
        assert isinstance(slot, Slot)
        return Post(self.chat, slot.number, 1, "A", f"text {slot.number}", 7, epoch=slot.epoch, sender_ref="ref")

    async def shown(self, count: int = 1) -> list[Post]:
        posts = [await self.numbered() for _ in range(count)]
        for post in posts:
            assert await self.numbers.show(0, [Confirmed(post, 1, post_entry(post))]) == [True]
        return posts

    async def ordered(self, number: int, body: str | None) -> Confirmed:
        found = await self.numbers.order(self.chat, number)
        change: Edit | Delete = Delete(self.chat, number, 1, True, order=found.order)
        if body is not None:
            change = Edit(self.chat, number, 1, body, 9, order=found.order)
        return Confirmed(change, 1, change_entry(change, found.message))

    async def show(self, *confirmed: Confirmed) -> None:
        assert all(await self.numbers.show(0, confirmed))

    async def applied(self, *commands: Post | Edit | Delete) -> None:
        position, outcomes = self.store.transaction(commands)
        await self.drive.stored.stored(self.chat, list(zip(commands, outcomes, strict=True)), position)

    async def again(self, *commands: Post | Edit | Delete) -> None:
        """Deliver the commands again, so that they are skipped."""
        position, _ = self.store.transaction([])
        await self.drive.stored.stored(self.chat, [(command, AppliedBefore()) for command in commands], position)

    async def bodies(self) -> list[str]:
        return [message.body for message in (await self.view.messages(self.chat, limit=100)).messages]


@pytest.fixture
async def words(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Words]:
    monkeypatch.setattr(stored, "_KEPT", KEPT)
    client = RedisClient(redis.url, small_scripts())
    assert await client.connected(10)
    drive = Drive(client, 0)
    await drive._forget()
    await drive.begin()
    yield Words(drive)
    await drive._fill(False)
    await drive._forget()
    await client.close()


async def test_an_entry_beside_lives_as_long_as_its_chat(words: Words) -> None:
    posts = await words.shown(20)
    await words.applied(*posts[1:])  # the first is not stored yet, and is beside by now
    names = words.drive.client.named()
    assert await words.drive.client.call("HLEN", names.old(words.chat)) == 1
    assert await words.drive.client.call("PTTL", names.old(words.chat)) > LIFETIME_MS - 600_000


async def test_a_repeated_post_that_was_set_aside_does_not_count_as_stored(words: Words) -> None:
    posts = await words.shown(20)
    words.store.faulty.add(posts[0].body)
    await words.applied(posts[0])
    await words.again(posts[0])
    await words.applied(*posts[1:])
    assert posts[0].body in await words.bodies()


async def test_a_repeated_delete_that_was_set_aside_removes_nothing(words: Words) -> None:
    (post,) = await words.shown()
    await words.applied(post)
    older = Delete(words.chat, post.number, 1, True, order=order_of(9, 5))
    await words.again(older)
    assert await words.bodies() == [post.body]
    position, _ = words.store.transaction([])
    await words.drive.stored.stored(words.chat, [(older, None)], position)
    assert await words.bodies() == [post.body], "a change of another epoch says nothing of this one"


async def test_a_deleted_message_that_an_operator_had_sent_again_stays_gone(words: Words) -> None:
    post = await words.numbered()
    await words.shown()
    await words.numbers.release(words.chat, Slot(1, 1, post.number, 7), None)
    sent = Post(words.chat, post.number, 1, "A", post.body, 7, sender_ref="ref")
    await words.applied(sent)
    delete = await words.ordered(post.number, None)
    await words.show(delete)
    assert isinstance(delete.command, Delete)
    await words.applied(delete.command)
    await words.again(sent)
    assert post.body not in await words.bodies()


async def test_a_full_redis_forgets_no_change_that_is_stored(words: Words) -> None:
    posts = await words.shown(20)
    await words.applied(*posts)
    first, second = await words.ordered(1, "first"), await words.ordered(1, "second")
    await words.show(second)
    assert isinstance(first.command, Edit)
    assert isinstance(second.command, Edit)
    await words.drive._fill(True)
    await words.applied(first.command)
    await words.applied(second.command)
    await words.drive._fill(False)
    await words.show(first)
    assert (await words.bodies())[-1] == "second"


async def test_an_edit_overtaken_in_the_store_is_not_shown_over_a_newer_one(words: Words) -> None:
    """The message is below the floor, and the report that the older edit is stored was lost."""
    posts = await words.shown(20)
    await words.applied(*posts)
    first, second = await words.ordered(1, "first"), await words.ordered(1, "second")
    assert isinstance(first.command, Edit)
    assert isinstance(second.command, Edit)
    words.store.transaction([first.command])
    await words.show(second)
    await words.applied(second.command)
    await words.show(first)
    assert (await words.bodies())[-1] == "second"


async def test_a_delete_is_shown_though_a_later_edit_is_stored(words: Words) -> None:
    posts = await words.shown(20)
    await words.applied(*posts)
    delete, edit = await words.ordered(1, None), await words.ordered(1, "edited")
    assert isinstance(edit.command, Edit)
    await words.applied(edit.command)
    await words.show(delete)
    assert len(await words.bodies()) == 19


async def test_a_post_that_was_sent_again_counts_as_stored_from_then_on(words: Words) -> None:
    """A replica at the chat's position has it, though a late report of its first delivery arrives earlier."""
    words.store.copies = True
    posts = await words.shown(20)
    words.store.faulty.add(posts[0].body)
    await words.applied(posts[0])
    position, _ = words.store.transaction([])
    await words.applied(*posts[1:8])
    words.store.faulty.clear()
    words.store.transaction([Post(words.chat, 1, 1, "A", posts[0].body, 7, sender_ref="ref")])
    await words.drive.stored.stored(words.chat, [(posts[0], AppliedBefore())], position)
    await words.drive.stored.stored(words.chat, [(post, 0) for post in posts[1:12]], position)
    assert posts[0].body in await words.bodies()


@pytest.mark.parametrize("upwards", [False, True])
async def test_the_floor_may_rise_while_a_list_is_read(words: Words, upwards: bool) -> None:
    """A list takes more than one trip if many numbers were given and are not shown."""
    edge = await words.shown(3 if upwards else 30)
    gaps = [await words.numbered() for _ in range(40)]
    rest = await words.shown(30 if upwards else 9)
    late = Late()
    after = 0 if upwards else None
    reading = asyncio.ensure_future(words.view.slowly(late, words.chat, 10, None, after))
    await late.come.wait()
    order = [*edge, *gaps, *rest]
    for at in range(0, len(order), 5):
        await words.applied(*order[at : at + 5])
    while not reading.done():
        for future in late.waiting:
            if not future.done():
                future.set_result(None)
        await asyncio.sleep(0)
    numbers = [message.number for message in reading.result().messages]
    expected = sorted((post.number for post in order), reverse=True)
    assert numbers == sorted(set(numbers), reverse=True)
    acknowledged = [post.number for post in (*edge, *rest)]
    within = [number for number in acknowledged if min(numbers) <= number <= max(numbers)]
    assert set(within) <= set(numbers) <= set(expected)


async def test_a_change_of_a_message_that_is_set_aside_stays_shown(words: Words) -> None:
    (post,) = await words.shown()
    words.store.faulty.add(post.body)
    await words.applied(post)
    edit = await words.ordered(post.number, "edited")
    await words.show(edit)
    assert isinstance(edit.command, Edit)
    _, (outcome,) = words.store.transaction([edit.command])
    assert isinstance(outcome, Failed)
    assert await words.bodies() == ["edited"]
