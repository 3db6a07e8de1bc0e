"""The publisher of an API process."""

from __future__ import annotations

from typing import Any

from tests.model.broker import Delivery, Link
from tests.model.world import PARKED, Steps, Task, World

PLACES = 3


class Publisher:
    """A publisher that numbers deliveries and reports their confirms in order. It has no connection until ``down``."""

    __slots__ = ("come", "confirmed", "down", "held", "link", "name", "sequence", "waiting", "world")

    def __init__(self, world: World) -> None:
        self.world = world
        self.held = 0
        self.down = 0
        self.waiting: dict[int, list[Any]] = {}
        self._begin()

    def _begin(self) -> None:
        self.name = self.world.unique()
        self.sequence = self.confirmed = 0
        self.come: set[int] = set()
        self.link = Link(self.world, self)

    @property
    def full(self) -> bool:
        return self.held >= PLACES

    def send(self, owner: Any, command: Any) -> Steps:
        """Send a command and return whether it is confirmed. If not, it is in doubt."""
        self.sequence += 1
        answer: list[Any] = [None, None]
        self.waiting[self.sequence] = answer
        self.link.send(Delivery(self.name, self.sequence, self.confirmed, command))
        while answer[0] is None:
            answer[1] = owner.task
            yield PARKED
        return answer[0]

    def confirm(self, sequence: int) -> None:
        self.come.add(sequence)
        if not self.world.rules.told_in_order:
            self._answer(sequence, True)
        if not self.world.rules.new_name:  # it does not wait for what was in doubt
            self.confirmed = max(self.confirmed, min(self.waiting, default=1) - 1)
        while self.confirmed + 1 in self.come:
            self.confirmed += 1
            self._answer(self.confirmed, True)

    def doubt(self) -> None:
        """Report everything that waits as in doubt: it may or may not be in the queue."""
        for sequence in list(self.waiting):
            self._answer(sequence, False)
        if self.world.rules.new_name:
            self._begin()
        else:
            self.confirmed = self.sequence
            self.link = Link(self.world, self)

    def _answer(self, sequence: int, confirmed: bool) -> None:
        answer = self.waiting.pop(sequence, None)
        if answer is not None:
            answer[0] = confirmed
            task: Task | None = answer[1]
            if task is not None:
                self.world.wake(task)
