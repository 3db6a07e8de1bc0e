"""The embedded store beyond its port."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hubbub.chat.commands import (
    AddApplication,
    AddChat,
    AddUser,
    Command,
    DeleteApplication,
    DeleteChat,
    DeleteMessage,
    EditMessage,
    PostMessage,
)
from hubbub.chat.errors import NotFound
from hubbub.chat.model import ChatKey
from hubbub.embedded.index_chats import Part
from hubbub.embedded.store import SqliteStore

CHAT = ChatKey("token", 1)


def post(number: int, body: str = "x") -> PostMessage:
    return PostMessage(CHAT, number, 1, "ref", "A", body, 1000 + number)


async def test_a_page_past_the_last_message_reads_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(tmp_path / "hubbub.db")
    store.apply([AddUser("ref", "a@x", "A", "hash", 1), AddApplication("token", "T", 1, 2), AddChat("token", None, 3)])
    store.apply([post(number) for number in range(1, 1502)])
    store.apply([DeleteMessage(CHAT, 7, 1, any_sender=False)])
    assert [message.number for message in await store.messages(CHAT, limit=9, offset=1499)] == [1]

    def walked(*_: object) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr(store, "_paged", walked)
    for offset in (1500, 999_990):
        assert await store.messages(CHAT, limit=9, offset=offset) == []
    store.close()


async def test_a_batch_is_all_or_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "hubbub.db")
    store.apply([AddUser("ref", "a@x", "A", "hash", 1), AddApplication("token", "T", 1, 2), AddChat("token", None, 3)])
    store.apply([post(1)])
    with pytest.raises(Exception, match="UNIQUE"):
        store.apply([post(2), post(1, "another with a number that is taken")])
    assert [message.number for message in await store.messages(CHAT, limit=9)] == [1]
    store.close()


def test_posts_edits_and_deletes_are_changes_for_the_index(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "hubbub.db")
    store.apply([AddUser("ref", "a@x", "A", "hash", 1), AddApplication("token", "T", 1, 2), AddChat("token", None, 3)])
    store.apply([post(1), post(2), post(3)])
    at, _ = store.following.noted(0)
    store.apply([EditMessage(CHAT, 1, 1, "y", 2000), DeleteMessage(CHAT, 2, 1, any_sender=False), post(4)])
    changes, _ = store.following.changes(store.following.noted(at)[1])
    changed = store.following.documents((each.chat_id, each.number) for each in changes)
    assert sorted(((each.number, each.body, each.edited) for each in changed), key=lambda each: each[0]) == [
        (1, "y", True),
        (2, None, False),
        (4, "x", False),
    ]
    assert {each.chat for each in changed} == {CHAT}
    all_, _ = store.following.of_chats([Part(1, CHAT)], 1000)
    assert [(each.number, each.edited) for each in all_] == [(1, True), (3, False), (4, False)]
    store.close()


async def test_a_post_after_a_deletion_is_refused_also_in_the_same_batch(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "hubbub.db")
    store.apply([AddUser("ref", "a@x", "A", "hash", 1), AddApplication("token", "T", 1, 2), AddChat("token", None, 3)])
    other = PostMessage(ChatKey("other", 1), 1, 1, "ref", "A", "x", 1)
    store.apply([post(1), AddApplication("other", "O", 1, 2), AddChat("other", None, 3), other])
    assert len(await store.messages(CHAT, limit=9)) == 1
    deletions: list[Command] = [
        DeleteChat(CHAT),
        post(2),
        DeleteApplication("other"),
        msgspec.structs.replace(other, number=2),
    ]
    assert [type(outcome) for outcome in store.apply(deletions)] == [type(None), NotFound] * 2
    assert [type(outcome) for outcome in store.apply([post(3)])] == [NotFound]
    assert await store.messages(CHAT, limit=9) == []
    store.close()


def test_the_chat_that_has_waited_longest_is_counted_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.embedded.store._CHATS_COUNTED_AT_ONCE", 1)
    store = SqliteStore(tmp_path / "hubbub.db")
    chats = [AddChat("token", None, 3)] * 3
    store.apply([AddUser("ref", "a@x", "A", "hash", 1), AddApplication("token", "T", 1, 2), *chats])
    counted = []
    for round in range(1, 4):
        store.apply([PostMessage(ChatKey("token", chat), round, 1, "ref", "A", "x", 1000) for chat in (3, 1, 2)])
        store.count_messages()
        counted.append([row[0] for row in store._rows("SELECT counted FROM chats ORDER BY number", ())])
    assert counted == [[0, 0, 1], [2, 0, 1], [2, 3, 1]]
    store.close()
