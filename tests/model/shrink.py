"""Shrink a failing schedule, and describe what happens in it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tests.model.profiles import PROFILES, Profile
from tests.model.rules import Rules
from tests.model.schedule import run


class Recorder:
    """A source of choices from a seed, which keeps what was drawn."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random
        self.drawn: list[float] = []

    def __call__(self) -> float:
        drawn = self._random()
        self.drawn.append(drawn)
        return drawn


class Replay:
    """A source of the given choices, and then of 0 for ever: the first task acts, and nothing fails."""

    def __init__(self, choices: Sequence[float]) -> None:
        self._next = iter(choices)

    def __call__(self) -> float:
        return next(self._next, 0.0)


def _fails(choices: Sequence[float], rules: Rules, profile: Profile, kind: str) -> bool:
    violation = run(Replay(choices), rules, profile).violation
    return violation is not None and violation.kind == kind


def shrunk(choices: list[float], rules: Rules, profile: Profile, kind: str, tries: int = 4000) -> list[float]:
    """Leave out choices, or set them to 0, while the same promise is still broken."""
    size = max(1, len(choices) // 2)
    while size:
        at = 0
        changed = False
        while at < len(choices) and tries > 0:
            part = choices[at : at + size]
            candidates = [choices[:at] + choices[at + size :]]
            if any(part):
                candidates.append(choices[:at] + [0.0] * len(part) + choices[at + size :])
            for candidate in candidates:
                tries -= 1
                if _fails(candidate, rules, profile, kind):
                    choices, changed = candidate, True
                    break
            else:
                at += size
        if tries <= 0:
            break
        if size > 1 or not changed:
            size //= 2
    return choices


def explain(seed: int, rules: Rules, profiles: tuple[Profile, ...] = PROFILES) -> str:
    """Shrink a failing schedule and describe what happens in it."""
    profile = profiles[seed % len(profiles)]
    recorder = Recorder(seed)
    violation = run(recorder, rules, profile).violation
    if violation is None:
        return f"Seed {seed} keeps every promise."
    choices = shrunk(recorder.drawn, rules, profile, violation.kind)
    trace: list[str] = []
    found = run(Replay(choices), rules, profile, trace).violation
    return "\n".join([f"Seed {seed}, profile {profile.name!r}:", *trace, f"     {found}"])
