"""The proof that the checker can fail: services that are broken on purpose are caught, by what they broke."""

from __future__ import annotations

from pathlib import Path

import httpx

from hubbub.loadtest.cluster import ClusterStack
from tests.conftest import Service, eventually
from tests.history.check import faults
from tests.history.workload import Workload
from tests.servers import need_servers

_BROKEN = Path(__file__).parent / "broken"


async def test_acknowledging_before_the_commit_is_caught(tmp_path: Path, fault_seed: int) -> None:
    service = Service(tmp_path / "data")
    broken = {"PYTHONPATH": str(_BROKEN / "acknowledge_early")}
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
        await workload.finish(patience_s=1)
        found = faults(workload.history)
    finally:
        service.kill()
    assert any("is lost" in fault or "was given twice" in fault for fault in found), found[:10]
    assert any("is missing from a read" in fault for fault in found), found[:10]


async def test_a_counter_that_is_in_redis_alone_is_caught(fault_seed: int) -> None:
    need_servers()
    broken = {"PYTHONPATH": str(_BROKEN / "count_in_redis")}
    with ClusterStack(apis=1, writers=1, search=None, settings=broken) as stack:
        workload = Workload(lambda: [stack.url], fault_seed, give_up_s=2)
        async with workload:
            await workload.more(40)
            stack.redis.command("FLUSHALL")
            await workload.more(20)
        eventually(lambda: httpx.get(stack.url + "/readyz").status_code == 200)
        await workload.finish(patience_s=1)
        found = faults(workload.history)
    assert any("was given twice" in fault for fault in found), found[:10]
