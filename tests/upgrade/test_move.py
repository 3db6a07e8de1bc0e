"""``hubbub move`` moves the data of one process to a cluster, and no client notices."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pymysql
import pytest
from sqlalchemy import make_url

from hubbub.chat.commands import (
    AddApplication,
    AddChat,
    AddInvite,
    AddLink,
    AddUser,
    DeleteApplication,
    DeleteChat,
    DeleteMessage,
    DeleteUser,
    EditMessage,
    PostMessage,
    PutMember,
    RemoveMember,
    SetOperator,
)
from hubbub.chat.errors import Unavailable
from hubbub.chat.model import ChatKey, Invite, Purpose, Role
from hubbub.cluster.database import Database
from hubbub.cluster.load import Load, LoadFailed
from hubbub.cluster.migrate import migrate
from hubbub.cluster.processes import Processes
from hubbub.cluster.store import MySqlStore
from hubbub.embedded.data_folder import DataFolder, FolderUnusable
from hubbub.embedded.rows import SELECTS, Rows
from hubbub.embedded.store import SqliteStore
from hubbub.loadtest.process import Part
from hubbub.loadtest.servers import MariaDb, RabbitMq, Redis
from hubbub.move import move
from hubbub.schema.rows import TABLES, Row
from hubbub.settings import Settings, load
from tests.conftest import Service, serve
from tests.ports.cluster import purge
from tests.servers import new_database
from tests.upgrade.record import DATA, Client, Record
from tests.upgrade.test_upgrade import check_what_is_shown, continue_chats, everybody

# Tables and columns of each mode that a move does not read or fill, and why.
LEFT_IN_THE_FOLDER = {
    "invites.id": "a cluster gives its own, in the same order",
    "alembic_version": "each mode has its own",
    "changes": "the cluster's index is made of the messages",
}
NOT_FILLED = {
    "alembic_version": "each mode has its own",
    "changes": "`hubbub search rebuild` makes the index",
    "generations": "of the cluster's Redis",
    "holes": "of the cluster's queue",
    "kept": "the session secret is moved; the rest is the cluster's own",
    "processes": "of the cluster",
    "publishers": "of the cluster's queue",
    "set_aside": "of the cluster's queue",
    "shards": "of the cluster's queue",
    "erasures.id": "given by the database",
    "erasures.who": "no process is at it",
    "erasures.until": "as who",
    "chats.epoch": "numbers begin in the first epoch, as a new chat's do",
    "chats.live_epoch": "as epoch",
    "chats.opening": "nothing is being opened",
    "invites.id": "given by the database, in the order of the rows",
    "members.position": "given by the database, in the order of the rows",
    "messages.changed": "no change had an order",
}


def hubbub(environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hubbub", *map(str, words)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def unreachable(mysql_url: str, data: Path) -> Settings:
    """Return the settings of a cluster in which only the database can be reached."""
    return load(mysql_url=mysql_url, amqp_url="amqp://127.0.0.1:1/", redis_url="redis://127.0.0.1:1", data=data)


@pytest.fixture
def database(mariadb: MariaDb) -> str:
    return new_database(mariadb)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder that was served before."""
    path = tmp_path / "data"
    chat = ChatKey("token", 1)
    taken = DataFolder.open(path)
    store = SqliteStore(taken.database)
    store.apply([AddUser(f"ref{n}", f"{n}@x", f"Person {n}", "hash", n) for n in (1, 2)])
    store.apply([AddApplication("token", "One", 1, 50), AddChat("token", "General", 5), AddChat("token", None, 6)])
    store.apply(
        [PostMessage(chat, n, 1, "ref1", "Person 1", f"{n} 🎉\0'%s", n, f"key {n}", b"\xff" * 32) for n in range(1, 10)]
    )
    store.apply([EditMessage(chat, 2, 1, "edited", 99), DeleteMessage(chat, 9, 1, any_sender=False)])
    store.apply([SetOperator("2@x", operator=True), AddLink(Purpose.RESET, "1@x", b"\xfe" * 32, 2**40)])
    store.apply([AddInvite("token", Invite(f"ref{n}", Role.ADMIN, 5, n, 6, 2**40), bytes([n]) * 32, 1) for n in (1, 2)])
    store.count_messages()
    store.close()
    taken.close()
    return path


