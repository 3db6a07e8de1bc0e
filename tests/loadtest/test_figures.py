"""Known requests give the right figures and text."""

from __future__ import annotations

import math
from array import array
from html import escape
from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.loadtest import command
from hubbub.loadtest.about import about
from hubbub.loadtest.gauges import Served
from hubbub.loadtest.http_protocol import BadResponse, parse
from hubbub.loadtest.mix import CHATS, EDIT, MESSAGES, SEND
from hubbub.loadtest.page import page
from hubbub.loadtest.plan import Plan
from hubbub.loadtest.profile import Stage, steady
from hubbub.loadtest.recorder import DIGITS, LONGEST_US, Histogram, _bucket
from hubbub.loadtest.report import as_json, behind, notes, progress, report
from hubbub.loadtest.requirement import BadRequirement, Requirement
from hubbub.loadtest.run import Run
from hubbub.loadtest.summary import Answers, Late, SecondSummary
from hubbub.loadtest.verdict import Result, Usage, result, rule, verdict

EXPECTED = Path(__file__).parent / "expected_report.txt"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(1, 60_000_000), min_size=1, max_size=300),
    st.sampled_from([0.5, 25, 50, 90, 95, 99, 99.9, 100]),
    st.integers(0, 300),
)
def test_percentiles_are_those_of_the_sorted_list(latencies: list[int], percent: float, cut: int) -> None:
    histogram, merged = Histogram(), Histogram()
    for part in (latencies[:cut], latencies[cut:]):  # as if from two generators, and of two routes
        histogram.add(part)
        of_route = Histogram()
        of_route.add(part)
        merged.merge(of_route)
    assert (merged.latency(), merged.percentile(percent)) == (histogram.latency(), histogram.percentile(percent))
    exact = sorted(latencies)[math.ceil(percent * len(latencies) / 100) - 1] / 1000
    # Figures have three digits, as a bucket is at most a thousandth of its value wide.
    assert exact * 0.999 - 0.001 <= histogram.percentile(percent) <= exact * 1.001 + 0.001
    assert histogram.latency().avg == pytest.approx(sum(latencies) / len(latencies) / 1000)
    assert histogram.latency().max == max(latencies) / 1000


@given(st.integers(1, LONGEST_US))
def test_latencies_are_recorded_by_the_buckets_of_the_histogram(latency_us: int) -> None:
    assert _bucket(latency_us) == HdrHistogram(1, LONGEST_US, DIGITS).get_lowest_equivalent_value(latency_us)


def test_the_spectrum_rises_and_ends_where_the_count_ends() -> None:
    histogram = Histogram()
    histogram.add(list(range(1, 10_001)))
    spectrum = histogram.spectrum()
    assert spectrum[0][0] == 0
    assert [percent for percent, _ in spectrum] == sorted(percent for percent, _ in spectrum)
    assert [ms for _, ms in spectrum] == sorted(ms for _, ms in spectrum)
    assert 99.98 < spectrum[-1][0] < 100


def answers(latencies: list[int], failures: dict[str, int] | None = None, served: int | None = None) -> Answers:
    services = [served] * len(latencies) if served else latencies
    return Answers(array("I", latencies).tobytes(), array("I", services).tobytes(), failures or {})


def second(
    index: int = 0,
    routes: dict[int, Answers] | None = None,
    *,
    late: tuple[Late, Late] = ((0, 0, 0), (0, 0, 0)),
    waiting: int = 0,
    cpu_s: float = 0.25,
) -> SecondSummary:
    return SecondSummary(index, routes or {}, late, waiting, 2.0, cpu_s, 1.0)


def a_run(*seconds: SecondSummary, writes: int = 10, reads: int = 20, took: float = 10.0) -> Run:
    run = Run(Plan(writes, reads, 4, steady(10)), 0.0, took_s=took, peak_bytes=50_000_000)
    for each in seconds:
        run.add([each])
    return run


def judged(run: Run, *requirements: str) -> Result:
    checks = [Requirement(text).check(run) for text in requirements]
    return result(run, parts={"Service": Usage(0.5, 10**8)}, samples=[], checks=checks)


def usual(*, failed: int = 0, waiting: int = 0) -> Run:
    writes = answers([number * 1000 for number in range(1, 101)], {"status 503": failed} if failed else None, 500)
    run = a_run(
        second(0, {SEND: writes}, late=((0, 0, 2), (0, 0, 0)), waiting=waiting),
        second(1, {CHATS: answers([5000] * 100), MESSAGES: answers([5000] * 100)}),
    )
    run.sides[0].unsent = 3
    return run


def test_the_report_matches_the_contract() -> None:
    shown = report(judged(usual(failed=4), "writes.p99<100ms", "reads.throughput>=101%"))
    assert shown + "\n" == EXPECTED.read_text()


