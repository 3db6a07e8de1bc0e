"""Random faults in a cluster of three API processes and two writers, from a seed, as in test_embedded.

Reads that say so may lag while a lost Redis is refilled. The final state is what the database has after Redis was
emptied and every process restarted.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest

from tests.cluster import truth
from tests.cluster.faults import FAULTS, Field
from tests.history.conftest import Stored
from tests.history.workload import Workload
from tests.servers import need_servers

Judge = Callable[[Workload, "Counter[str]", Stored], Awaitable[None]]


@pytest.fixture
def field(fault_seed: int) -> Iterator[Field]:
    need_servers()
    with Field(fault_seed) as field:
        yield field


async def test_random_faults_break_no_promise(field: Field, fault_seed: int, fault_rounds: int, judge: Judge) -> None:
    done: Counter[str] = Counter()
    workload = Workload(lambda: [part.url for part in field.stack.apis], fault_seed, give_up_s=15)
    field.chats = workload.chats
    rounds = max(fault_rounds // 5, 4)
    quick = [fault for fault in FAULTS if not fault.slow]
    faults = field.rng.choices(quick, k=rounds) if rounds < len(FAULTS) else field.rng.choices(FAULTS, k=rounds)
    async with workload:
        for fault in faults:
            await workload.more(field.rng.randint(5, 80), within_s=60)
            await asyncio.to_thread(fault.do, field)
            await asyncio.to_thread(field.ready)
            await workload.more(10, within_s=60, after=fault.name)
            done[fault.name] += 1
        await workload.more(50, within_s=60)
    await asyncio.to_thread(truth.bare, field.stack)
    await judge(workload, done, lambda chat: truth.stored(field.stack, chat))
