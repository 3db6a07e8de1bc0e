"""When a chat or an application is deleted while posts to it are queued, nothing of it comes back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from hubbub.chat.model import ChatKey
from hubbub.cluster.redis.keys import Keys
from hubbub.loadtest.cluster import ClusterStack
from tests.cluster.test_two_processes import elsewhere
from tests.cluster.truth import drained, rows, stored
from tests.conftest import Person, eventually


@pytest.fixture
def ann(cluster: ClusterStack) -> Iterator[Person]:
    with closing(Person(cluster.apis[0].url)) as person:
        yield person


def place_of(chat: str) -> tuple[str, int]:
    _, _, token, _, number = chat.split("/")
    return token, int(number)


def left_of(cluster: ClusterStack, chat: str) -> int:
    """Return how many rows of the chat's content the database has."""
    tables = ("messages", "idempotency_keys", "set_aside")
    return sum(
        int(rows(cluster, f"SELECT COUNT(*) FROM {table} WHERE token = %s AND chat = %s", place_of(chat))[0][0])
        for table in tables
    )


def entries_of(cluster: ClusterStack, chat: str) -> int:
    """Return how many fields the chat has in Redis."""
    ((generation,),) = rows(cluster, "SELECT MAX(generation) FROM generations")
    names = Keys(generation).of(ChatKey(*place_of(chat)))
    return sum(int(cluster.redis.command("HLEN", name)[1:]) for name in (names.chat, names.old))


def test_queued_messages_of_a_deleted_chat_never_come_back(cluster: ClusterStack, ann: Person) -> None:
    staying = ann.chat()
    chat = ann.chat(staying.split("/")[2])
    alone = ann.chat()  # its application is deleted
    ended = [chat, alone]
    for path in (staying, *ended):
        ann.post(f"{path}/messages", json={"body": "stored"}, headers={"Idempotency-Key": "first"})
    drained(cluster)
    for writer in cluster.writers:
        writer.pause()
    try:
        for turn in range(20):
            for path in (staying, *ended):
                answer = ann.post(f"{path}/messages", json={"body": f"{turn}"}, headers={"Idempotency-Key": f"{turn}"})
                assert answer.status_code == 200
        for path in ended:
            assert ann.put(f"{path}/messages", json={"messageNumber": 2, "body": "edited"}).status_code == 200
            assert ann.delete(f"{path}/messages/3").status_code == 204
        assert ann.delete(chat).status_code == 204
        assert ann.delete(alone.rsplit("/", 2)[0]).status_code == 204
        with elsewhere(cluster, ann) as other:
            for client in (ann, other):
                for path in ended:
                    assert client.get(f"{path}/messages").status_code == 404
                    assert client.post(f"{path}/messages", json={"body": "late"}).status_code == 404
            assert other.post(f"{staying}/messages", json={"body": "last"}).json() == {"messageNumber": 22}
    finally:
        for writer in cluster.writers:
            writer.resume()
    drained(cluster)
    assert [number for number, _ in stored(cluster, staying)] == list(range(1, 23))
    eventually(lambda: not any(left_of(cluster, path) for path in ended))
    eventually(lambda: not rows(cluster, "SELECT * FROM erasures WHERE token = %s", place_of(alone)[:1]))
    for path in ended:
        assert entries_of(cluster, path) <= 1  # the one that says it was deleted
    assert not rows(cluster, "SELECT * FROM members WHERE token = %s", place_of(alone)[:1])
    assert ann.post(f"{staying}/messages", json={"body": "goes on"}).json() == {"messageNumber": 23}
    drained(cluster)
    assert stored(cluster, staying)[-1] == (23, "goes on")


def test_a_delete_beside_posts_at_two_processes(cluster: ClusterStack, ann: Person) -> None:
    token = ann.application()
    for _ in range(3):
        chat = ann.chat(token)
        stop, begun = threading.Event(), threading.Event()
        after: list[int] = []
        deleted = threading.Event()

        def send(client: httpx.Client) -> None:
            while not stop.is_set():  # noqa: B023 - ended in this turn
                late = deleted.is_set()  # noqa: B023
                status = client.post(f"{chat}/messages", json={"body": "x"}).status_code  # noqa: B023
                assert status in (200, 404, 503)
                begun.set()  # noqa: B023
                if late:
                    after.append(status)  # noqa: B023

        with elsewhere(cluster, ann) as other, elsewhere(cluster, ann) as deleter:
            threads = [threading.Thread(target=send, args=(client,)) for client in (ann, other)]
            for thread in threads:
                thread.start()
            assert begun.wait(20)
            assert deleter.delete(chat).status_code == 204
            deleted.set()
            eventually(lambda: len(after) > 10)  # noqa: B023
            stop.set()
            for thread in threads:
                thread.join(20)
        assert set(after) == {404}
        drained(cluster)
        eventually(lambda: not left_of(cluster, chat))  # noqa: B023


def test_a_writer_killed_while_it_erases_leaves_the_rest_to_the_next(cluster: ClusterStack, ann: Person) -> None:
    chat = ann.chat()
    token, number = place_of(chat)
    ann.post(f"{chat}/messages", json={"body": "one"})
    drained(cluster)
    more = ",".join(f"('{token}',{number},{each},1,'A','x',1)" for each in range(2, 8_000))
    rows(
        cluster,
        f"INSERT INTO messages (token, chat, number, sender_id, sender_name, body, created_at) VALUES {more}",
        commit=True,
    )
    assert ann.delete(chat).status_code == 204
    for writer in cluster.writers:
        writer.kill()
    assert left_of(cluster, chat) > 0
    for writer in cluster.writers:
        writer.start()
    eventually(lambda: not left_of(cluster, chat), within_s=60)


def test_a_process_killed_between_the_mark_and_redis_leaves_no_chat(cluster: ClusterStack, ann: Person) -> None:
    chat = ann.chat()
    token, number = place_of(chat)
    with elsewhere(cluster, ann) as other:
        for client in (ann, other):
            assert client.post(f"{chat}/messages", json={"body": "x"}).status_code == 200
            assert client.get(f"{chat}/messages?limit=5").status_code == 200
        mark = "UPDATE chats SET deleted = TRUE, opening = 0 WHERE token = %s AND number = %s"
        rows(cluster, mark, (token, number), commit=True)
        note = "INSERT INTO erasures (kind, token, chat, at) VALUES ('chat', %s, %s, 1)"
        rows(cluster, note, (token, number), commit=True)
        for client in (ann, other):
            for path in (chat, f"{chat}/messages", f"{chat}/messages?limit=5", f"{chat}/messages/1"):
                eventually(lambda client=client, path=path: client.get(path).status_code == 404)  # type: ignore[misc]
            assert client.post(f"{chat}/messages", json={"body": "late"}).status_code == 404
    eventually(lambda: not left_of(cluster, chat))
