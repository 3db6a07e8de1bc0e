"""Faults in a cluster while people write: nothing acknowledged is lost, and no number is repeated.

Every fault has its own users. Their messages must be in the database after it, and again at the end of its group,
after Redis was emptied and every process restarted. `--fault-rounds` runs each fault at least 20 times. Without it, the
seed chooses one quick fault of each group, and also a slow one where most are slow. With `-s` each fault prints a line
when it is over.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from hubbub.loadtest.cluster import ClusterStack
from hubbub.loadtest.process import StackFailed
from hubbub.loadtest.servers import ServerFailed
from tests.cluster import truth
from tests.cluster.conftest import COLUMNS, rows
from tests.cluster.faults import FAULTS, GROUPS, Fault, Field
from tests.cluster.traffic import Problem, Traffic, Verdict
from tests.conftest import Person, eventually
from tests.servers import need_servers

_LEAST_ROUNDS = 20
_FEW = 1


@pytest.fixture(scope="module")
def field(request: pytest.FixtureRequest) -> Iterator[Field]:
    need_servers()
    source = request.config.getoption("--fault-source")
    with Field(0, settings={"PYTHONPATH": source} if source else None) as field:
        yield field


@pytest.fixture
def stack(field: Field) -> ClusterStack:
    return field.stack


def _chosen(group: str, config: pytest.Config, rng: random.Random) -> list[Fault]:
    """Return the faults of the group to run, in order."""
    named = config.getoption("--fault")
    if unknown := set(named or ()) - {fault.name for fault in FAULTS}:
        pytest.fail(f"there is no fault named {', '.join(sorted(unknown))}: see tests/cluster/faults.py", pytrace=False)
    every = [fault for fault in FAULTS if fault.group == group and (not named or fault.name in named)]
    rounds = config.getoption("--fault-rounds")
    if rounds is not None:
        return [fault for _ in range(max(_LEAST_ROUNDS, rounds // 15)) for fault in rng.sample(every, len(every))]
    if named:
        return every
    quick = [fault for fault in every if not fault.slow]
    slow = [fault for fault in every if fault.slow]
    return [*rng.sample(quick, min(_FEW, len(quick))), *rng.sample(slow, len(slow) > len(quick))]


class Run:
    """One run of one fault."""

    def __init__(self, field: Field, fault: Fault, seed: int) -> None:
        self.fault = fault
        self.verdict = Verdict()
        self._field = field
        field.rng.seed(seed)
        self._traffic = Traffic([part.url for part in field.stack.apis], seed=seed)

    def go(self) -> None:
        field, traffic, verdict = self._field, self._traffic, self.verdict
        ended = field.ended
        field.chats = traffic.chats
        try:
            with traffic:
                traffic.wait_for(60)
                self.fault.do(field)
                repaired = time.monotonic()
                field.ready()
                traffic.wait_for(50, 90)
                verdict.seconds = time.monotonic() - repaired
        except (AssertionError, StackFailed, ServerFailed) as error:
            verdict.add([Problem("errors", f"it did not come back: {str(error).splitlines()[0]}")])
            field.fix()
        record = traffic.record
        verdict.acknowledged, verdict.refused, verdict.errors = record.acknowledged, record.refused, record.errors
        verdict.ended = field.ended - ended
        verdict.add(traffic.problems())
        self._look(field.stack)
        if self.fault.planned and (record.refused or record.errors):
            verdict.add([Problem("refused", f"{record.refused} 503s and {record.errors} errors in planned work")])
        if record.lagging and not self.fault.redis:
            verdict.add([Problem("lag", f"{record.lagging} reads lagged though Redis has lost nothing")])
        traffic.close()

    def _look(self, stack: ClusterStack) -> None:
        try:
            found = self._traffic.settled(stack) or self._traffic.shown(stack)
        except AssertionError as error:
            found = [Problem("lost", str(error).splitlines()[0])]
            self._field.fix()  # otherwise a stopped shard would fail the next fault too
        self.verdict.add([problem for problem in found if problem.kind != "cut off" or self.fault.planned])

    @property
    def line(self) -> str:
        figures = " | ".join(str(figure) for figure in self.verdict.figures)
        return f"| {self.fault.name} | {figures} | {self.verdict.seconds:.1f} | {'; '.join(self.verdict.examples)}"

    def look_again(self, stack: ClusterStack) -> None:
        """Check again after everything that could hide a loss is gone, unless something was broken before."""
        if not self.verdict.broken:
            self._look(stack)


@pytest.mark.parametrize("group", GROUPS)
def test_nothing_acknowledged_is_lost(
    field: Field, group: str, fault_seed: int, request: pytest.FixtureRequest
) -> None:
    rng = random.Random(fault_seed)
    faults = _chosen(group, request.config, rng)
    if not faults:
        pytest.skip(f"none of the faults named with --fault is of the group {group!r}")
    runs = []
    for fault in faults:
        runs.append(Run(field, fault, rng.randrange(2**32)))
        runs[-1].go()
        print(runs[-1].line, flush=True)
    truth.bare(field.stack)
    table = request.config.stash.setdefault(rows, {})
    broken = []
    for run in runs:
        run.look_again(field.stack)
        figures = table.setdefault(run.fault.name, [0] * len(COLUMNS))
        seconds = max(figures[-1], round(run.verdict.seconds, 1))
        figures[:] = [a + b for a, b in zip(figures, [1, *run.verdict.figures, 0], strict=True)]
        figures[-1] = seconds
        if run.verdict.broken:
            broken.append(f"{run.fault.name}: {dict(run.verdict.broken)} {run.verdict.examples}")
    if broken:
        pytest.fail(f"seed {fault_seed}:\n" + "\n".join(broken), pytrace=False)


def test_posts_to_a_blocked_broker_get_503_until_it_recovers(stack: ClusterStack) -> None:
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
def test_posts_get_503_at_once_while_a_server_is_away(stack: ClusterStack, part: str) -> None:
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
