"""The figures and the text that come of known requests."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.loadtest.plan import READ, WRITE, Plan, Schedule
from hubbub.loadtest.recorder import Recorder
from hubbub.loadtest.report import as_json, progress, report
from hubbub.loadtest.verdict import Result, Usage, side
from hubbub.loadtest.wire import BadResponse, parse

EXPECTED = Path(__file__).parent / "expected_report.txt"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(1, 60_000_000), min_size=1, max_size=300),
    st.sampled_from([0.5, 25, 50, 90, 95, 99, 99.9, 100]),
)
def test_percentiles_are_those_of_the_sorted_list(latencies: list[int], percent: float) -> None:
    recorder = Recorder()
    for latency in latencies:
        recorder.record(latency)
    exact = sorted(latencies)[math.ceil(percent * len(latencies) / 100) - 1] / 1000
    # Three digits: a bucket is at most a thousandth of its value wide.
    assert exact * 0.999 - 0.001 <= recorder.percentile(percent) <= exact * 1.001 + 0.001
    assert recorder.latency().avg == pytest.approx(sum(latencies) / len(latencies) / 1000)
    assert recorder.latency().max == max(latencies) / 1000


@settings(deadline=None)
@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(1, 300))
def test_the_schedule_has_the_right_mix_for_every_worker(writes: int, reads: int, workers: int) -> None:
    if writes + reads == 0:
        return
    schedule = Schedule(Plan(writes, reads, 1, workers), 1)
    assert schedule.total == writes + reads
    turns = 60
    for worker in range(0, workers, 7):
        kinds = [schedule.kind(worker + turn * workers) for turn in range(turns)]
        assert abs(kinds.count(WRITE) - turns * writes / (writes + reads)) <= 1
        assert set(kinds) <= {WRITE, READ}
    assert schedule.due(schedule.total) == 1


def result(*, failed: int = 0, fast: int = 5000) -> Result:
    writes, reads = Recorder(), Recorder()
    for number in range(1, 101):
        writes.record(number * 1000)
    for _ in range(failed):
        writes.fail("status 503")
    writes.late, writes.unsent = 2, 3
    for _ in range(200):
        reads.record(fast)
    plan = Plan(10, 20, 10, 4)
    parts = {"Service": Usage(0.5, 10**8)}
    return Result(plan, 10.0, side(10, writes, 10.0), side(20, reads, 10.0), Usage(0.25, 50_000_000), parts)


def test_the_report_is_the_contracts() -> None:
    assert report(result(failed=4)) + "\n" == EXPECTED.read_text()


def test_the_json_has_what_scripts_rely_on() -> None:
    content = as_json(result(failed=4))
    assert content["target"] == {"writes": 10, "reads": 20}
    assert content["duration_s"] == 10.0
    writes = content["writes"]
    assert (writes["total"], writes["failed"], writes["throughput"], writes["pass"]) == (104, 4, 10.4, True)
    assert writes["success_rate"] == pytest.approx(100 / 104)
    assert set(writes["latency_ms"]) == {"avg", "p50", "p95", "p99", "max"}
    assert content["pass"] is True
    assert content["parts"] == {"Service": {"cores": 0.5, "peak_bytes": 10**8}}


def test_pass_needs_throughput_and_success() -> None:
    assert result(failed=5).passed  # 100 of 105 is 95.2 %
    assert not result(failed=6).passed  # 100 of 106 is 94.3 %
    few = Recorder()
    for _ in range(49):
        few.record(1)
    assert not side(10, few, 10.0).passed  # 49 % of the target
    few.record(1)
    assert side(10, few, 10.0).passed


def test_the_progress_line() -> None:
    line = progress(5.0, 12453, 24987, 2490.4, 4997.0)
    assert line == "[5s] Writes: 12453 (2490/s) | Reads: 24987 (4997/s)"


def test_responses_are_found_in_any_cut_of_the_stream() -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-LENGTH: 4\r\n\r\nbody"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    for message, body in ((whole, b"body"), (chunked, b"abcde")):
        for cut in range(len(message)):
            assert parse(message[:cut]) is None
        response = parse(message + b"HTTP/1.1 500")
        assert response is not None
        assert (response.status, response.body, response.end) == (200, body, len(message))
    for wrong in (b"SSH-2.0\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"):
        with pytest.raises(BadResponse):
            parse(wrong)
