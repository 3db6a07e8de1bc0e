"""A Hubbub of the test's own: started on a free port with a scratch data folder, gone without a trace afterwards."""

from __future__ import annotations

import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, cast

_START_S = 30.0
_STOP_S = 40.0


class StackFailed(Exception):
    """The service did not start; the text has what it said."""


class EmbeddedStack:
    """A context manager; ``url`` is that of the service inside it, ``pids`` its process."""

    def __enter__(self) -> EmbeddedStack:
        self._folder = Path(tempfile.mkdtemp(prefix="hubbub-perftest-"))
        self._log = (self._folder / "log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hubbub", "serve", "--port", "0", "--data", str(self._folder / "data")],
            stdout=subprocess.PIPE,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is the test's to handle: it stops the service itself, in order
            text=True,
        )
        self.pids = {"Service": self._process.pid}
        try:
            self.url = self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _wait(self) -> str:
        output = cast(IO[str], self._process.stdout)
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            readable, _, _ = select.select([output], [], [], 0.1)
            line = output.readline() if readable else None
            if line == "":
                break
            found = re.search(r"https?://\S+", line or "")
            if found:
                return found[0]
        self._log.seek(0)
        raise StackFailed(f"The service did not start. It said:\n{self._log.read().strip()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)
