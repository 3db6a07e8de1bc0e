"""With all rules of docs/decisions/0007-cluster-protocol.md every promise is kept, and without most of them one is not.

``HUBBUB_MODEL_SCHEDULES`` sets the number of schedules, ``--fault-seed`` the first seed, which is printed.
To see what happens in one of them: ``python -m tests.model SEED``.
"""

from __future__ import annotations

import os
import time
from dataclasses import fields, replace

import pytest

from tests.model.hunt import find, summary
from tests.model.profiles import named
from tests.model.rules import ALL, Rules
from tests.model.schedule import run, run_seed
from tests.model.shrink import Recorder, explain, shrunk

SCHEDULES = int(os.environ.get("HUBBUB_MODEL_SCHEDULES", "100000"))


def test_the_rules_hold(fault_seed: int) -> None:
    begun = time.monotonic()
    found = summary(fault_seed, SCHEDULES)
    took = time.monotonic() - begun
    print(f"\nseeds from {fault_seed}: {took:.0f} s, {SCHEDULES / took:.0f} schedules a second")
    print(", ".join(f"{count:,} {what}" for what, count in found.counts.items()))
    print("\n".join(f"{count:9,} {what}" for what, count in found.faults.most_common()))
    for seed, _ in found.broken[:2]:
        print(explain(seed, ALL))
    assert found.broken == []


# The rule; the fields to turn off; the profiles to run; the highest number of schedules; the violation, if it is always
# the same; and the schedule that found it last.
WITHOUT = [
    ("1 order", "told_in_order", "publishers", 3000, None, 41),
    ("1 order", "lower_is_skipped", "resets", 3000, None, 106),
    ("1 order", "channel_is_closed", "writers", 6000, None, 5409),
    ("2 doubt", "new_name", "publishers", 300, None, 0),
    ("3 epochs", "data_set", "two redises", 300, None, 2),
    ("3 epochs", "number_names_set", "two redises, generations", 600, None, 1),
    ("3 epochs", "generation", "two redises", 600, None, 2),
    ("3 epochs", "lease", "slow news of generations", 1000, None, 126),
    ("3 epochs", "only_prolongs", "generations and outages", 3000, None, 218),
    ("3 epochs", "reads_are_vouched", "two redises, generations", 1000, "a read lacks an acknowledged message", 16),
    ("4 late words", "gone_stays_gone", "keys", 2000, "a deleted message comes back", 31),
    ("4 late words", "newer_stays", "changes", 4000, None, 1609),
    ("4 late words", "notes_are_needed", "deletes while edits are under way", 3000, None, 244),
    ("4 late words", "note_only_makes", "changes", 3000, "a read shows an old text", 24),
    ("4 late words", "floor_moves_beside", "changes, publishers", 4000, None, 2393),
    ("5 one order", "one_order", "changes", 1000, "an acknowledged edit is lost", 23),
    ("5 one order", "delete_is_final", "changes", 2000, None, 48),
    ("5 one order", "order_then_read", "deletes while edits are under way", 3000, "a deleted message comes back", 233),
    ("5 one order", "order_names_epoch older_changes_aside", "late changes", 4000, "an acknowledged edit is lost", 505),
    ("6 opening", "announced", "openings", 2000, None, 56),
    ("6 opening", "marker_names_set", "generations, two redises", 4000, None, 3268),
    ("6 opening", "marker_of_newest", "old markers", 6000, "an acknowledged message is lost", 1928),
    ("6 opening", "two_steps", "openings", 3000, None, 280),
    ("6 opening", "other_ends_opening", "openings", 3000, None, 280),
    ("6 opening", "older_posts_aside", "openings", 4000, None, 139),
    ("7 keys and numbers", "place_first", "publishers", 300, "a refused post used up a number", 1),
    ("7 keys and numbers", "gives_back", "publishers", 600, "a refused post used up a number", 6),
    ("7 keys and numbers", "shared_is_kept", "keys", 2000, None, 198),
    ("7 keys and numbers", "key_is_kept", "keys", 3000, None, 383),
    ("7 keys and numbers", "look_expires", "keys of a lost Redis", 3000, None, 54),
    ("8 redis may answer anything", "error_is_refusal", "changes, redis", 2000, None, 120),
    ("9 the database may answer anything", "tries_again", "database", 600, None, 0),
    ("9 the database may answer anything", "bisects", "database", 600, None, 11),
    ("10 nothing dies silently", "dies_loudly", "redis", 600, "a shard stands still", 39),
]


