"""The checkers can fail: they find the faults of services that are broken on purpose."""

from __future__ import annotations

import os
from pathlib import Path

import httpx

from hubbub.loadtest.cluster import ClusterStack
from tests.cluster import truth
from tests.cluster.faults import Field, replace_writers
from tests.cluster.traffic import Traffic
from tests.conftest import Service, eventually
from tests.history.check import faults
from tests.history.test_embedded import stored_in
from tests.history.workload import Workload
from tests.servers import need_servers

_TRIES = 5
_BROKEN = Path(__file__).parent / "broken"


def _build(name: str) -> dict[str, str]:
    """Return an environment in which a process is broken in this way."""
    return {"PYTHONPATH": os.pathsep.join([str(_BROKEN / name), os.environ.get("PYTHONPATH", "")])}


async def test_acknowledging_before_the_commit_is_caught(tmp_path: Path, fault_seed: int) -> None:
    service = Service(tmp_path / "data")
    broken = _build("acknowledge_early")
    service.start(**broken)
    try:
        workload = Workload(lambda: [service.url], fault_seed)
        found: list[str] = []
        async with workload:
            for _ in range(8):
                await workload.more(60)
                service.kill()
                service.start(**broken)
            await workload.more(20)
        await workload.finish(lambda chat: stored_in(service.data, chat), patience_s=1)
        found = faults(workload.history)
    finally:
        service.kill()
    assert any("is lost" in fault or "was given twice" in fault for fault in found), found[:10]
    assert any("is missing from a read" in fault for fault in found), found[:10]


async def test_a_counter_in_redis_only_is_caught(fault_seed: int) -> None:
    need_servers()
    with ClusterStack(apis=1, writers=1, search=None, settings=_build("count_in_redis")) as stack:
        workload = Workload(lambda: [stack.url], fault_seed, give_up_s=2)
        async with workload:
            await workload.more(40)
            stack.redis.command("FLUSHALL")
            await workload.more(20)
        eventually(lambda: httpx.get(stack.url + "/readyz").status_code == 200)
        await workload.finish(lambda chat: truth.stored(stack, chat), patience_s=1)
        found = faults(workload.history)
    assert any("was given twice" in fault for fault in found), found[:10]


def test_a_writer_that_cancels_its_consumer_is_caught(fault_seed: int) -> None:
    need_servers()
    with Field(fault_seed, settings=_build("cancel_consumer")) as field:
        for turn in range(_TRIES):
            traffic = Traffic([part.url for part in field.stack.apis], seed=fault_seed + turn)
            with traffic:
                traffic.wait_for(60)
                replace_writers(field)
                traffic.wait_for(60)
            truth.bare(field.stack)
            found = traffic.stored(field.stack)
            traffic.close()
            if any(problem.kind == "lost" for problem in found):
                return
    raise AssertionError(f"{_TRIES} times nothing was found to be lost")
