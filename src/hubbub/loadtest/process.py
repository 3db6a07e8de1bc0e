"""A Hubbub process that the test starts."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

_START_S = 60.0
_STOP_S = 40.0
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StackFailed(Exception):
    """A part of the service under test did not start; the text has its output."""


@contextmanager
def undisturbed() -> Iterator[None]:
    """A second Ctrl-C does not end the block, which stops what was started and deletes it: that takes a moment."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class Part:
    """A Hubbub process. ``start`` again after ``kill`` runs the same command; an API process keeps its port.

    It has default settings but for ``settings``, which are taken each time that it starts: what the environment and a
    file say is meant for a service that is not the test's, and may name its servers.
    """

    def __init__(self, command: list[str], settings: dict[str, str], log: Path) -> None:
        self._command = command
        self.settings = settings
        self.log = log
        self.url = ""
        self.process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        if self.process is None:
            raise StackFailed(f"{self._command[0]} is not running.")
        return self.process.pid

    def start(self) -> None:
        """Return when it says that it is ready. Raises StackFailed."""
        command = list(self._command)
        if self.url:
            command[command.index("--port") + 1] = self.url.rsplit(":", 1)[1]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hubbub", *command],
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self.environment(),
                start_new_session=True,
                text=True,
            )
        output = cast(IO[str], self.process.stdout)
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            readable, _, _ = select.select([output], [], [], 0.1)
            line = output.readline() if readable else None
            if line == "":
                break
            if line and "ready" in line:
                found = re.search(r'https?://[^\s"]+', line)
                self.url = found[0] if found else ""
                return
        self.kill()
        raise StackFailed(f"hubbub {self._command[0]} did not start. It said:\n{self.log.read_text()[-2000:]}")

    def environment(self) -> dict[str, str]:
        """The environment variables of the process."""
        none = self.log.parent / "no-settings.toml"
        none.touch()
        others = {name: value for name, value in os.environ.items() if not name.startswith("HUBBUB_")}
        return others | {"HUBBUB_CONFIG": str(none)} | self.settings

    @property
    def ended(self) -> bool:
        """Whether it was started and has ended by itself."""
        return self.process is not None and self.process.poll() is not None

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        if self.process is None:
            return 0
        process, self.process = self.process, None
        process.send_signal(number)
        try:
            status = process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        if process.stdout is not None:
            process.stdout.close()
        return status