@pytest.mark.parametrize(
    ("rule", "out", "profiles", "schedules", "kind", "last"), WITHOUT, ids=[row[1] for row in WITHOUT]
)
def test_a_promise_is_broken_without_a_rule(
    rule: str, out: str, profiles: str, schedules: int, kind: str | None, last: int
) -> None:
    rules = replace(ALL, **dict.fromkeys(out.split(), False))
    found = find(rules, named(profiles), schedules, kind, last)
    assert found is not None, f"Without rule {rule} ({out}) nothing is found in {schedules} schedules."
    print(f"\nwithout {out} (rule {rule}): {found.kind}, in schedule {found.seed}")


# Rules whose absence no schedule shows, because another rule helps as well, or shows too rarely to wait for.
ALONE_WITHOUT_EFFECT = {
    "only_the_next",  # a queue whose channels are closed delivers in order; see A1
    "older_changes_aside",  # a change's order names its epoch; both are turned off together above
    "order_names_epoch",
    "says_what_it_holds",  # one schedule in 30,000 of "slow news of generations" loses a message
    "waits_from_its_making",
    "pending_is_not_read",
    "look_names_epoch",
}


def test_every_rule_is_tested_or_listed() -> None:
    tried = {out for row in WITHOUT for out in row[1].split() if " " not in row[1]}
    assert tried | ALONE_WITHOUT_EFFECT == {field.name for field in fields(Rules)}
    assert not tried & ALONE_WITHOUT_EFFECT


# Errors that an audit found in the first design, and the rules that it lacked.
FIRST_DESIGN = [
    ("A1", "channel_is_closed only_the_next", "writers", 2000, "an acknowledged message is lost", 12),
    ("A6", "gone_stays_gone newer_stays", "changes", 4000, "a deleted message comes back", 187),
    ("A6", "gone_stays_gone newer_stays", "changes", 8000, "a read shows an old text", 5581),
    ("A8", "two_steps other_ends_opening", "openings", 4000, "a number is another message's", 2483),
    ("A9", "key_is_kept look_expires", "keys", 8000, "two numbers for one key", 21),
    ("H3", "gone_stays_gone", "keys", 2000, "a deleted message comes back", 31),
]


@pytest.mark.parametrize(
    ("name", "out", "profiles", "schedules", "kind", "last"),
    FIRST_DESIGN,
    ids=[f"{row[0]}-{row[4]}" for row in FIRST_DESIGN],
)
def test_the_first_design_breaks_as_the_audit_says(
    name: str, out: str, profiles: str, schedules: int, kind: str, last: int
) -> None:
    found = find(replace(ALL, **dict.fromkeys(out.split(), False)), named(profiles), schedules, kind, last)
    assert found is not None, f"{name} is not found in {schedules} schedules."
    print(f"\n{name}: {found.kind}, in schedule {found.seed}")


def test_a_seed_always_gives_the_same_schedule() -> None:
    traces: list[list[str]] = [[], []]
    for trace in traces:
        run_seed(5, ALL, trace=trace)
    assert traces[0] == traces[1]
    assert len(traces[0]) > 20


def test_a_failing_schedule_is_shrunk_and_explained() -> None:
    rules = replace(ALL, data_set=False)
    profiles = named("two redises")
    found = find(rules, profiles, 300)
    assert found is not None
    recorder = Recorder(found.seed)
    run(recorder, rules, profiles[0])
    small = shrunk(recorder.drawn, rules, profiles[0], found.kind, tries=400)
    assert sum(choice > 0 for choice in small) < sum(choice > 0 for choice in recorder.drawn) / 2
    explanation = explain(found.seed, rules, profiles)
    assert found.kind in explanation.splitlines()[-1]
