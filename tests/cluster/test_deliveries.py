"""Rules 1, 5, 6 and 9 in the database: repeated and early deliveries, orders, openings, and commands at fault."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from hubbub.chat.commands import (
    AddApplication,
    AddChat,
    AddUser,
    DeleteApplication,
    DeleteChat,
    EndErasure,
    HandOver,
    PutMember,
    RemoveMember,
    RenameApplication,
    RenameChat,
)
from hubbub.chat.errors import NotFound, Unavailable
from hubbub.chat.model import ChatKey, Role, User
from hubbub.cluster.database import Broken
from hubbub.cluster.dead_letters import DeadLetters
from hubbub.cluster.processes import OtherServers, Processes
from hubbub.cluster.protocol import (
    Delete,
    Delivery,
    Edit,
    Failed,
    Gone,
    OpenChat,
    Opened,
    Post,
    Queued,
    Repeated,
    SequenceGap,
    Straggler,
    order_of,
    retry_name,
)
from hubbub.cluster.sequence_gaps import SequenceGaps, ShardStopped
from hubbub.loadtest.servers import MariaDb
from tests.ports.stores import ClusterStore
from tests.servers import new_database

CHAT = ChatKey("token", 1)


@pytest.fixture
def store(mariadb: MariaDb) -> Iterator[ClusterStore]:
    store = ClusterStore(new_database(mariadb))
    store.apply([AddUser("ref", "a@x", "A", "hash", 1), AddApplication("token", "T", 1, 2), AddChat("token", None, 3)])
    Processes(store.database).make_generation(0, 1, "a data set")
    yield store
    store.close()


def post(number: int, *, epoch: int = 1, body: str = "x", key: str | None = None) -> Post:
    return Post(CHAT, number, 1, "A", body, 1000 + number, key, b"h" if key else None, epoch)


def applied(store: ClusterStore, *commands: Queued) -> list[Any]:
    """Apply commands in a delivery of their own and return their outcomes."""
    (outcomes,) = store.deliveries.apply(0, 4, [Delivery(secrets.token_hex(8), 1, list(commands), 0)]).outcomes
    assert outcomes is not None
    return outcomes


async def bodies(store: ClusterStore) -> dict[int, str]:
    return {message.number: message.body for message in await store.messages(CHAT, limit=1000)}


async def test_a_delivery_counts_once_however_often_it_comes(store: ClusterStore) -> None:
    first, second = Delivery("api", 1, [post(1), post(2)]), Delivery("api", 2, [Delete(CHAT, 1, 1, False)])
    assert store.deliveries.apply(0, 4, [first, second]).outcomes == [[1, 2], [None]]
    assert store.deliveries.apply(0, 4, [first, second, Delivery("api", 3, [post(3)])]).outcomes == [None, None, [3]]
    assert sorted(await bodies(store)) == [2, 3]


async def test_two_writers_that_both_hold_a_shard_apply_it_once(store: ClusterStore) -> None:
    deliveries = [Delivery(f"api{n % 3}", n // 3 + 1, [post(n + 1)]) for n in range(60)]

    def write(_: int) -> None:
        for at in range(0, 60, 7):
            while True:
                try:
                    store.deliveries.apply(0, 4, deliveries[at : at + 7])
                    break
                except Unavailable:  # a deadlock; a writer tries again after any such error
                    continue

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    chat = await store.chat(CHAT)
    assert chat is not None
    assert (chat.messages_count, chat.last_number) == (60, 60)


async def test_a_delivery_before_an_earlier_one_is_neither_applied_nor_counted(store: ClusterStore) -> None:
    store.deliveries.apply(0, 4, [Delivery("api", 1, [post(1)], 0)])
    with pytest.raises(SequenceGap):
        store.deliveries.apply(0, 4, [Delivery("api", 3, [post(3)], 2)])
    assert sorted(await bodies(store)) == [1]
    store.deliveries.apply(0, 4, [Delivery("api", 2, [post(2)], 1), Delivery("api", 3, [post(3)], 2)])
    assert sorted(await bodies(store)) == [1, 2, 3]


def gap(store: ClusterStore, found: Delivery) -> SequenceGap:
    with pytest.raises(SequenceGap) as raised:
        store.deliveries.apply(0, 4, [found])
    return raised.value


async def test_a_shard_that_lacks_a_confirmed_delivery_stops_until_it_is_accepted(store: ClusterStore) -> None:
    behind = Delivery("api", 2, [post(2)], 1)
    gaps = SequenceGaps(store.database)
    gaps.decide(gap(store, behind), [behind])
    with pytest.raises(ShardStopped):
        store.deliveries.apply(0, 4, [behind])
    assert [(each.shard, each.expected, each.found) for each in gaps.stopped()] == [(0, 1, 2)]
    gaps.accept()
    store.deliveries.apply(0, 4, [behind])
    assert sorted(await bodies(store)) == [2]
    assert gaps.stopped() == []


async def test_a_delivery_behind_an_unconfirmed_one_is_set_aside(store: ClusterStore) -> None:
    behind = Delivery("api", 2, [post(2)], 0)
    SequenceGaps(store.database).decide(gap(store, behind), [behind])
    store.deliveries.apply(0, 4, [behind, Delivery("other", 1, [post(3)], 0)])
    assert sorted(await bodies(store)) == [3]
    (aside,) = DeadLetters(store.database).list()
    assert (aside.command, aside.acknowledged) == (post(2), False)
    late = Delivery("api", 4, [post(4)], 3)
    with pytest.raises(ShardStopped):  # a late mark says that it was confirmed after all
        store.deliveries.apply(0, 4, [late])
    gaps = SequenceGaps(store.database)
    assert [(each.shard, each.expected) for each in gaps.stopped()] == [(0, 1)]
    gaps.accept()
    store.deliveries.apply(0, 4, [late])
    assert sorted(await bodies(store)) == [3, 4]


async def test_a_change_of_a_message_that_is_set_aside_is_set_aside_too(store: ClusterStore) -> None:
    """Otherwise an operator who sends the message again would bring back a deleted one."""
    edit, delete = Edit(CHAT, 1, 1, "changed", 9, order=order_of(1, 1)), Delete(CHAT, 2, 1, False, order=order_of(1, 2))
    applied(store, post(7, key="k"))
    other = msgspec.structs.replace(post(2, key="k"), body_hash=b"another")
    outcomes = applied(store, msgspec.structs.replace(post(1), sender_name="A" * 300), edit, other, delete)
    assert [type(outcome) for outcome in outcomes] == [Failed] * 4
    assert [each.command for each in DeadLetters(store.database).list()][1:] == [edit, other, delete]
    assert await store.set_aside(CHAT, [1, 2, 3, 7]) == {1, 2}
    (outcome,) = applied(store, Delete(CHAT, 5, 1, False))
    assert isinstance(outcome, NotFound)


async def test_a_publisher_without_marks_skips_an_unconfirmed_delivery(store: ClusterStore) -> None:
    behind = Delivery("an earlier version", 2, [post(2)])
    SequenceGaps(store.database).decide(gap(store, behind), [behind])
    store.deliveries.apply(0, 4, [behind])
    assert sorted(await bodies(store)) == [2]


async def test_a_message_stored_after_a_higher_number_is_counted_too(store: ClusterStore) -> None:
    applied(store, post(1), post(3))
    store.count_messages()
    applied(store, post(2))
    for _ in range(2):
        chat = await store.chat(CHAT)
        assert chat is not None
        assert chat.messages_count == 3
        store.count_messages()


async def test_changes_take_effect_in_their_order_whenever_they_come(store: ClusterStore) -> None:
    def edit(place: int, body: str) -> Edit:
        return Edit(CHAT, 1, 1, body, 9, order=order_of(1, place))

    assert applied(store, post(1), edit(2, "second"), edit(1, "first")) == [1, None, None]
    assert await bodies(store) == {1: "second"}
    assert applied(store, edit(3, "third"), edit(3, "third")) == [None, None]
    assert await bodies(store) == {1: "third"}
    assert applied(store, Delete(CHAT, 1, 1, False, order=order_of(1, 2))) == [None], "a delete is final"
    assert [type(outcome) for outcome in applied(store, edit(4, "back"))] == [NotFound]
    assert await bodies(store) == {}


def opened(store: ClusterStore) -> Opened:
    (outcome,) = applied(store, OpenChat(CHAT, "candidate", 1))
    assert isinstance(outcome, Opened)
    return outcome


def live(store: ClusterStore, epoch: int, generation: int = 1) -> bool:
    return store.deliveries.set_live(OpenChat(CHAT, "candidate", generation), epoch, 0)


async def test_opening_a_chat_returns_what_was_before_it_and_ends_older_epochs(store: ClusterStore) -> None:
    applied(store, post(1, body="before"))
    opening = opened(store)
    assert (opening.epoch, opening.last_number, [m.body for m, _ in opening.newest]) == (2, 1, ["before"])
    assert live(store, 2)
    (late,) = applied(store, post(3, epoch=1))
    assert isinstance(late, Straggler)
    (change,) = applied(store, Edit(CHAT, 1, 1, "late", 9, order=order_of(1, 1)))
    assert isinstance(change, Straggler)
    assert [each.acknowledged for each in DeadLetters(store.database).list()] == [False, False]
    assert applied(store, post(3, epoch=2)) == [3]
    assert await bodies(store) == {1: "before", 3: "x"}


async def test_a_command_applied_in_between_ends_an_opening(store: ClusterStore) -> None:
    """Otherwise the new epoch would repeat a number of the old one."""
    opening = opened(store)
    assert applied(store, post(opening.last_number + 1, epoch=1)) == [1]
    assert not live(store, opening.epoch)
    later = opened(store)
    assert later.last_number == 1
    assert live(store, later.epoch)
    assert not live(store, later.epoch), "once"


async def test_an_opening_in_a_redis_no_longer_in_use_is_over(store: ClusterStore) -> None:
    opening = opened(store)
    Processes(store.database).make_generation(0, 2, "another data set")
    assert not live(store, opening.epoch, generation=1)
    assert live(store, opened(store).epoch, generation=2)


async def test_a_command_at_fault_is_set_aside_with_its_number_and_nothing_else_is(store: ClusterStore) -> None:
    good = [post(number) for number in range(1, 40)]
    bad = post(7, body="the same number")
    outcomes = applied(store, *good[:20], bad, *good[20:])
    assert [outcome for outcome in outcomes if not isinstance(outcome, Failed)] == [each.number for each in good]
    assert "Duplicate entry" in outcomes[20].reason
    assert await bodies(store) == dict.fromkeys(range(1, 40), "x")
    (aside,) = DeadLetters(store.database).list()
    assert (aside.command, aside.acknowledged) == (bad, True)
    applied(store, Post(ChatKey("token", 9), 1, 1, "A", "no such chat", 1))
    assert len(DeadLetters(store.database).list()) == 2


async def test_changes_of_a_message_that_is_set_aside_follow_it_there(store: ClusterStore) -> None:
    applied(store, post(1), post(1, body="at fault"), Delete(CHAT, 1, 1, False, order=order_of(1, 1)))
    kept = [each.command for each in DeadLetters(store.database).list()]
    assert [type(command) for command in kept] == [Post], "the delete was of the message that is stored"
    edit = Edit(CHAT, 1, 1, "edited", 9, order=order_of(1, 2))
    (outcome,) = applied(store, edit)
    assert isinstance(outcome, Failed)
    assert [each.command for each in DeadLetters(store.database).list()] == [*kept, edit], (
        "and is sent again in this order"
    )
    assert isinstance(applied(store, Edit(CHAT, 2, 1, "of nothing", 9, order=order_of(1, 3)))[0], NotFound)


async def test_a_dead_letter_goes_when_its_command_is_applied_and_not_before(store: ClusterStore) -> None:
    applied(store, post(1), post(1, body="at fault"))
    (row,) = DeadLetters(store.database).list()
    applied(store, Delete(CHAT, 1, 1, False, order=order_of(1, 1)))
    again = Delivery(retry_name(row.number, row.at), 1, [post(1, epoch=0, body="at fault")], 0)
    for _ in range(2):
        store.deliveries.apply(0, 4, [again])
        assert await bodies(store) == {1: "at fault"}
        assert DeadLetters(store.database).list() == []


async def test_a_number_that_was_set_aside_is_not_reused(store: ClusterStore) -> None:
    applied(store, post(1), post(9))
    applied(store, post(9, body="twice"), Delete(CHAT, 9, 1, False))
    assert opened(store).last_number == 9


async def test_a_key_counts_once_and_outlives_its_message(store: ClusterStore) -> None:
    assert applied(store, post(1, key="k"), post(2, key="k")) == [1, Repeated(1)]
    applied(store, Delete(CHAT, 1, 1, False))
    assert applied(store, post(1, key="k")) == [Repeated(1)]
    assert await bodies(store) == {}


async def test_a_second_of_the_longest_messages_is_stored(store: ClusterStore, mariadb: MariaDb) -> None:
    """1,500 bodies of 10,000 characters of four bytes are 60 MB, more than one statement may have."""
    long = "🎉" * 10_000
    for start in range(1, 1501, 500):
        assert applied(store, *(post(number, body=long) for number in range(start, start + 500)))[0] == start
    chat = await store.chat(CHAT)
    assert chat is not None
    assert chat.messages_count == 1500


async def test_a_database_without_its_tables_sets_nothing_aside(store: ClusterStore) -> None:
    store.database.run(lambda cursor: cursor.execute("RENAME TABLE messages TO elsewhere"))
    with pytest.raises(Broken):
        applied(store, post(1))
    store.database.run(lambda cursor: cursor.execute("RENAME TABLE elsewhere TO messages"))
    assert applied(store, post(1)) == [1]
    assert DeadLetters(store.database).list() == []


def test_the_first_value_that_is_kept_stays(store: ClusterStore) -> None:
    processes = Processes(store.database)
    assert [processes.kept("secret", value) for value in ("first", "second")] == ["first", "first"]


def test_processes_count_each_other(store: ClusterStore) -> None:
    processes = Processes(store.database)
    assert [processes.heartbeat("writer", name) for name in ("one", "two", "one")] == [1, 2, 2]
    assert processes.heartbeat("api") == 0
    processes.gone("writer", "two")
    assert processes.heartbeat("writer") == 1


def test_a_new_generation_is_known_once_every_process_uses_it(store: ClusterStore) -> None:
    processes = Processes(store.database)
    assert processes.beat("one", {0: 1})[0].known
    assert processes.beat("two", {})[0].known is not False, "one holds to it"
    assert not processes.beat("one", {0: 1})[0].known, "two does not yet"
    processes.make_generation(0, 2, "another")
    processes.make_generation(0, 2, "a third")
    newest = processes.beat("two", {0: 1})[0]
    assert (newest.generation, newest.identity, newest.known) == (2, "another", False)
    processes.beat("one", {0: 2})
    assert processes.beat("two", {0: 2})[0].known
    assert processes.beat("one", {0: 2})[0].known


def test_the_number_of_redis_servers_changes_only_when_no_process_runs(store: ClusterStore) -> None:
    processes = Processes(store.database)
    processes.redis_servers(1)
    processes.heartbeat("api", "one")
    with pytest.raises(OtherServers):
        processes.redis_servers(2)
    processes.gone("api", "one")
    processes.redis_servers(2)
    assert processes.generations() == {0: (2, "")}, "what the first held counts no more"


async def test_no_text_of_an_erased_user_stays_set_aside(store: ClusterStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.cluster.dead_letters._ROWS", 2)
    theirs, others = Post(CHAT, 1, 2, "B", "x", 1), Post(CHAT, 1, 1, "A", "x", 1)
    for command in (post(1), theirs, others, Edit(CHAT, 1, 2, "y", 2, order=1)):
        applied(store, command)
    assert len(DeadLetters(store.database).list()) == 3
    assert store.apply([EndErasure((2, 99))]) == [None]
    assert [each.command for each in DeadLetters(store.database).list()] == [others]


async def test_commands_for_a_deleted_chat_are_dropped_and_not_set_aside(store: ClusterStore) -> None:
    applied(store, post(1))
    marker = OpenChat(CHAT, "candidate", 1)
    (opened,) = applied(store, marker)
    assert isinstance(opened, Opened)
    other = ChatKey("token", 2)
    assert store.apply([AddChat("token", None, 3), DeleteChat(CHAT)]) == [2, None]
    assert not store.deliveries.set_live(marker, opened.epoch, 0)
    late: list[Queued] = [
        post(2),
        post(3, epoch=0),
        Edit(CHAT, 1, 1, "y", 2, order=order_of(1, 1)),
        Delete(CHAT, 1, 1, False),
    ]
    there = Post(other, 1, 1, "A", "x", 1)
    assert applied(store, *late, there) == [*[Gone()] * 4, 1]
    assert isinstance(applied(store, marker)[0], NotFound)
    behind = Delivery("api", 2, [post(4)], 0)
    SequenceGaps(store.database).decide(gap(store, behind), [behind])
    assert store.deliveries.apply(0, 4, [behind]).outcomes == [None]
    assert DeadLetters(store.database).list() == []
    store.erase()
    assert await bodies(store) == {}
    assert [message.number for message in await store.messages(other, limit=9)] == [1]


async def test_no_statement_on_an_applications_tables_crosses_applications(mariadb: MariaDb) -> None:
    """The tables can then be split by token. The server's log shows the statements that it got."""
    url = new_database(mariadb)
    store = ClusterStore(url)
    mariadb.root("SET GLOBAL log_output = 'TABLE'; TRUNCATE mysql.general_log; SET GLOBAL general_log = ON")
    (user,) = store.apply([AddUser("ref", "a@x", "A", "hash", 1)])
    assert isinstance(user, User)
    for token in ("one", "two"):
        store.apply([AddApplication(token, "T", user.id, 2), AddChat(token, None, 3), RenameApplication(token, "X")])
        store.apply([PutMember(token, 7, Role.ADMIN), RemoveMember(token, 7), RenameChat(ChatKey(token, 1), "X")])
    posts = [
        Post(ChatKey(token, 1), number, user.id, "A", "x", 1, f"key {number}", b"h")
        for token in ("one", "two")
        for number in (1, 2)
    ]
    chat = ChatKey("one", 1)
    applied(store, *posts)
    applied(store, Edit(chat, 1, user.id, "y", 2, order=1), Delete(chat, 2, user.id, False))
    applied(store, OpenChat(chat, "c", 1))
    applied(store, posts[0], posts[0], Post(chat, 1, user.id, "A", "a number that is taken", 1))
    store.count_messages()
    await store.messages(chat, limit=10)
    await store.messages(chat, limit=10, before=5)
    await store.messages(chat, limit=10, after=0)
    await store.message(chat, 1)
    await store.chat(chat)
    await store.chats("one", offset=0, limit=10)
    await store.posted(chat, user.id, "key 1")
    await store.role("one", user.id)
    await store.members("one", offset=0, limit=10)
    await store.application("one")
    store.apply([PutMember("two", user.id + 1, Role.MEMBER), HandOver("two", user.id, user.id + 1)])
    store.apply([DeleteChat(chat), DeleteApplication("two")])
    store.erase()
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
