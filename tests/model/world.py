"""The scheduler: it chooses which part acts next, and how calls end."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

Steps = Generator[Any, None, Any]

PARKED = True  # a generator yields this if another part will wake it; otherwise it yields nothing


class Lost(Exception):
    """A call without an answer. It may have been carried out, may be later, or never."""


class Refused(Exception):
    """An answer that is an error."""


class Process:
    """A process, which can be frozen and can crash. ``redis`` is the index of the Redis that it uses."""

    __slots__ = ("dead", "frozen", "name", "redis")

    def __init__(self, name: str) -> None:
        self.name = name
        self.frozen = 0
        self.dead = False
        self.redis = 0

    def paused(self, world: World) -> None:
        """Let others notice that the process is frozen."""


class Task:
    """One sequence of steps of a process."""

    __slots__ = ("process", "steps")

    def __init__(self, process: Process, steps: Steps) -> None:
        self.process = process
        self.steps = steps


class World:
    """All parts of one schedule. ``draw`` makes the choices: 0 is the most ordinary one, almost 1 a fault."""

    def __init__(self, draw: Callable[[], float], rules: Any, profile: Any, trace: list[str] | None = None) -> None:
        self.draw = draw
        self.rules = rules
        self.profile = profile
        self.trace = trace
        self.now = 0
        self.ready: list[Task] = []
        self.network = Process("network")
        self.calls_hold = 1.0 - profile.calls
        self.pauses_not = 1.0 - profile.pauses
        self.pause_after = frozenset(profile.pause_after)
        self.servers: list[Any] = []
        self.store: Any = None
        self.broker: Any = None
        self.apis: list[Any] = []
        self.writers: list[Any] = []
        self.clients: list[Any] = []
        self.checker: Any = None
        self.faults: dict[str, int] = {}
        self.names = 0

    def unique(self) -> int:
        """Return a new name."""
        self.names += 1
        return self.names

    def below(self, count: int) -> int:
        return int(self.draw() * count)

    def spawn(self, process: Process, steps: Steps) -> Task:
        task = Task(process, steps)
        self.ready.append(task)
        return task

    def wake(self, task: Task) -> None:
        if not task.process.dead:
            self.ready.append(task)

    def crash(self, process: Process) -> None:
        process.dead = True
        self.ready = [task for task in self.ready if task.process is not process]

    def note(self, text: str) -> None:
        """Add to the trace of a failing schedule. Call it only if there is one: the text costs more than a step."""
        if self.trace is not None:
            self.trace.append(f"{self.now:4} {text}")

    def count(self, fault: str) -> None:
        self.faults[fault] = self.faults.get(fault, 0) + 1
        if self.trace is not None:
            self.note(f"! {fault}")

    def step(self) -> None:
        """Choose a task, and resume it if its process is not frozen."""
        ready = self.ready
        self.now = now = self.now + 1
        if not ready:
            return
        index = int(self.draw() * len(ready))
        task = ready[index]
        if task.process.frozen > now:
            return
        # It is parked until another part wakes it, or has ended.
        if not next(task.steps, PARKED):
            return
        if self.ready is ready:  # after a crash it is another list, without the tasks of the dead process
            last = ready.pop()
            if last is not task:
                ready[index] = last
        elif not task.process.dead:
            self.ready.remove(task)

    def ask(self, process: Process, operation: Callable[..., Any], *words: Any) -> Steps:
        """Call Redis for a process: ``operation`` is a function of the server and of the words. Raises Lost."""
        yield
        server = self.servers[process.redis]
        if self.draw() >= self.calls_hold:
            self._break(process, operation, (server, *words), "Redis")
            yield
            raise Lost
        if self.trace is not None:
            self.note(f"{process.name} → Redis {process.redis}: {operation.__name__}{words}")
        answer = operation(server, *words)
        if self.trace is not None:
            self.note(f"    = {answer}")
        if operation.__name__ in self.pause_after and self.draw() >= self.pauses_not:
            self._pause(process)
        yield
        return answer

    def query(self, process: Process, operation: Callable[..., Any], *words: Any) -> Steps:
        """Call the store for a process. Raises Lost, or what the operation raises."""
        yield
        if self.store.down > self.now:
            raise Lost
        if self.draw() >= self.calls_hold:
            self._break(process, operation, words, "the store")
            yield
            raise Lost
        if self.trace is not None:
            self.note(f"{process.name} → store: {operation.__name__}{words}")
        answer = operation(*words)
        if self.trace is not None:
            self.note(f"    = {answer}")
        if operation.__name__ in self.pause_after and self.draw() >= self.pauses_not:
            self._pause(process)
        yield
        return answer

    def _pause(self, process: Process) -> None:
        """Freeze a process between two calls, where it matters most. A writer may lose its connection meanwhile."""
        self.count("a process is frozen between two calls")
        process.frozen = self.now + 10 + int(self.draw() * self.profile.pause_ticks)
        process.paused(self)

    def _break(self, process: Process, operation: Callable[..., Any], words: tuple[Any, ...], where: str) -> None:
        kind = self.below(3)
        if kind == 0:
            self.count(f"a call to {where} is refused")
        elif kind == 1:
            self.count(f"an answer of {where} is lost")
            if self.trace is not None:
                self.note(f"{process.name} → {where}: {operation.__name__}{words[-6:]}")
            self._unheard(operation, words)
        else:
            self.count(f"a call to {where} is late")
            self.spawn(self.network, self._later(process, operation, words, where))

    def _later(self, process: Process, operation: Callable[..., Any], words: tuple[Any, ...], where: str) -> Steps:
        while True:
            yield
            if self.draw() < 0.2:  # later than by chance alone
                break
        if self.trace is not None:
            self.note(f"{process.name} → {where}, late: {operation.__name__}{words[-6:]}")
        self._unheard(operation, words)

    @staticmethod
    def _unheard(operation: Callable[..., Any], words: tuple[Any, ...]) -> None:
        with suppress(Refused):
            operation(*words)
