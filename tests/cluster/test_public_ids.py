"""Readers get public ids also for messages without them: those that an earlier version left in Redis and in the
queue, and those that its processes write there until they are replaced.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from hubbub.chat.caller import Caller
from hubbub.chat.model import User
from hubbub.cluster.protocol import Delivery, Edit, Post, decode, encode
from hubbub.cluster.redis.feed import RedisFeed
from hubbub.cluster.redis.numbers import Confirmed
from hubbub.cluster.redis.servers import Servers
from hubbub.loadtest.servers import Redis
from tests.cluster.test_late_words import Words, servers, words  # noqa: F401 - fixtures
from tests.conftest import eventually_async

CALLER = Caller(User(1, "ref", "a@x", "A", 1))


def as_before(confirmed: Confirmed) -> Confirmed:
    """Return what a process of the earlier version queues and shows."""
    entry = confirmed.entry.replace(b'"senderId":"ref",', b"")
    assert entry != confirmed.entry
    command = confirmed.command
    assert isinstance(command, Post | Edit)
    if isinstance(command, Post):
        (queued,) = decode(encode(Delivery("p", 1, [_shorter(command)]))).commands
        assert isinstance(queued, Post)
        command = queued
    return Confirmed(command, confirmed.generation, entry)


def _shorter(post: Post) -> Any:
    """Return the command without the field that the earlier version did not have."""
    fields = [getattr(post, name) for name in post.__struct_fields__]
    return [post.__struct_config__.tag, *fields[:-1]]


async def check(by: Words, count: int) -> None:
    view, chat = by.view, by.chat
    for limit in (10, 100):
        page = json.loads((await view.newest(CALLER, chat, limit)).body)
        assert [message["senderId"] for message in page] == ["ref"] * min(limit, count)
    for shown in (
        await view.messages(chat, limit=count, before=count + 1),
        await view.messages(chat, limit=count, after=0),
        await view.numbered(chat, list(range(1, count + 1))),
    ):
        assert [message.sender_ref for message in shown.messages] == ["ref"] * count


@pytest.fixture(params=["waiting", "stored", "stored before it was shown"])
def when(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_messages_of_an_earlier_version_have_their_senders_id(words: Words, when: str) -> None:  # noqa: F811
    posts = [as_before(await words.post(f"message {number}")) for number in range(1, 13)]
    assert not any(isinstance(each.command, Post) and each.command.sender_ref for each in posts)
    if when != "stored before it was shown":
        await words.show(*posts)
    if when != "waiting":
        await words.applied(*posts)
    await check(words, 12)
    await words.show(await words.post("of this version"))
    await check(words, 13)


async def test_an_edit_of_such_a_message_has_the_id_too(words: Words) -> None:  # noqa: F811
    await words.show(as_before(await words.post()))
    await words.show(await words.edit(1, "edited here"))
    await check(words, 1)
    await words.show(as_before(await words.edit(1, "edited there")))
    await check(words, 1)


async def test_a_listener_reads_such_a_message_again(
    words: Words,  # noqa: F811
    servers: Servers,  # noqa: F811
    redis: Redis,
) -> None:
    """The event lacks the public id, but a read has it."""
    feed = RedisFeed([redis.url], servers)
    await feed._clients[0].connected(10)
    with feed.feed.listen(words.chat) as listener:
        await eventually_async(lambda: listener.missed)  # the subscription has taken effect
        assert await listener.take(5) == ([], [])
        listener.missed = False
        await words.show(as_before(await words.post()))
        assert await listener.take(5) == ([], [])
        assert listener.missed
        listener.missed = False
        await words.show(await words.post())
        taken = await listener.take(5)
        assert [json.loads(event.item or b"")["senderId"] for event in taken.messages] == ["ref"]
        assert not listener.missed
    await feed.close()