def answer(url: str, sql: str) -> list[tuple[Any, ...]]:
    at = make_url(url)
    connection = pymysql.connect(
        host=at.host or "", port=at.port or 0, user=at.username, password=at.password or "", database=at.database
    )
    with closing(connection), connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def stored(url: str, kind: type[Row]) -> list[tuple[Any, ...]]:
    columns = ", ".join(f"`{field}`" for field in kind._fields)
    return sorted(answer(url, f"SELECT {columns} FROM {TABLES[kind]}"))


def check_all_is_there(url: str, data: Path) -> None:
    with Rows(data / "hubbub.db") as rows:
        for kind in TABLES:
            assert stored(url, kind) == sorted(rows.of(kind))
    assert answer(url, "SELECT value FROM kept WHERE name = 'session secret'") == [((data / "secret").read_text(),)]


# A whole move ---------------------------------------------------------------------------------------------------------


@contextmanager
def running(settings: dict[str, str], logs: Path) -> Iterator[str]:
    """Run a writer and an API process, and yield the URL."""
    parts = Part(["writer"], settings, logs / "writer.log"), Part(["api", "--port", "0"], settings, logs / "api.log")
    try:
        with ThreadPoolExecutor(2) as starting:
            list(starting.map(Part.start, parts))
        yield parts[1].url
    finally:
        for part in reversed(parts):
            part.stop()


def seen(record: Record, people: Sequence[httpx.Client]) -> list[Any]:
    """Return everything that each person is shown, in the order of the lists."""

    def get(person: httpx.Client, path: str) -> Any:
        got = person.get(path)
        return got.json() if got.status_code == 200 else got.status_code

    everything: list[Any] = []
    for person in people:
        everything += [get(person, "/auth/me"), get(person, "/applications?limit=100")]
        for token in record.applications:
            everything += [get(person, f"/applications/{token}{what}") for what in ("", "/members", "/chats")]
        for place in record.titles:
            everything += [get(person, f"{place.path}/messages?limit=100")]
            everything += [get(person, f"{place.path}/messages/{number}") for number in record.messages[place]]
    return everything