def test_the_json_has_what_scripts_rely_on() -> None:
    content = as_json(judged(usual(failed=4)), {"seed": 1})
    assert content["target"] == {"writes": 10, "reads": 20}
    assert content["duration_s"] == 10.0
    writes = content["writes"]
    assert (writes["total"], writes["failed"], writes["throughput"], writes["pass"]) == (104, 4, 10.4, True)
    assert writes["success_rate"] == pytest.approx(100 / 104)
    assert set(writes["latency_ms"]) == {"avg", "p50", "p95", "p99", "max"}
    assert writes["uncorrected_ms"]["max"] == 0.5
    assert content["pass"] is True
    assert content["parts"] == {"Service": {"cores": 0.5, "peak_bytes": 10**8}}
    assert [each["writes"]["total"] for each in content["seconds"]] == [104, 0]


def fast(count: int, *, failed: int = 0, ms: float = 1) -> Result:
    """Return a run of ten seconds with this many writes and a target of ten a second."""
    routes = {SEND: answers([round(ms * 1000)] * count, {"status 503": failed} if failed else None)}
    return judged(a_run(second(0, routes), reads=0))


@pytest.mark.parametrize(
    ("results", "result", "goals", "text"),
    [
        ([fast(100)], "pass", "kept", "PASS (held 100 %, needs 50 %); latency goals kept"),
        ([fast(75, ms=60)], "pass", "missed", "PASS (held 75 %, needs 50 %); latency goals missed"),
        ([fast(49)], "fail", "kept", "FAIL (held 49 %, needs 50 %); latency goals kept"),
        (
            [fast(90, failed=9)],
            "fail",
            "kept",
            "FAIL (held 99 %, needs 50 %; writes success 90.9 %, needs over 95 %); latency goals kept",
        ),
        (
            [fast(0)],
            "fail",
            "missed",
            "FAIL (held 0 %, needs 50 %; writes success 0 %, needs over 95 %); latency goals missed",
        ),
        (
            [fast(100), fast(80, ms=60), fast(90)],
            "pass",
            "missed",
            "3 of 3 runs passed; the worst: PASS (held 80 %, needs 50 %); latency goals missed",
        ),
        (
            [fast(100), fast(40), fast(90, ms=60)],
            "fail",
            "kept",
            "2 of 3 runs passed; the worst: FAIL (held 40 %, needs 50 %); latency goals kept",
        ),
    ],
)
def test_the_verdict_says_what_was_held(results: list[Result], result: str, goals: str, text: str) -> None:
    judged = verdict(results)
    assert (judged.result, judged.latency_goals, judged.text) == (result, goals, text)
    assert (judged.result == "pass") is all(each.passed for each in results)


