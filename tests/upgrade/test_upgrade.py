"""Data of version 0.1.0, stopped in the middle of its work, is taken over completely. make_data.py made the data."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aio_pika
import httpx
import jwt
import pytest

from hubbub.loadtest.cluster import ClusterStack
from tests.cluster.truth import rows
from tests.conftest import Service, eventually
from tests.servers import need_servers
from tests.upgrade.record import DATA, Client, Place, Record

_SOON_S = 60.0


@contextmanager
def everybody(record: Record, urls: list[str]) -> Iterator[dict[str, Client]]:
    """Log everybody in with the passwords of the earlier version."""
    people = {email: Client(record, urls, email) for email in record.passwords}
    try:
        for client in people.values():
            client.login()
        yield people
    finally:
        for client in people.values():
            client.close()


def pages(client: Client, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    page = 1
    while more := client.ask("GET", f"{path}?page={page}&limit=7", 200):
        found += more
        page += 1
    return found


def check_what_is_shown(record: Record, people: dict[str, Client]) -> None:
    ids = {email: client.ask("GET", "/auth/me", 200)["user"]["id"] for email, client in people.items()}
    for token, name in record.applications.items():
        members = record.members[token]
        owner = next(email for email, role in members.items() if role == "owner")
        listed_members = people[owner].ask("GET", f"/applications/{token}/members", 200)
        roles = {entry["email"]: entry["role"] for entry in listed_members}
        assert roles == members
        for email, client in people.items():
            listed = {entry["token"]: entry["name"] for entry in client.ask("GET", "/applications?limit=100", 200)}
            assert (listed.get(token) == name) == (email in members)
    for place, title in record.titles.items():
        client = people[next(iter(record.members[place.token]))]
        assert client.ask("GET", place.path, 200)["title"] == title
        shown = [
            (entry["messageNumber"], entry["senderId"], entry["senderName"], entry["body"], "editedAt" in entry)
            for entry in pages(client, f"{place.path}/messages")
        ]
        there = sorted(record.there(place).items(), reverse=True)
        assert shown == [
            (number, ids[sender], record.names[sender], body, edited) for number, (sender, body, edited) in there
        ]
        for number, message in record.messages[place].items():
            client.ask("GET", f"{place.path}/messages/{number}", 404 if message is None else 200)
        eventually(partial(counts, client, place, len(there)), _SOON_S)


def counts(client: Client, place: Place, wanted: int) -> bool:
    return bool(client.ask("GET", place.path, 200)["messagesCount"] == wanted)


def continue_chats(record: Record, people: dict[str, Client]) -> None:
    """Check that retries find the first try, chats continue behind the last number, and old messages can be changed."""
    for key in list(record.keys):
        path, headers = f"{key.place.path}/messages", {"Idempotency_Key": key.key}
        answer = people[key.sender].ask("POST", path, 200, {"body": key.body}, **headers)
        assert answer == {"messageNumber": key.number}
        people[key.sender].ask("POST", path, 409, {"body": "another text"}, **headers)
    for place in list(record.titles):
        client = people[next(iter(record.members[place.token]))]
        number = record.next_number(place)
        assert client.post(place, "goes on 🎉", key="a new key") == number
        assert client.post(place, "goes on 🎉", key="a new key") == number
        assert client.post(place, "and on") == number + 1
        client.edit(place, number, "goes on, edited")
        old = [n for n, message in record.there(place).items() if message.sender == client.email and n < number]
        if len(old) > 1:
            client.edit(place, old[0], "from before, edited now")
            client.delete(place, old[1])


def check_sessions(token: str, url: str) -> None:
    """Check that a token of version 0.1.0 is valid, can be refreshed, and ends with all others of its user."""
    headers = {"Authorization": f"Bearer {token}"}
    longer = httpx.post(url + "/api/v1/auth/refresh", headers=headers).json()["token"]
    tokens = [headers, {"Authorization": f"Bearer {longer}"}]

    def statuses() -> list[int]:
        return [httpx.get(url + "/api/v1/auth/me", headers=each).status_code for each in tokens]

    assert statuses() == [200, 200]
    assert httpx.delete(url + "/api/v1/auth/sessions", headers=headers).status_code == 204
    assert statuses() == [401, 401]


def issued_by_0_1_0(secret: str, ref: str) -> str:
    now = int(time.time())
    claims = {"sub": ref, "sid": secrets.token_urlsafe(16), "jti": secrets.token_urlsafe(8)}
    return jwt.encode(claims | {"iat": now - 3600, "exp": now - 3600 + 7 * 24 * 3600}, secret, algorithm="HS256")


def finds(client: Client, place: Place, q: str) -> list[int]:
    """Return the numbers that a search finds, or none while searching is impossible."""
    try:
        found = client.ask("GET", f"{place.path}/messages/search?q={q}&limit=100", 200)
    except AssertionError:
        return []
    return sorted(entry["messageNumber"] for entry in found)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_data_folder_of_0_1_0(tmp_path: Path, end: str) -> None:
    record = Record.load(DATA / "embedded.json")
    with tarfile.open(DATA / "embedded.tar.xz") as tar:
        tar.extractall(tmp_path)  # noqa: S202 - an archive of our own; a filter needs Python 3.11.4
    data = tmp_path / "data"
    assert (data / "hubbub.db-wal").stat().st_size > 0, "a part of it was in the write-ahead log alone"
    service = Service(data)
    service.start()
    try:
        with everybody(record, [service.url]) as people:
            check_what_is_shown(record, people)
            continue_chats(record, people)
            check_what_is_shown(record, people)
            general = next(place for place, title in record.titles.items() if title == "General")
            asker = people[next(iter(record.members[general.token]))]
            alone = [n for n, message in record.there(general).items() if "log alone" in message.body]
            eventually(lambda: set(alone) <= set(finds(asker, general, "log+alone")), _SOON_S)
        with closing(sqlite3.connect(data / "hubbub.db")) as connection:
            (ref,) = connection.execute("SELECT ref FROM users WHERE email = ?", (asker.email,)).fetchone()
        check_sessions(issued_by_0_1_0((data / "secret").read_text().strip(), ref), service.url)
    finally:
        service.stop() if end == "stop" else service.kill()
    check_the_file(record, data / "hubbub.db")
    service.start()
    service.stop()
    check_the_file(record, data / "hubbub.db")


def check_the_file(record: Record, database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        stored = connection.execute(
            "SELECT a.token, c.number, m.number, u.email, m.body FROM messages m JOIN users u ON u.id = m.sender_id"
            " JOIN chats c ON c.id = m.chat_id JOIN applications a ON a.id = c.application_id"
        ).fetchall()
    assert sorted(stored) == wanted(record)


def wanted(record: Record) -> list[tuple[str, int, int, str, str]]:
    return sorted(
        (*place, number, message.sender, message.body)
        for place in record.titles
        for number, message in record.there(place).items()
    )


# A cluster ------------------------------------------------------------------------------------------------------------


def load(stack: ClusterStack, sql: Path) -> None:
    server = ["--no-defaults", "-h", "127.0.0.1", "-P", str(stack.mariadb.port), "-u", "hubbub"]
    environment = os.environ | {"MYSQL_PWD": stack.mariadb.password}
    command = ["mariadb", *server, "--default-character-set=utf8mb4", "hubbub"]
    subprocess.run(command, env=environment, check=True, stdin=sql.open("rb"))


def queue_up(stack: ClusterStack, queued: dict[str, list[dict[str, Any]]]) -> None:
    """Fill queues that are declared as 0.1.0 declared them."""

    async def send() -> None:
        connection = await aio_pika.connect(stack.rabbitmq.url)
        async with connection:
            channel = await connection.channel()
            for name, messages in queued.items():
                arguments: dict[str, Any] = {"x-queue-type": "quorum"}
                if name != "hubbub.dead":
                    arguments["x-single-active-consumer"] = True
                await channel.declare_queue(name, durable=True, arguments=arguments)
                for message in messages:
                    body = base64.b64decode(message["body"])
                    await channel.default_exchange.publish(
                        aio_pika.Message(
                            body,
                            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                            type=message.get("type"),
                            headers=message.get("headers"),
                        ),
                        name,
                    )

    asyncio.run(send())


@contextmanager
def taken_over() -> Iterator[ClusterStack]:
    """A cluster of this version on the database and the queues of 0.1.0, with an empty Redis."""
    need_servers()
    stack = ClusterStack(apis=2, writers=2)
    try:
        for server in (stack.redis, stack.mariadb, stack.rabbitmq, *([stack.search] if stack.search else [])):
            server.start()
        load(stack, DATA / "cluster.sql")
        # It must seem to have stopped just now, because publishers that were silent for long may be forgotten.
        stack.mariadb.root("UPDATE hubbub.publishers SET applied_at = UNIX_TIMESTAMP()")
        queue_up(stack, json.loads((DATA / "queued.json").read_text()))
        for part in (*stack.writers, *stack.apis):
            part.start()
        yield stack
    finally:
        stack.stop()


def stored(stack: ClusterStack) -> list[tuple[Any, ...]]:
    found = rows(
        stack,
        "SELECT m.token, m.chat, m.number, u.email, m.body FROM messages m JOIN users u ON u.id = m.sender_id",
    )
    return sorted(found)


def still_queued(stack: ClusterStack) -> dict[str, int]:
    lines = [line.split() for line in stack.rabbitmq.control("list_queues", "name", "messages").splitlines()]
    return {
        line[0]: int(line[1])
        for line in lines
        if len(line) == 2 and line[0].startswith("hubbub.") and line[0] != "hubbub.dead" and line[1] != "0"
    }


def check_the_database(record: Record, stack: ClusterStack) -> None:
    """Check that the database has everything acknowledged once and nothing else, and that nothing is queued."""
    eventually(lambda: stored(stack) == wanted(record) and not still_queued(stack), _SOON_S)
    edited = {tuple(row) for row in rows(stack, "SELECT token, chat, number FROM messages WHERE edited_at IS NOT NULL")}
    assert edited == {
        (*place, number) for place in record.titles for number, message in record.there(place).items() if message.edited
    }
    keys = rows(
        stack,
        "SELECT k.token, k.chat, u.email, k.key, k.number FROM idempotency_keys k JOIN users u ON u.id = k.sender_id",
    )
    assert sorted(keys) == sorted((*key.place, key.sender, key.key, key.number) for key in record.keys)


def test_the_database_and_the_queues_of_a_cluster_of_0_1_0() -> None:
    record = Record.load(DATA / "cluster.json")
    with taken_over() as stack:
        check_the_database(record, stack)
        with everybody(record, [api.url for api in stack.apis]) as people:
            check_what_is_shown(record, people)
            continue_chats(record, people)
            check_what_is_shown(record, people)
            check_the_database(record, stack)
            if stack.search is not None:  # the index has what was noted for it, and what was queued
                general = next(place for place, title in record.titles.items() if title == "General")
                asker = people[next(iter(record.members[general.token]))]
                stored_once = [n for n, message in record.there(general).items() if "stored" in message.body]
                eventually(lambda: finds(asker, general, "stored") == stored_once, _SOON_S)
        ((secret,),) = rows(stack, "SELECT value FROM kept WHERE name = 'session secret'")
        ((ref,),) = rows(stack, f"SELECT ref FROM users WHERE email = '{next(iter(record.names))}'")
        check_sessions(issued_by_0_1_0(secret, ref), stack.apis[0].url)
        listed = subprocess.run(
            [sys.executable, "-m", "hubbub", "dead", "list"],
            env=os.environ | stack.settings,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert "can't be read" in listed
        assert "Duplicate entry" in listed
        for api in stack.apis:
            assert httpx.get(api.url + "/readyz").status_code == 200
