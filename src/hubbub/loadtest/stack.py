"""A private embedded service, on a free port with a scratch data folder, which is deleted afterwards."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from hubbub.loadtest.process import Part, undisturbed


class EmbeddedStack:
    """A context manager; ``url`` is that of the service inside it, ``pids`` its process. Raises StackFailed."""

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        self._settings = settings or {}

    def __enter__(self) -> EmbeddedStack:
        self._folder = Path(tempfile.mkdtemp(prefix="hubbub-perftest-"))
        command = ["serve", "--port", "0", "--data", str(self._folder / "data")]
        self._part = Part(command, self._settings, self._folder / "log")
        try:
            self._part.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.url = self._part.url
        self.pids = {"Service": self._part.pid}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with undisturbed():
            self._part.stop()
            shutil.rmtree(self._folder, ignore_errors=True)
