"""What the cluster's store must do beyond the port: deliveries that come again, late numbers, epochs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from hubbub.chat.commands import (
    AddApplication,
    AddChat,
    AddUser,
    DeleteMessage,
    Delivery,
    EditMessage,
    Failed,
    OpenChat,
    Opened,
    PostMessage,
    PutMember,
    RemoveMember,
    RenameApplication,
    RenameChat,
)
from hubbub.chat.errors import Superseded
from hubbub.chat.model import ChatKey, Role, User
from hubbub.loadtest.servers import MariaDb
from hubbub.stores.mysql import MySqlStore
from tests.servers import new_database

CHAT = ChatKey("token", 1)


@pytest.fixture
def store(mariadb: MariaDb) -> Iterator[MySqlStore]:
    store = MySqlStore(new_database(mariadb))
    store.apply([AddUser("ref", "a@x", "A", "hash", 1), AddApplication("token", "T", 1, 2), AddChat("token", None, 3)])
    yield store
    store.close()


def post(number: int, *, epoch: int = 1, body: str = "x") -> PostMessage:
    return PostMessage(CHAT, number, 1, "A", body, 1000 + number, epoch=epoch)


async def test_a_delivery_counts_once_however_often_it_comes(store: MySqlStore) -> None:
    first, second = Delivery("api", 1, [post(1), post(2)]), Delivery("api", 2, [DeleteMessage(CHAT, 1, 1, False)])
    assert store.apply_deliveries(0, [first, second]).outcomes == [[1, 2], [None]]
    assert store.apply_deliveries(0, [first, second, Delivery("api", 3, [post(3)])]).outcomes == [None, None, [3]]
    assert [message.number for message in await store.messages(CHAT, limit=9)] == [3, 2]


async def test_two_writers_that_both_hold_a_shard_apply_it_once(store: MySqlStore) -> None:
    deliveries = [Delivery(f"api{n % 3}", n // 3 + 1, [post(n + 1)]) for n in range(60)]
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(
            lambda _: [store.apply_deliveries(0, deliveries[at : at + 7]) for at in range(0, 60, 7)], range(4)
        ):
            pass
    chat = await store.chat(CHAT)
    assert chat is not None
    assert (chat.messages_count, chat.last_number) == (60, 60)


async def test_a_number_that_was_overtaken_is_counted_too(store: MySqlStore) -> None:
    store.apply([post(1), post(3)])
    store.count_messages()
    store.apply([post(2)])
    for _ in range(2):
        chat = await store.chat(CHAT)
        assert chat is not None
        assert chat.messages_count == 3
        store.count_messages()


async def test_opening_a_chat_tells_what_was_before_it_and_ends_older_epochs(store: MySqlStore) -> None:
    (_, opened, late) = store.apply([post(1, body="before"), OpenChat(CHAT, "candidate"), post(2)])
    assert isinstance(opened, Opened)
    assert (opened.epoch, opened.last_number, [m.body for m in opened.newest]) == (2, 1, ["before"])
    assert late == 2, "an epoch ends only when the next is known to be in use"
    store.set_live(CHAT, 2)
    assert isinstance(store.apply([post(3, epoch=1)])[0], Superseded)
    assert store.apply([post(3, epoch=2)]) == [3]


async def test_a_reserved_number_is_not_given_again(store: MySqlStore) -> None:
    store.reserve(post(7))
    (opened,) = store.apply([OpenChat(CHAT, "candidate")])
    assert isinstance(opened, Opened)
    assert opened.last_number == 7


async def test_one_bad_command_does_not_sink_its_delivery(store: MySqlStore) -> None:
    delivery = Delivery("api", 1, [post(1), post(1, body="the same number"), post(2)])
    with pytest.raises(Exception, match="Duplicate"):
        store.apply_deliveries(0, [delivery])
    ((first, bad, last),) = (
        outcomes or [] for outcomes in store.apply_deliveries(0, [delivery], one_by_one=True).outcomes
    )
    assert (first, last) == (1, 2)
    assert isinstance(bad, Failed)
    assert [message.body for message in await store.messages(CHAT, limit=9)] == ["x", "x"]


def test_what_is_kept_first_stays(store: MySqlStore) -> None:
    assert [store.kept("secret", value) for value in ("first", "second")] == ["first", "first"]


def test_processes_count_each_other(store: MySqlStore) -> None:
    assert [store.alive("writer", name) for name in ("one", "two", "one")] == [1, 2, 2]
    assert store.alive("api") == 0
    store.gone("writer", "two")
    assert store.alive("writer") == 1


async def test_no_statement_on_an_applications_tables_crosses_applications(mariadb: MariaDb) -> None:
    """So that the tables can be split by token: read in the server's own log of what it was asked."""
    url = new_database(mariadb)
    store = MySqlStore(url)
    mariadb.root("SET GLOBAL log_output = 'TABLE'; TRUNCATE mysql.general_log; SET GLOBAL general_log = ON")
    (user,) = store.apply([AddUser("ref", "a@x", "A", "hash", 1)])
    assert isinstance(user, User)
    for token in ("one", "two"):
        store.apply([AddApplication(token, "T", user.id, 2), AddChat(token, None, 3), RenameApplication(token, "X")])
        store.apply([PutMember(token, 7, Role.ADMIN), RemoveMember(token, 7), RenameChat(ChatKey(token, 1), "X")])
    posts = [
        PostMessage(ChatKey(token, 1), number, user.id, "A", "x", 1, f"key {number}", b"h")
        for token in ("one", "two")
        for number in (1, 2)
    ]
    chat = ChatKey("one", 1)
    store.apply_deliveries(0, [Delivery("api", 1, posts)])
    store.apply([EditMessage(chat, 1, user.id, "y", 2), DeleteMessage(chat, 2, user.id, False), OpenChat(chat, "c")])
    store.set_live(chat, 2)
    store.count_messages()
    await store.messages(chat, limit=10)
    await store.messages(chat, limit=10, before=5)
    await store.messages(chat, limit=10, after=0)
    await store.message(chat, 1)
    await store.chat(chat)
    await store.chats("one", offset=0, limit=10)
    await store.posted(chat, user.id, "key 1")
    await store.role("one", user.id)
    await store.members("one")
    await store.application("one")
    store.close()
    asked = mariadb.root(
        "SET GLOBAL general_log = OFF; SELECT REPLACE(argument, '\\n', ' ') FROM mysql.general_log"
        " WHERE command_type = 'Query'"
    )
    split = re.compile(r"\b(?:FROM|JOIN|UPDATE|INTO) (messages|chats|idempotency_keys|members|applications)\b")
    statements = [" ".join(line.split()) for line in asked.splitlines() if split.search(line)]
    assert {table for line in statements for table in split.findall(line)} == {
        "messages",
        "chats",
        "idempotency_keys",
        "members",
        "applications",
    }
    keyed = re.compile(r"INSERT INTO \w+ \(token,|token = '|\(token, number\) IN|\(token, chat, sender_id, `key`\) IN")
    crossing = [line for line in statements if not keyed.search(line)]
    assert crossing == []
