"""What a cluster goes through while people write: nothing acknowledged is lost, and no number is given twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from hubbub.loadtest.cluster import ClusterStack
from tests.cluster.traffic import Traffic
from tests.conftest import Person, eventually
from tests.servers import need_servers

Fault = Callable[[ClusterStack], None]


@pytest.fixture(scope="module")
def stack() -> Iterator[ClusterStack]:
    need_servers()
    with ClusterStack(apis=2, writers=2, search=None) as stack:
        yield stack


def kill_writer(stack: ClusterStack) -> None:
    stack.writers[0].kill()
    time.sleep(1)
    stack.writers[0].start()


def kill_api(stack: ClusterStack) -> None:
    stack.apis[1].kill()
    time.sleep(0.5)
    stack.apis[1].start()


def kill_rabbitmq(stack: ClusterStack) -> None:
    stack.rabbitmq.kill()
    stack.rabbitmq.start()


def kill_mariadb(stack: ClusterStack) -> None:
    stack.mariadb.kill()
    time.sleep(1)
    stack.mariadb.start()


def kill_redis(stack: ClusterStack) -> None:
    stack.redis.kill()
    time.sleep(0.5)
    stack.redis.start()


def old_snapshot(stack: ClusterStack) -> None:
    """Redis dies and comes back with what it held some time ago."""
    stack.redis.command("SAVE")
    time.sleep(1)
    stack.redis.kill()
    stack.redis.start()
    (stack.redis.folder / "dump.rdb").unlink()


def flush(stack: ClusterStack) -> None:
    for _ in range(3):
        stack.redis.command("FLUSHALL")
        time.sleep(0.3)


def memory_alarm(stack: ClusterStack) -> None:
    stack.rabbitmq.control("set_vm_memory_high_watermark", "0.00000001")
    time.sleep(3)
    stack.rabbitmq.control("set_vm_memory_high_watermark", "0.4")


def read_only(stack: ClusterStack) -> None:
    stack.mariadb.root("SET GLOBAL read_only = ON")
    time.sleep(2)
    stack.mariadb.root("SET GLOBAL read_only = OFF")


def stall_redis(stack: ClusterStack) -> None:
    stack.redis.pause()
    time.sleep(4)
    stack.redis.resume()


def stall_rabbitmq(stack: ClusterStack) -> None:
    stack.rabbitmq.pause()
    time.sleep(4)
    stack.rabbitmq.resume()


def stall_mariadb(stack: ClusterStack) -> None:
    stack.mariadb.pause()
    time.sleep(4)
    stack.mariadb.resume()


FAULTS: list[Fault] = [
    kill_writer,
    kill_api,
    kill_rabbitmq,
    kill_mariadb,
    kill_redis,
    old_snapshot,
    flush,
    memory_alarm,
    read_only,
    stall_redis,
    stall_rabbitmq,
    stall_mariadb,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_nothing_acknowledged_is_lost(
    stack: ClusterStack, fault: Fault, record_property: Callable[[str, object], None]
) -> None:
    traffic = Traffic([part.url for part in stack.apis])
    with traffic:
        traffic.wait_for(150)
        fault(stack)
        mended = time.monotonic()
        eventually(lambda: all(_ready(part.url) for part in stack.apis), 60)
        traffic.wait_for(50)
        seconds = time.monotonic() - mended
        traffic.wait_for(100)
    lost, repeated = traffic.check(stack.url)
    traffic.close()
    record_property("acknowledged", traffic.told.acknowledged)
    record_property("refused", traffic.told.refused)
    record_property("seconds", round(seconds, 1))
    print(
        f"\n| {fault.__name__} | {traffic.told.acknowledged} | {traffic.told.refused}"
        f" | {lost} | {repeated} | {seconds:.1f} |"
    )


def _ready(url: str) -> bool:
    try:
        return httpx.get(url + "/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def test_a_blocked_broker_is_a_503_and_nothing_waits_for_long(stack: ClusterStack) -> None:
    ann = Person(stack.url)
    chat = ann.chat()
    assert ann.post(f"{chat}/messages", json={"body": "before"}).status_code == 200
    stack.rabbitmq.control("set_vm_memory_high_watermark", "0.00000001")
    try:
        eventually(lambda: ann.post(f"{chat}/messages", json={"body": "x"}).status_code == 503, 30)
    finally:
        stack.rabbitmq.control("set_vm_memory_high_watermark", "0.4")
    eventually(lambda: ann.post(f"{chat}/messages", json={"body": "after"}).status_code == 200, 30)
    ann.close()


@pytest.mark.parametrize("part", ["rabbitmq", "redis"])
def test_a_part_that_is_gone_is_a_503_at_once(stack: ClusterStack, part: str) -> None:
    ann = Person(stack.url)
    chat = ann.chat()
    assert ann.post(f"{chat}/messages", json={"body": "before"}).status_code == 200
    eventually(lambda: bool(ann.get(chat).json()["messagesCount"] == 1))
    server = getattr(stack, part)
    server.kill()
    try:
        eventually(lambda: ann.post(f"{chat}/messages", json={"body": "x"}).status_code == 503)
        start = time.monotonic()
        answers = [ann.post(f"{chat}/messages", json={"body": "x"}) for _ in range(20)]
        assert {answer.status_code for answer in answers} == {503}
        assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
        assert time.monotonic() - start < 5, "refusals take milliseconds each"
        assert [m["body"] for m in ann.get(f"{chat}/messages").json()][-1] == "before", "reads go on"
    finally:
        server.start()
    eventually(lambda: ann.post(f"{chat}/messages", json={"body": "after"}).status_code == 200, 30)
    ann.close()