def test_no_client_notices_a_move(tmp_path: Path, database: str, rabbitmq: RabbitMq, redis: Redis) -> None:
    record = Record.load(DATA / "embedded.json")
    with tarfile.open(DATA / "embedded.tar.xz") as tar:
        tar.extractall(tmp_path)  # noqa: S202 - an archive of our own; a filter needs Python 3.11.4
    service = Service(tmp_path / "data")
    service.start()
    with everybody(record, [service.url]) as people, ExitStack() as opened:
        first, *_ = people.values()
        place = first.chat(first.application("Made last"), "With keys")
        numbers = [first.post(place, f"number {n}", key=f"key {n}") for n in range(5)]
        first.edit(place, numbers[0], "edited 🎉")
        first.delete(place, numbers[-1])  # the next number must be above it, and its key must add nothing
        first.edit(place, numbers[1], "edited too")
        at = service.url + "/api/v1"
        sessions = [opened.enter_context(httpx.Client(base_url=at, cookies=each.cookies)) for each in people.values()]
        before = seen(record, sessions)
        cookies = [dict(session.cookies) for session in sessions]
        ended = {"email": first.email, "password": record.passwords[first.email]}
        token = httpx.post(at + "/auth/tokens", json=ended).json()["token"]
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx.delete(at + "/auth/logout", headers=headers).status_code == 200
        zoe = Client(record, [service.url], "zoe@example.com")
        opened.callback(zoe.close)
        zoe.register("Zoe", "correct horse")
        all_ended = zoe.cookies
        zoe.ask("DELETE", "/auth/sessions", 204)
    assert service.stop() == 0

    cluster = {"HUBBUB_AMQP_URL": rabbitmq.url, "HUBBUB_REDIS_URL": redis.url, "HUBBUB_SHARDS": "2"}
    cluster |= {"HUBBUB_MYSQL_URL": database}
    asyncio.run(purge(rabbitmq.url))
    moved = hubbub(cluster, "move", "--data", service.data)
    assert moved.returncode == 0, moved.stderr
    count = sum(len(record.there(place)) for place in record.titles)
    assert f"messages: {count}\n" in moved.stderr
    assert f" {count}  messages\n" in moved.stdout
    assert "was moved to the cluster at mysql://hubbub:…@127.0.0.1" in serve(service.data).stderr

    with running(cluster, tmp_path) as url:
        at = url + "/api/v1"
        with ExitStack() as opened:
            assert seen(record, [opened.enter_context(httpx.Client(base_url=at, cookies=c)) for c in cookies]) == before
        stream, last = f"{at}{place.path}/messages/stream", {"Last-Event-ID": str(numbers[2])}
        with httpx.stream("GET", stream, cookies=cookies[0], headers=last) as heard:
            assert next(line for line in heard.iter_lines() if line.startswith("id: ")) == f"id: {numbers[3]}"
        assert httpx.get(at + "/auth/me", headers=headers).status_code == 401
        assert httpx.get(at + "/auth/me", cookies=all_ended).status_code == 401
        with everybody(record, [url]) as people:
            continue_chats(record, people)
            check_what_is_shown(record, people)


# Interrupted moves ----------------------------------------------------------------------------------------------------

# It waits after two batches of messages, before the third.
SLOW = """
import sys
from hubbub import cli, move
from hubbub.cluster.load import Load
from hubbub.schema.rows import Message
move._ROWS, add, batches = 3, Load.add, []
def waiting(load, kind, rows):
    batches.append(kind)
    if batches.count(Message) == 3:
        print("here", flush=True)
        sys.stdin.readline()
    add(load, kind, rows)
Load.add = waiting
cli.main()
"""


def test_after_a_killed_move_nothing_is_served_until_it_is_run_again(database: str, folder: Path) -> None:
    cluster = {
        "HUBBUB_MYSQL_URL": database,
        "HUBBUB_AMQP_URL": "amqp://127.0.0.1:1/",
        "HUBBUB_REDIS_URL": "redis://127.0.0.1:1",
    }
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, "move", "--data", str(folder)],
        env=os.environ | cluster,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as slow:
        assert slow.stdout is not None
        assert slow.stdout.readline() == b"here\n"
        with pytest.raises(FolderUnusable, match="in use by another Hubbub"):
            DataFolder.open(folder)
        slow.kill()
    assert answer(database, "SELECT COUNT(*) FROM messages") == [(6,)]
    with ThreadPoolExecutor(2) as starting:
        for refused in starting.map(lambda words: hubbub(cluster, *words), (["api", "--port", "0"], ["writer"])):
            assert refused.returncode == 1
            assert "`hubbub move` is running or was interrupted" in refused.stderr
    # The folder may be served again and change, so nothing that the first move read may stay.
    with closing(DataFolder.open(folder)) as served, closing(SqliteStore(served.database)) as store:
        store.apply([EditMessage(ChatKey("token", 1), 1, 1, "changed since", 100)])
        store.apply([DeleteMessage(ChatKey("token", 1), 3, 1, any_sender=False)])
    again = hubbub(cluster, "move", "--data", folder)
    assert again.returncode == 0, again.stderr
    check_all_is_there(database, folder)
    assert answer(database, "SELECT body FROM messages WHERE number = 1") == [("changed since",)]


