"""Rule 3 (d): a process whose reads take all of its connections to the database still proves its lease.

Otherwise it would think that no process can use another Redis by now, and go on with its own: after a failover of the
others it lost all that it acknowledged.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import httpx
import pymysql

from hubbub.loadtest.cluster import ClusterStack
from tests.conftest import Person
from tests.servers import need_servers

_BUSY_S = 6.0


@contextmanager
def locked(stack: ClusterStack, table: str) -> Iterator[None]:
    """Let every read of the table wait, as a change of its schema does."""
    mariadb = stack.mariadb
    connection = pymysql.connect(
        host="127.0.0.1", port=mariadb.port, user="hubbub", password=mariadb.password, database="hubbub"
    )
    with closing(connection), connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLES {table} WRITE")
        yield


def test_a_process_with_no_free_connection_still_reads_the_generations() -> None:
    need_servers()
    with ClusterStack(search=None) as stack, closing(Person(stack.url)) as ann, closing(Person(stack.url)) as ben:
        chat = ann.chat()
        member = {"email": ben.email, "role": "member"}
        assert ann.post(f"{chat.partition('/chats')[0]}/members", json=member).status_code == 201
        until = time.monotonic() + _BUSY_S

        def look(number: int) -> int:
            """Post with keys that only the store can know."""
            person, refused = (ann, ben)[number % 2], 0
            url, cookies = stack.url + "/api/v1", dict(person.cookies)
            with httpx.Client(base_url=url, cookies=cookies, timeout=60) as client:
                while time.monotonic() < until:
                    key = {"Idempotency-Key": secrets.token_hex(8)}
                    refused += client.post(f"{chat}/messages", json={"body": "B"}, headers=key).status_code == 503
            return refused

        with locked(stack, "idempotency_keys"), ThreadPoolExecutor(16) as clients:
            assert min(clients.map(look, range(16))) > 0  # all of its connections wait for the table
        assert "generations of Redis can't be read" not in stack.apis[0].log.read_text()
