"""Generations of Redis when a process was frozen, and when the database is away."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import pytest

from hubbub.cluster import generations as module
from hubbub.cluster.generations import Generations
from hubbub.cluster.processes import Generation
from hubbub.cluster.redis.keys import Keys
from tests.conftest import eventually_async

SET = "run:replication"


class Client:
    identity = SET
    connection = 1
    keys: Keys | None = None


class Servers:
    def __init__(self) -> None:
        self.clients = [Client()]


class Processes:
    """A fake of the table of processes. A beat waits until ``answers`` is set."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.answers.set()
        self.newest = Generation(1, SET, used=True, known=True)
        self.beats = 0

    def beat(self, _name: str, _holds: Mapping[int, int]) -> dict[int, Generation]:
        self.beats += 1
        self.answers.wait(30)
        return {0: self.newest}

    def use_generation(self, _slot: int, _generation: int) -> None:
        pass


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    for name, seconds in (
        ("LEASE_S", 0.5),
        ("_BEAT_S", 0.02),
        ("_WITHIN_S", 0.3),
        ("_STOOD_STILL_S", 0.6),
        ("_OVER_S", 0.6),
    ):
        monkeypatch.setattr(module, name, seconds)
    return Processes()


@pytest.fixture
def servers() -> Servers:
    return Servers()


@pytest.fixture
async def generations(processes: Processes, servers: Servers) -> AsyncIterator[Generations]:
    made = Generations(cast(Any, processes), cast(Any, servers), "api", lambda: None)
    await eventually_async(lambda: made.fresh(0, 1))
    yield made
    processes.answers.set()
    await made.close()


async def test_a_process_that_was_frozen_asks_again(processes: Processes, generations: Generations) -> None:
    processes.answers.clear()
    beats = processes.beats
    await eventually_async(lambda: processes.beats > beats)
    time.sleep(1.0)  # noqa: ASYNC251 - neither the loop nor the thread of the beat runs meanwhile
    asked = asyncio.ensure_future(generations.vouch(0, 1))
    await eventually_async(lambda: processes.beats > beats + 1)
    processes.answers.set()
    assert await asyncio.wait_for(asked, 5), "its reads would say that they may lag"


async def test_a_database_that_does_not_answer_is_not_waited_for(
    processes: Processes, generations: Generations
) -> None:
    processes.answers.clear()
    await eventually_async(lambda: not generations.fresh(0, 1))
    assert not await asyncio.wait_for(generations.vouch(0, 1), 5)
    processes.answers.set()
    await eventually_async(lambda: generations.fresh(0, 1))


async def test_another_generation_is_used_when_leases_from_before_it_was_seen_are_over(
    processes: Processes, servers: Servers, generations: Generations
) -> None:
    await asyncio.sleep(0.7)  # the database has answered for long enough
    seen = time.monotonic()
    processes.newest = Generation(
        2, SET, used=False, known=False
    )  # it may have been made earlier, but is first seen now
    await eventually_async(lambda: generations.fresh(0, 2))
    assert servers.clients[0].keys is None
    await eventually_async(lambda: servers.clients[0].keys is not None)
    assert time.monotonic() - seen >= 0.6