def test_a_move_that_ends_before_its_last_step_leaves_neither_side_to_be_served(
    database: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = unreachable(database, folder)

    def cut_off(_: Load) -> None:
        raise LoadFailed("cut off")

    with monkeypatch.context() as patched:
        patched.setattr(Load, "finish", cut_off)
        with pytest.raises(LoadFailed, match="cut off"):
            move(settings, print)
    with pytest.raises(FolderUnusable, match="was moved to the cluster at mysql://hubbub:…@127"):
        DataFolder.open(folder)
    with closing(Database(database)) as processes:
        with pytest.raises(Unavailable, match="run it again"):
            Processes(processes).kept("shards", "4")
        assert move(settings, print)["messages"] == 8
        with pytest.raises(LoadFailed, match="is not empty"):
            move(settings, print)
        assert Processes(processes).kept("shards", "4") == "4"
    check_all_is_there(database, folder)


def test_a_database_that_lacks_a_row_is_not_served(database: str, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "hubbub.db")) as connection, connection:
        connection.execute("INSERT INTO messages VALUES (99, 1, 1, 1, 'of a chat that is not there', NULL)")
    with pytest.raises(LoadFailed, match=r"\(messages: 8 and not 9\)"):
        move(unreachable(database, folder), print)
    DataFolder.open(folder).close()
    with closing(Database(database)) as processes, pytest.raises(Unavailable, match="run it again"):
        Processes(processes).kept("shards", "4")
    assert answer(database, "SELECT name FROM kept WHERE name = 'shards'") == [], "a refusal changes nothing"


# Refused moves --------------------------------------------------------------------------------------------------------


def test_only_an_existing_folder_that_is_not_served_is_moved(database: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FolderUnusable, match="is no data folder"):
        move(unreachable(database, tmp_path / "nowhere"), print)
    assert not (tmp_path / "nowhere").exists()
    with closing(DataFolder.open(folder)), pytest.raises(FolderUnusable, match="in use by another Hubbub"):
        move(unreachable(database, folder), print)
    assert answer(database, "SHOW TABLES") == []
    with Rows(folder / "hubbub.db"), closing(sqlite3.connect(folder / "hubbub.db", timeout=0)) as another:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            another.execute("UPDATE users SET name = 'changed while it is moved'")


def test_a_used_database_is_left_unchanged(database: str, folder: Path) -> None:
    with closing(Database(database)) as used:
        migrate(used.engine)
        Processes(used).kept("shards", "7")
        Processes(used).heartbeat("writer", "one that runs")
        with pytest.raises(LoadFailed, match="cluster is running"):
            move(unreachable(database, folder), print)
        Processes(used).gone("writer", "one that runs")
        assert Processes(used).kept("session secret", "of an API process") == "of an API process"
    with pytest.raises(LoadFailed, match="is not empty"):
        move(unreachable(database, folder), print)
    assert sorted(answer(database, "SELECT name, value FROM kept")) == [
        ("session secret", "of an API process"),
        ("shards", "7"),
    ]
    assert answer(database, "SELECT COUNT(*) FROM users") == [(0,)]
    DataFolder.open(folder).close()


