"""Profiles: how often each fault occurs, and what clients do. Each one looks for another kind of violation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """Probabilities that a step is a fault, that a call breaks, that a client's request is of a kind, and so on.

    ``strikes`` are methods of faults.Faults with their weights.
    """

    name: str
    strikes: tuple[tuple[str, int], ...]
    rate: float = 0.06
    calls: float = 0.02
    nacks: float = 0.0
    store_errors: float = 0.0
    faulty: float = 0.0
    steps: int = 110
    clients: int = 3
    requests: int = 4
    chats: int = 1
    posts: float = 0.45
    reads: float = 0.2
    gets: float = 0.1
    deletes: float = 0.1
    keyed: float = 0.25
    again: float = 0.3
    deletes_between: float = 0.2
    floor: float = 0.4
    pause_after: tuple[str, ...] = ()
    pauses: float = 0.0
    pause_ticks: int = 80
    lease: int = 50  # ticks: LEASE_S


PROFILES = (
    Profile("writers", (("hand_over", 3), ("crash_writer", 2), ("freeze_writer", 3), ("heartbeat", 2), ("reset", 1))),
    Profile(
        "publishers",
        (("doubt", 4), ("crash_api", 1), ("freeze_api", 2), ("abandon", 2), ("reset", 1), ("hand_over", 1)),
        nacks=0.12,
    ),
    Profile(
        "redis",
        (("flush", 3), ("kill_redis", 1), ("freeze_api", 3), ("freeze_writer", 3), ("crash_writer", 1), ("doubt", 2)),
        rate=0.05,
    ),
    Profile(
        "two redises",
        (("copy", 2), ("fail_over", 2), ("switch", 6), ("freeze_api", 2), ("kill_redis", 1), ("outage", 1)),
        steps=150,
        requests=5,
        rate=0.07,
        calls=0.005,
    ),
    Profile(
        "changes",
        (("freeze_api", 4), ("freeze_writer", 2), ("abandon", 2), ("crash_writer", 1), ("doubt", 1), ("flush", 1)),
        calls=0.04,
        posts=0.25,
        reads=0.25,
        gets=0.1,
        deletes=0.15,
        keyed=0.1,
    ),
    Profile(
        "keys",
        (("freeze_api", 4), ("abandon", 4), ("doubt", 2), ("crash_api", 1), ("flush", 1)),
        posts=0.7,
        reads=0.1,
        gets=0.05,
        keyed=0.9,
        again=0.6,
    ),
    Profile(
        "database",
        (("outage", 2), ("crash_writer", 1), ("hand_over", 1), ("freeze_writer", 1)),
        store_errors=0.15,
        faulty=0.1,
        calls=0.04,
    ),
    Profile(
        "resets",
        (("reset", 5), ("crash_writer", 1), ("hand_over", 1)),
        deletes=0.25,
        posts=0.5,
        reads=0.15,
        gets=0.05,
        keyed=0.0,
    ),
    Profile(
        "openings",
        (("flush", 4), ("freeze_api", 2), ("crash_writer", 1), ("doubt", 2)),
        rate=0.025,
        calls=0.005,
        pauses=0.2,
        pause_after=("number", "seed", "apply"),
        steps=160,
        clients=3,
        requests=6,
        posts=0.55,
        reads=0.2,
        keyed=0.0,
        deletes=0.15,
    ),
    Profile(
        "deletes while edits are under way",
        (("freeze_api", 1), ("freeze_writer", 1)),
        rate=0.01,
        calls=0.0,
        pause_after=("read", "row", "order"),
        pauses=0.2,
        steps=140,
        posts=0.2,
        reads=0.1,
        gets=0.1,
        deletes=0.3,
        keyed=0.0,
        floor=1.0,
    ),
    Profile(
        "late changes",
        (("flush", 2), ("doubt", 5)),
        rate=0.04,
        calls=0.0,
        pauses=0.3,
        pause_after=("order",),
        steps=160,
        clients=2,
        requests=8,
        posts=0.15,
        reads=0.05,
        gets=0.05,
        keyed=0.0,
        deletes=0.03,
    ),
    Profile(
        "generations",
        (("switch", 6), ("freeze_api", 2), ("copy", 1), ("fail_over", 1), ("flush", 1)),
        rate=0.03,
        calls=0.01,
        pauses=0.15,
        pause_after=("announce", "number", "beat"),
        steps=260,
        clients=2,
        requests=10,
        posts=0.75,
        reads=0.15,
        gets=0.05,
        keyed=0.0,
    ),
    Profile(
        "generations and outages",
        (("switch", 3), ("freeze_api", 2), ("outage", 2)),
        rate=0.03,
        calls=0.0,
        lease=15,
        pauses=0.15,
        pause_after=("number", "beat"),
        steps=260,
        clients=2,
        requests=10,
        posts=0.8,
        reads=0.15,
        gets=0.05,
        keyed=0.0,
    ),
    Profile(
        "old markers",
        (("switch", 5), ("flush", 3)),
        rate=0.03,
        calls=0.0,
        pause_after=("announce",),
        pauses=0.4,
        pause_ticks=250,
        lease=12,
        steps=350,
        clients=2,
        requests=14,
        posts=0.85,
        reads=0.1,
        gets=0.05,
        keyed=0.0,
    ),
    Profile(
        "slow news of generations",
        (("switch", 5), ("freeze_api", 1)),
        rate=0.015,
        calls=0.06,
        pause_after=("number",),
        pauses=0.15,
        lease=150,
        steps=300,
        clients=2,
        requests=10,
        posts=0.85,
        reads=0.1,
        gets=0.05,
        keyed=0.0,
    ),
    Profile(
        "keys of a lost Redis",
        (("flush", 2), ("abandon", 3)),
        rate=0.03,
        calls=0.0,
        pauses=0.4,
        pause_after=("key",),
        pause_ticks=120,
        steps=200,
        clients=2,
        requests=4,
        posts=0.9,
        reads=0.05,
        gets=0.05,
        deletes=0.0,
        keyed=1.0,
        again=0.5,
    ),
)


def named(names: str) -> tuple[Profile, ...]:
    """Return the profiles with these names, which are separated by commas."""
    by_name = {profile.name: profile for profile in PROFILES}
    return tuple(by_name[name.strip()] for name in names.split(","))
