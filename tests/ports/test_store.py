"""What every store must do. A new adapter is one more fixture parameter."""

from __future__ import annotations

from itertools import product

import pytest

from hubbub.chat.commands import (
    AddApplication,
    AddChat,
    AddUser,
    DeleteMessage,
    EditMessage,
    EndSession,
    EndSessions,
    PostMessage,
    PutMember,
)
from hubbub.chat.errors import Invalid, KeyReused, NotFound
from hubbub.chat.model import ChatKey, Role, User
from hubbub.chat.ports import Store

CHAT = ChatKey("token", 1)


def post(number: int, body: str = "x", key: str | None = None, body_hash: bytes | None = None) -> PostMessage:
    return PostMessage(CHAT, number, 1, "A", body, 1000 + number, key, body_hash)


async def numbers(store: Store, **where: int) -> list[int]:
    return [message.number for message in await store.messages(CHAT, limit=1000, **where)]


async def test_a_session_ends_alone_or_with_all_of_its_users(store: Store) -> None:
    ann = await store.user_by_ref("ref")
    assert ann is not None
    assert await store.session_lives(ann.id, ann.era, "one")
    assert not await store.session_lives(99, ann.era, "one")
    assert store.apply([EndSession("one", 5), EndSession("one", 5)]) == [None, None]
    assert not await store.session_lives(ann.id, ann.era, "one")
    assert await store.session_lives(ann.id, ann.era, "two")
    assert store.apply([EndSessions(ann.id, "later")]) == [None]
    assert not await store.session_lives(ann.id, ann.era, "two")
    assert not await store.session_lives(ann.id, "later ", "two")
    assert await store.session_lives(ann.id, "later", "two")
    again, by_email = await store.user_by_ref("ref"), await store.user_by_email("a@x")
    assert again is not None
    assert by_email is not None
    assert (again.era, by_email[0].era, by_email[1]) == ("later", "later", "hash")
    bob = await store.user_by_ref("ref2")
    assert bob is not None
    assert await store.session_lives(bob.id, "", "two")


async def test_an_ended_session_is_known_for_long_after_its_time(store: Store) -> None:
    """So that a clock which is ahead for a while brings none back."""
    day = 24 * 3600 * 1000
    store.apply([EndSession("one", 7 * day)])
    store.forget_sessions((7 + 89) * day)
    assert not await store.session_lives(1, "", "one")
    store.forget_sessions((7 + 91) * day)
    assert await store.session_lives(1, "", "one")


async def test_a_batch_is_there_in_order(store: Store) -> None:
    assert store.apply([post(number) for number in range(1, 251)]) == list(range(1, 251))
    assert await numbers(store) == list(range(250, 0, -1))
    assert await numbers(store, before=3) == [2, 1]
    assert await numbers(store, after=248) == [250, 249]
    assert await numbers(store, offset=249) == [1]
    chat = await store.chat(CHAT)
    assert chat is not None
    assert (chat.messages_count, chat.last_number) == (250, 250)


async def test_commands_of_one_batch_see_each_other(store: Store) -> None:
    outcomes = store.apply([post(1), EditMessage(CHAT, 1, 1, "edited", 9), post(2), DeleteMessage(CHAT, 2, 1, False)])
    assert outcomes == [1, None, 2, None]
    assert [(m.body, m.edited_at) for m in await store.messages(CHAT, limit=9)] == [("edited", 9)]


async def test_only_the_sender_edits(store: Store) -> None:
    store.apply([post(1)])
    (edited, deleted) = store.apply([EditMessage(CHAT, 1, 2, "stolen", 9), DeleteMessage(CHAT, 1, 2, False)])
    assert isinstance(edited, NotFound)
    assert isinstance(deleted, NotFound)
    assert await numbers(store) == [1]


@pytest.mark.parametrize("counted_before", [False, True])
async def test_counts_follow_deletes_whenever_they_are_folded(store: Store, counted_before: bool) -> None:
    store.apply([post(number) for number in range(1, 11)])
    if counted_before:
        store.count_messages()
    store.apply([DeleteMessage(CHAT, 10, 2, True), DeleteMessage(CHAT, 3, 2, True)])
    for _ in range(2):
        chat = await store.chat(CHAT)
        assert chat is not None
        assert (chat.messages_count, chat.last_number) == (8, 10)
        store.count_messages()


async def test_keys_are_remembered_for_good(store: Store) -> None:
    assert store.apply([post(1, key="k", body_hash=b"h"), post(2, key="k", body_hash=b"h")]) == [1, 1]
    store.apply([DeleteMessage(CHAT, 1, 1, False)])
    assert await store.posted(CHAT, 1, "k") == (1, b"h")
    assert await store.posted(CHAT, 2, "k") is None
    assert isinstance(store.apply([post(3, key="k", body_hash=b"other")])[0], KeyReused)


async def test_directory(store: Store) -> None:
    assert isinstance(store.apply([AddUser("ref3", "a@x", "Again", "hash", 1)])[0], Invalid)
    assert await store.role("token", 1) is Role.OWNER
    assert await store.role("token", 2) is None
    store.apply([PutMember("token", 2, Role.ADMIN), AddChat("token", "Two", 5)])
    assert await store.role("token", 2) is Role.ADMIN
    assert [chat.number for chat in await store.chats("token", offset=0, limit=9)] == [2, 1]
    application = await store.application("token")
    assert application is not None
    assert application.chats_count == 2


async def test_a_deep_page_is_the_same_with_and_without_missing_numbers(store: Store) -> None:
    for start in range(1, 3001, 500):
        store.apply([post(number) for number in range(start, start + 500)])
    for offset in (1001, 2500, 2995, 3000, 5000):
        assert await numbers(store, offset=offset) == list(range(3000 - offset, 0, -1))[:1000]
    store.apply([DeleteMessage(CHAT, 2990, 1, any_sender=False)])
    for offset in (1001, 2500, 2994, 3000):
        assert await numbers(store, offset=offset) == list(range(2999 - offset, 0, -1))[:1000]


async def test_an_offset_counts_from_where_the_page_begins(store: Store) -> None:
    store.apply([post(number) for number in range(1, 41)])
    there = list(range(40, 0, -1))
    for gone in ([], [1, 19, 20, 40]):
        store.apply([DeleteMessage(CHAT, number, 1, any_sender=False) for number in gone])
        there = [number for number in there if number not in gone]
        for before, offset in product((None, 1, 2, 20, 41, 1000), (0, 1, 18, 19, 39, 100)):
            found = await store.messages(CHAT, limit=5, before=before, offset=offset)
            below = [number for number in there if before is None or number < before]
            assert [message.number for message in found] == below[offset : offset + 5], (gone, before, offset)


async def test_members_come_page_by_page(store: Store) -> None:
    users = [
        user.id
        for user in store.apply([AddUser(f"m{n}", f"m{n}@x", f"M{n}", "hash", 1) for n in range(1200)])
        if isinstance(user, User)
    ]
    store.apply([PutMember("token", user, Role.MEMBER) for user in users])
    store.apply([AddApplication("other", "O", users[0], 2)])
    emails: list[str] = []
    while page := await store.members("token", offset=len(emails), limit=100):
        emails += [member.email for member in page]
    assert emails == ["a@x", *(f"m{n}@x" for n in range(1200))]
    assert [member.role for member in await store.members("token", offset=0, limit=2)] == [Role.OWNER, Role.MEMBER]
    assert [member.email for member in await store.members("other", offset=0, limit=9)] == ["m0@x"]