def test_two_moves_into_one_database_at_once(database: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.cluster.load._LOCK_S", 0)
    with Load(database) as first:
        first.begin("secret", 1)
        with pytest.raises(LoadFailed, match="Another `hubbub move` into this database is running"):
            move(unreachable(database, folder), print)


def test_data_of_another_database_in_redis_is_not_read(database: str) -> None:
    """A trial move may have used the same tokens in the same Redis. The names there have the generation in them."""
    for _ in range(2):
        with Load(database) as one_more:
            one_more.begin("secret", 1)
    one, other = answer(database, "SELECT slot, generation, identity FROM generations")
    assert (one[0], one[2]) == (other[0], other[2]) == (0, "")
    assert abs(one[1] - other[1]) > 1000


# Moved data -----------------------------------------------------------------------------------------------------------


def test_a_users_applications_keep_their_order_though_the_clock_was_set_back(database: str, folder: Path) -> None:
    with closing(SqliteStore(folder / "hubbub.db")) as store:
        for n, created_at in enumerate((40, 40, 30, 60)):
            store.apply([AddApplication(f"later{n}", "", 1, created_at)])
        listed = [each.token for each in asyncio.run(store.applications_of(1, offset=0, limit=10))]
    move(unreachable(database, folder), print)

    async def moved() -> list[Any]:
        with closing(Database(database)) as there:
            return [each.token for each in await MySqlStore(there).applications_of(1, offset=0, limit=10)]

    assert listed == asyncio.run(moved()) == ["later3", "later2", "later1", "later0", "token"]


def test_deleted_content_stays_deleted_and_is_erased_by_the_cluster(database: str, folder: Path) -> None:
    chat, deleted = ChatKey("token", 1), ChatKey("token", 3)
    with closing(SqliteStore(folder / "hubbub.db")) as store:
        store.apply([AddUser(f"ref{n}", f"{n}@x", f"Person {n}", "hash", n) for n in (3, 4, 5)])
        store.apply([PutMember("token", n, Role.MEMBER) for n in (3, 4)])
        store.apply([PostMessage(chat, 10 + n, n, f"ref{n}", f"Person {n}", "x", n) for n in (3, 4)])
        store.apply([RemoveMember("token", 3), DeleteUser(4, "era", erase=True)])
        store.apply(
            [AddChat("token", "Deleted", 7), PostMessage(deleted, 1, 1, "ref", "Person 1", "x", 8), DeleteChat(deleted)]
        )
        store.apply([AddApplication("gone", "Gone", 5, 60), DeleteApplication("gone")])
        before = asyncio.run(store.application("token"))
    move(unreachable(database, folder), print)
    check_all_is_there(database, folder)
    assert sorted(answer(database, "SELECT kind, token, chat, user_id FROM erasures")) == [
        ("application", "gone", 0, 0),
        ("chat", "token", 3, 0),
        ("user", "", 0, 4),
    ]
    assert answer(database, "SELECT token, user_id FROM former_members") == [("token", 3)]

    async def moved() -> Any:
        with closing(Database(database)) as there:
            cluster = MySqlStore(there)
            shown = await cluster.application("token"), await cluster.application("gone"), await cluster.chat(deleted)
            return *shown, await cluster.user_by_email("4@x"), cluster.apply([AddChat("token", None, 9)])

    assert asyncio.run(moved()) == (before, None, None, None, [4])


def test_every_table_and_column_is_moved_or_left_for_a_reason(database: str, folder: Path) -> None:
    """A migration that adds one must say in schema/rows.py and embedded/rows.py where it goes, or here why not."""
    read: set[str] = set()

    def note(action: int, table: str | None, column: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_READ and column:
            read.add(f"{table}.{column}")
        return sqlite3.SQLITE_OK

    with closing(sqlite3.connect(folder / "hubbub.db")) as connection:
        there = connection.execute(
            "SELECT t.name, c.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c WHERE t.type = 'table'"
        ).fetchall()
        connection.set_authorizer(note)
        for select in SELECTS.values():
            connection.execute(f"EXPLAIN {select}")
    assert {f"{table}.{column}" for table, column in there if table not in LEFT_IN_THE_FOLDER} == read & {
        f"{table}.{column}" for table, column in there
    }

    with closing(Database(database)) as migrated:
        migrate(migrated.engine)
    columns = answer(
        database, "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE()"
    )
    filled = {f"{table}.{field}" for kind, table in TABLES.items() for field in kind._fields}
    assert {
        f"{table}.{column}"
        for table, column in columns
        if table not in NOT_FILLED and f"{table}.{column}" not in NOT_FILLED
    } == filled
