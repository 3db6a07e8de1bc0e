"""When requests are due, which users send them, and what they ask for."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.loadtest.coordinator import Options
from hubbub.loadtest.mix import (
    CHATS,
    DELETE,
    EDIT,
    HISTORY,
    MESSAGES,
    READS,
    SEARCH,
    SEND,
    WRITES,
    BadMix,
    BadSize,
    parse_mix,
    parse_size,
    pattern,
    weight_of,
)
from hubbub.loadtest.plan import READ, WRITE, Plan, Schedule, Turns
from hubbub.loadtest.profile import BadStages, Profile, Stage, parse_stages, spike, steady
from hubbub.loadtest.scenario import Scenario, Texts, VirtualUser, Workload


@settings(deadline=None)
@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(1, 300))
def test_the_schedule_has_the_right_mix_for_every_worker(writes: int, reads: int, workers: int) -> None:
    if writes + reads == 0:
        return
    schedule = Schedule(Plan(writes, reads, workers, steady(1)))
    assert schedule.total == writes + reads
    turns = 60
    for worker in range(0, workers, 7):
        own = Turns(schedule, worker)
        requests = [(own.next_kind(), own.due) for _ in range(turns)]
        kinds = [kind for kind, _ in requests]
        assert abs(kinds.count(WRITE) - turns * writes / (writes + reads)) <= 1
        assert set(kinds) <= {WRITE, READ}
        assert requests[1][1] == pytest.approx((workers + worker) / (writes + reads))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 6), st.floats(0, 12), st.integers(1, 90))
def test_several_generators_send_each_request_of_the_run_once(
    workers: int, count: int, second: float, rate: int
) -> None:
    count = min(count, workers)
    plan = Plan(rate, 2 * rate, workers, (Stage(4, 0, 1), Stage(4, 1, 1), Stage(2, 3, 0)))
    whole = Schedule(plan)
    parts = [Schedule(plan, index, count) for index in range(count)]
    assert sum(part.due_by(second) for part in parts) == whole.due_by(second)
    sent = []
    for part in parts:
        sent += _first(part, part.due_by(10))
    assert sorted(sent) == sorted(_first(whole, whole.due_by(10)))


def _first(schedule: Schedule, count: int) -> list[tuple[int, float]]:
    """Return the kinds of the first requests, and when they are due."""
    workers = [Turns(schedule, worker) for worker in range(schedule.mine)]
    turns = (workers[number % schedule.mine] for number in range(count))
    return [(kind, round(each.due, 9)) for each in turns for kind in (each.next_kind(),)]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 5), st.integers(1, 90), st.booleans())
def test_the_requests_of_a_worker_are_due_when_the_profile_says_so(workers: int, rate: int, shuffled: bool) -> None:
    shape = (Stage(4, 0, 1), Stage(4, 1, 1), Stage(1, 0, 0), Stage(2, 3, 0), Stage(3, 2, 2))
    plan = Plan(rate, 2 * rate, workers, shape)
    profile = Profile(shape, 3 * rate)
    schedule = Schedule(plan, start=7)
    own = [Turns(schedule, worker) for worker in range(workers)]
    numbers = list(range(schedule.total))
    if shuffled:  # a worker may be behind, in an earlier stage
        numbers.sort(key=lambda number: (number % workers, number))
    for number in numbers:
        own[number % workers].next_kind()
        assert own[number % workers].due == pytest.approx(7 + profile.due(number))


stages = st.lists(st.builds(Stage, st.floats(0.5, 20), st.floats(0, 3), st.floats(0, 3)), min_size=1, max_size=5).map(
    tuple
)


@settings(deadline=None)
@given(stages, st.floats(1, 5000), st.floats(0, 1))
def test_when_a_request_is_due_and_how_many_are_due_agree(shape: tuple[Stage, ...], rate: float, at: float) -> None:
    profile = Profile(shape, rate)
    number = profile.count * at
    if not 1e-6 < number < profile.count - 1e-6:
        return
    assert profile.due_by(profile.due(number)) == pytest.approx(number, rel=1e-6, abs=1e-6)
    assert profile.due_by(profile.seconds) == pytest.approx(profile.count)


def test_shapes_of_load() -> None:
    assert parse_stages("30s:50%, 10:50%-200%") == (Stage(30, 0.5, 0.5), Stage(10, 0.5, 2.0))
    tall = Profile(spike(100, 3), 10)
    assert tall.due_by(40) == 400
    assert tall.due_by(60) == 1000
    assert tall.count == 1400
    rising = Profile((Stage(10, 0, 1),), 100)
    assert rising.due_by(5) == 125  # the first half has a quarter of the load
    for wrong in ("", "30s", "30s:x%", "0s:100%", "10s:0%"):
        with pytest.raises(BadStages):
            parse_stages(wrong)


def test_a_mix_is_sent_by_its_weights_and_evenly() -> None:
    mix = parse_mix("send=6, edit=3,delete=1")
    turns = pattern(mix, WRITES)
    assert Counter(turns) == {SEND: 6, EDIT: 3, DELETE: 1}
    assert all(turns[place : place + 4].count(SEND) >= 2 for place in range(7))
    assert pattern(mix, READS) == []
    for wrong in ("send", "nothing=1", "send=x", "send=-1", "send=99999"):
        with pytest.raises(BadMix):
            parse_mix(wrong)


def test_the_mattermost_mix_has_the_frequencies_of_real_users() -> None:
    mix = parse_mix("mattermost")
    writes, reads = Counter(pattern(mix, WRITES)), Counter(pattern(mix, READS))
    for turns, kind, frequencies in (
        (writes, WRITES, {EDIT: 0.04, DELETE: 0.005}),
        (reads, READS, {CHATS: 6.5, MESSAGES: 6.5, HISTORY: 2, SEARCH: 0.03}),
    ):
        for route, frequency in frequencies.items():
            assert turns[route] / turns.total() == pytest.approx(frequency * mix["send"] / weight_of(mix, kind))


def test_message_sizes_follow_their_distribution() -> None:
    rng = random.Random(1)
    assert {parse_size("76").draw(rng) for _ in range(20)} == {76}
    assert {parse_size("2-4").draw(rng) for _ in range(200)} == {2, 3, 4}
    skewed = sorted(parse_size("lognormal:80:1.5").draw(rng) for _ in range(2001))
    assert 65 < skewed[1000] < 98
    assert skewed[-1] > 1000
    assert skewed[-1] <= 10_000
    for wrong in ("0", "x", "10-5", "20000", "lognormal:80", "lognormal:0:1"):
        with pytest.raises(BadSize):
            parse_size(wrong)


def scenario(*, seed: int = 1, mix: str = "send=1,messages=1", note: int = 0, chats: int = 1, zipf: float = 0,
             size: str = "10-200") -> Scenario:  # fmt: skip
    workload = Workload(parse_mix(mix), parse_size(size), zipf, seed, "r", note)
    user = VirtualUser("auth_token=t", "T", tuple(range(1, chats + 1)))
    return Scenario("http://h:1/base", user, workload, Texts(workload), 3)


def test_a_seed_repeats_a_run_and_another_does_not() -> None:
    def sent(each: Scenario) -> list[bytes]:
        return [each.write() for _ in range(50)] + [each.read() for _ in range(50)]

    assert sent(scenario(seed=7, chats=5)) == sent(scenario(seed=7, chats=5))
    assert sent(scenario(seed=7, chats=5)) != sent(scenario(seed=8, chats=5))


def test_hot_chats_get_their_share_of_zipfs_law() -> None:
    writer = scenario(chats=10, zipf=1.0)
    sent = Counter(writer.write().split(b"/messages", 1)[0].rsplit(b"/", 1)[1] for _ in range(20_000))
    harmonic = sum(1 / rank for rank in range(1, 11))
    for rank in range(1, 11):
        assert sent[str(rank).encode()] / 20_000 == pytest.approx(1 / rank / harmonic, abs=0.02)


def test_requests_say_their_length_and_keep_the_base_path() -> None:
    writer = scenario(note=1)
    for _ in range(100):
        head, body = writer.write().split(b"\r\n\r\n", 1)
        assert head.startswith(b"POST /base/api/v1/applications/T/chats/1/messages HTTP/1.1")
        assert head.endswith(b"Content-Length: %d" % len(body))


@pytest.mark.parametrize(
    ("mix", "kind", "body", "why"),
    [
        ("send=1", "write", b'{"messageNumber":5}', None),
        ("send=1", "write", b'{"messageNumber":0}', "not above"),
        ("send=1", "write", b'{"message":"ok"}', "another body"),
        ("chats=1", "read", b'[{"chatNumber":1}]', None),
        ("chats=1", "read", b"[]", "another body"),
        ("messages=1", "read", b"[]", None),
        ("messages=1", "read", b'{"error":"x"}', "another body"),
        ("search=1", "read", b"[]", None),
        ("history=1", "read", b"{}", "another body"),
    ],
)
def test_an_answer_is_judged_by_what_was_asked(mix: str, kind: str, body: bytes, why: str | None) -> None:
    asker = scenario(mix=mix)
    _ = asker.write() if kind == "write" else asker.read()
    wrong = asker.wrong(200, body)
    assert (wrong is None) if why is None else (wrong is not None and why in wrong)


def test_a_list_that_lacks_an_acknowledged_message_is_a_failure() -> None:
    asker = scenario()
    asker.write()
    assert asker.wrong(200, b'{"messageNumber":8}') is None
    asker.read()
    assert asker.wrong(200, b'[{"messageNumber":9}]') is None  # a later message of another user
    assert asker.wrong(200, b'[{"messageNumber":7}]') == "a list without an acknowledged message"
    assert asker.wrong(503, b"") == "status 503"


def test_a_long_run_notes_one_of_several_messages_and_edits_only_those() -> None:
    options = Options(5000, 0, 100, steady(3600), {"send": 1}, parse_size("76"), verify=True)
    assert options.note == 10  # 18 million messages, two million notes
    assert Options(5000, 10000, 100, steady(30), {"send": 1}, parse_size("76"), verify=True).note == 1
    writer = scenario(mix="send=4,edit=1,delete=1", note=10)
    assert writer.ledger is not None
    number, sent = 0, 0
    for _ in range(600):
        request = writer.write()
        marked = b'"body":"r.3.' in request
        if writer.route == SEND:
            number, sent = number + 1, sent + 1
            assert marked is (sent % 10 == 1)
            assert writer.wrong(200, b'{"messageNumber":%d}' % number) is None
        else:
            assert marked is (writer.route == EDIT)
            assert writer._target in writer.ledger.chats[0].texts
            assert writer.wrong(200 if writer.route == EDIT else 204, b"") is None
    assert len(writer.ledger.chats[0].texts) == -(-sent // 10)
    assert not writer.ledger.chats[0].unsure_edits
