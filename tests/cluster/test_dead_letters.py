"""A command that can't be stored is set aside with its reason, blocks nothing, and can be sent again."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import aio_pika

from hubbub.chat.model import ChatKey
from hubbub.cluster.broker import queue_name
from hubbub.cluster.protocol import Delivery, Post, encode, shard_of
from hubbub.loadtest.cluster import ClusterStack
from tests.cluster.traffic import everything
from tests.conftest import Person, eventually


def dead(cluster: ClusterStack, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "hubbub", "dead", *arguments],
        env=os.environ | cluster.settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def send_raw(cluster: ClusterStack, token: str, *bodies: bytes) -> None:
    async def send() -> None:
        connection = await aio_pika.connect(cluster.rabbitmq.url)
        async with connection:
            channel = await connection.channel()
            for body in bodies:
                await channel.default_exchange.publish(
                    aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT),
                    queue_name(shard_of(token, 4)),
                )

    asyncio.run(send())


def test_poison_is_set_aside_and_messages_behind_it_are_stored(cluster: ClusterStack) -> None:
    ann = Person(cluster.url)
    chat = ann.chat()
    token = chat.split("/")[2]
    assert ann.post(f"{chat}/messages", json={"body": "one"}).json() == {"messageNumber": 1}
    taken = Post(ChatKey(token, 1), 1, 1, "A", "a number that is taken", 1)
    good = Post(ChatKey(token, 1), 50, 1, "A", "in the same delivery", 1)
    send_raw(cluster, token, b"not ours", encode(Delivery("test", 1, [taken, good])))
    eventually(lambda: dead(cluster, "list").count("\n") >= 2, 30)
    assert ann.post(f"{chat}/messages", json={"body": "two"}).json() == {"messageNumber": 2}
    eventually(lambda: bool(ann.get(chat).json()["messagesCount"] == 3))
    listed = dead(cluster, "list").splitlines()
    assert "can't be read" in listed[0]
    assert "Duplicate entry" in listed[1]
    unreadable, failed = (line.split()[0] for line in listed)
    assert json.loads(dead(cluster, "show", failed))["body"] == "a number that is taken"
    assert dead(cluster, "drop", unreadable) == "1 dropped\n"
    ann.delete(f"{chat}/messages/1")
    eventually(lambda: bool(ann.get(chat).json()["messagesCount"] == 2))
    assert dead(cluster, "retry", "--all") == "1 sent again\n"
    eventually(lambda: bool(ann.get(chat).json()["messagesCount"] == 3))
    assert dead(cluster, "list") == ""
    assert "a number that is taken" in dict(everything(ann, chat)).values()
    ann.close()
