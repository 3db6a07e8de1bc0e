"""Thresholds that a run must meet: ``writes.p99<100ms``, ``reads.throughput>=99%``."""

from __future__ import annotations

import operator
import re

import msgspec

from hubbub.loadtest.mix import ROUTES
from hubbub.loadtest.recorder import Recorder
from hubbub.loadtest.run import SIDES, Run

_FORM = re.compile(r"([a-z]+)\.([a-z]+|p\d{1,2}(?:\.\d{1,4})?)\s*(<=|>=|<|>)\s*(\d+(?:\.\d+)?)(us|ms|s|%|/s|)")
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_TO_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
_COUNTS = ("failed", "late", "unsent")


class BadRequirement(ValueError):
    """The text is not a threshold; the message says how to write one."""


class Check(msgspec.Struct, frozen=True):
    """A threshold and what was measured, in words."""

    requirement: str
    measured: str
    held: bool


class Requirement:
    """Raises BadRequirement."""

    def __init__(self, text: str) -> None:
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise BadRequirement(
                f"{text!r}: write SUBJECT.FIGURE<NUMBERUNIT, as writes.p99<100ms, reads.throughput>=99%, send.failed<=0"
            )
        self.text = text.strip()
        self._subject, self._figure, self._sign, number, self._unit = found.groups()
        self._number = float(number)
        if self._subject not in (*SIDES, *ROUTES):
            raise BadRequirement(f"{text!r}: the subject is writes, reads or one of {', '.join(ROUTES)}")
        units = self._units()
        if self._unit not in units:
            raise BadRequirement(f"{text!r}: {self._figure} is given in {' or '.join(units) or 'nothing known'}")

    def _units(self) -> tuple[str, ...]:
        if self._figure in ("avg", "max") or self._figure[1:2].isdigit():
            return ("us", "ms", "s")
        if self._figure == "throughput":
            return ("%", "/s", "") if self._subject in SIDES else ("/s", "")
        if self._figure == "success":
            return ("%",)
        return ("%", "") if self._figure in _COUNTS else ()

    def check(self, run: Run) -> Check:
        recorder, target = self._of(run)
        value, shown = self._measure(recorder, target, run)
        return Check(self.text, shown, value is not None and _COMPARE[self._sign](value, self._number))

    def _of(self, run: Run) -> tuple[Recorder, float]:
        if self._subject in SIDES:
            place = SIDES.index(self._subject)
            return run.sides[place], run.plan.targets[place]
        return run.routes.get(self._subject, Recorder()), 0.0

    def _measure(self, recorder: Recorder, target: float, run: Run) -> tuple[float | None, str]:
        """The value in the requirement's unit, and in words; None when there is nothing to judge by."""
        if self._figure == "throughput":
            rate = recorder.total / run.took_s
            # Only a target that was asked for can be missed.
            value = rate if self._unit != "%" else 100 * rate / target if target else 100.0
            return value, f"{value:.2f}{self._unit}"
        due = recorder.total + recorder.unsent
        if self._figure in _COUNTS:
            count = {"failed": recorder.failed, "late": sum(recorder.late), "unsent": recorder.unsent}[self._figure]
            value = 100 * count / due if self._unit == "%" and due else float(count)
            return value, f"{value:g}{self._unit}"
        if self._figure == "success":
            if not recorder.total:
                return None, "nothing was sent"
            value = 100 * (recorder.total - recorder.failed) / recorder.total
            return value, f"{value:.3f}%"
        latency = recorder.corrected.latency()
        if not recorder.corrected.count:
            return None, "nothing was answered"
        if self._figure in ("avg", "max"):
            ms = latency.avg if self._figure == "avg" else latency.max
        else:
            ms = recorder.corrected.percentile(float(self._figure[1:]))
        value = ms / _TO_MS[self._unit]
        return value, f"{value:.2f}{self._unit}"