@pytest.mark.parametrize(
    ("shown", "ink", "mark"),
    [
        (fast(100), 32, "✓ Passed<"),
        (fast(75, ms=60), 33, "✓ Passed, latency goals missed<"),
        (fast(9), 31, "✗ Failed<"),
    ],
)
def test_a_pass_that_missed_its_latency_goals_is_amber(
    shown: Result, ink: int, mark: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("click.utils.should_strip_ansi", lambda *_: False)
    command._show([shown], shown, verdict([shown]), about())
    text = verdict([shown]).text
    assert f"\x1b[{ink}m{text}\x1b[0m\n" in capsys.readouterr().out
    html = page(as_json(shown, {"url": "http://x", "stages": []}, about()) | {"runs": []}, Plan(10, 0, 4, steady(10)))
    assert mark in html
    assert f"{text}.</strong> {escape(rule())}" in html
    assert ('class="verdict short"' in html) is (ink == 33)
    assert about().machine.cpu in html


def test_the_verdict_names_the_goals_and_all_that_failed() -> None:
    found = as_json(judged(usual(failed=4), "writes.p99<100ms", "reads.throughput>=101%"), {})["verdict"]
    assert found == {
        "result": "fail",
        "held": 1.0,
        "needed": 0.5,
        "latency_goals": "missed",
        "missed": ["writes.p95<50ms"],
        "text": "FAIL (held 100 %, needs 50 %; 1 of 2 requirements missed); latency goals missed",
    }


def test_a_value_just_below_the_need_is_not_rounded_up() -> None:
    assert "held 49.9 %" in verdict([judged(a_run(second(0, {SEND: answers([1] * 4999)}), writes=1000, reads=0))]).text


def test_late_requests_are_reported_by_reason() -> None:
    assert notes(judged(usual())) == [
        "Sent late: 2, of them 0 with no free connection (try more --workers), 0 because of the generator's own CPU, "
        "2 because of the server."
    ]
    assert as_json(judged(usual()), {})["writes"]["late_by"] == {"connection": 0, "generator": 0, "server": 2}


def test_the_services_own_latency_is_shown_beside_the_clients() -> None:
    def with_served(count: int) -> Result:
        served = Served(count=count, avg=0.2, p50=0.1, p95=0.4, p99=0.5, spectrum=[])
        return result(usual(), parts={}, samples=[], checks=[], served=(served, None), metrics_unusable=None)

    shown = notes(with_served(100))[1]
    assert shown == (
        "Writes as the service measured them: Avg 0.2ms, P50 0.1ms, P99 0.5ms; "
        "the gap to the client's Avg is 0.3ms from sent, and 50.0ms more from due."
    )
    assert as_json(with_served(100), {})["writes"]["gap_ms"] == pytest.approx(0.3)
    assert (
        "of 30, where the test had 100: too far apart" in notes(with_served(30))[1]
    )  # figures of one process of several
    assert as_json(with_served(30), {})["writes"]["gap_ms"] is None


def test_pass_needs_throughput_and_success() -> None:
    assert judged(usual(failed=5)).passed  # 100 of 105 is 95.2 %
    assert not judged(usual(failed=6)).passed  # 100 of 106 is 94.3 %
    few = a_run(second(0, {SEND: answers([1] * 49)}), reads=0)
    assert not judged(few).passed  # 49 % of the target
    enough = a_run(second(0, {SEND: answers([1] * 50)}), reads=0)
    assert judged(enough).passed


def test_a_generator_that_was_the_limit_gives_no_pass() -> None:
    lagging = a_run(second(0, {SEND: answers([1] * 100), CHATS: answers([1] * 200)}, late=((0, 2, 0), (0, 4, 0))))
    shown = judged(lagging)
    assert not shown.passed
    assert "PASS" not in report(shown)
    assert "The load generator was the limit" in report(shown)
    # A busy core alone does not make it the limit if everything was sent in time.
    busy = a_run(second(0, {SEND: answers([1] * 100), CHATS: answers([1] * 200)}, cpu_s=0.99))
    assert judged(busy).passed
    behind_too = a_run(
        second(0, {SEND: answers([1] * 100), CHATS: answers([1] * 200)}, cpu_s=0.99, late=((50, 0, 0), (0, 0, 0)))
    )
    assert not judged(behind_too).passed


@pytest.mark.parametrize(
    ("requirement", "holds"),
    [
        ("writes.p99<100ms", True),
        ("writes.p99<99ms", False),
        ("writes.p99.9<=0.1s", True),
        ("writes.max<=100000us", True),
        ("send.avg>50ms", True),
        ("reads.throughput>=100%", True),
        ("reads.throughput>=20/s", True),
        ("writes.throughput>10.4", False),
        ("writes.success>96%", True),
        ("writes.failed<=3", False),
        ("writes.late<2%", True),
        ("writes.unsent<=3", True),
        ("edit.p99<1s", False),  # nothing was edited, so nothing is proved
    ],
)
def test_requirements_are_checked_against_the_measurements(requirement: str, holds: bool) -> None:
    check = judged(usual(failed=4), requirement).checks[0]
    assert check.held is holds, check
    assert judged(usual(failed=4), requirement).passed is holds


@pytest.mark.parametrize(
    "text",
    [
        "p99<1ms",
        "writes.p99<100",
        "writes.p99<5%",
        "x.p99<1ms",
        "writes.nonsense<1",
        "",
        "writes.success>1ms",
        "edit.throughput>50%",
    ],
)
def test_a_bad_requirement_says_how_to_write_it(text: str) -> None:
    with pytest.raises(BadRequirement, match=r"write SUBJECT|the subject is|is given in"):
        Requirement(text)


def test_the_progress_line() -> None:
    line = progress(5.0, 12453, 24987, 2490.4, 4997.0)
    assert line == "[5s] Writes: 12453 (2490/s) | Reads: 24987 (4997/s)"


def test_only_lateness_is_reported() -> None:
    run = usual(waiting=7)
    assert behind(run.moments[:1]) == "     sent late: 2/s, due and not yet sent: 7"
    assert behind(run.moments[1:]) is None


def test_the_target_of_a_run_in_stages_is_their_mean() -> None:
    plan = Plan(100, 200, 4, (Stage(10, 0, 1), Stage(10, 2, 2)))
    assert plan.targets == (125, 250)


def test_routes_are_shown_when_there_are_more_than_the_usual() -> None:
    run = a_run(second(0, {SEND: answers([1000] * 100), EDIT: answers([2000]), CHATS: answers([1] * 200)}))
    assert "edit" in report(judged(run))
    assert "Route" not in report(judged(usual()))


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
