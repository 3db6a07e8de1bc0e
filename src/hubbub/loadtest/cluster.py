"""A private cluster on this machine: RabbitMQ, MariaDB, Redis, and Hubbub's own API and writer processes."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, cast

from hubbub.loadtest.servers import MariaDb, RabbitMq, Redis, ServerFailed, ServerMissing, missing
from hubbub.loadtest.stack import StackFailed

_START_S = 60.0
_STOP_S = 40.0


class Part:
    """A Hubbub process. ``start`` again after ``kill`` runs the same command; an API process keeps its port."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self._command = command
        self._environment = environment
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
                env=os.environ | self._environment,
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
                found = re.search(r"https?://\S+", line)
                self.url = found[0] if found else ""
                return
        self.kill()
        raise StackFailed(f"hubbub {self._command[0]} did not start. It said:\n{self.log.read_text()[-2000:]}")

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


class ClusterStack:
    """A context manager; ``url`` is that of the first API process inside it.

    Raises:
        ServerMissing: a server is not installed; the text has the command that installs it.
        StackFailed: a part did not start.
    """

    def __init__(self, *, apis: int = 1, writers: int = 1, settings: dict[str, str] | None = None) -> None:
        absent = missing()
        if absent:
            raise ServerMissing(f"The cluster needs servers that are {absent}")
        self.folder = Path(tempfile.mkdtemp(prefix="hubbub-cluster-"))
        self.rabbitmq = RabbitMq(self.folder)
        self.mariadb = MariaDb(self.folder)
        self.redis = Redis(self.folder)
        self.settings = {
            "HUBBUB_AMQP_URL": self.rabbitmq.url,
            "HUBBUB_MYSQL_URL": self.mariadb.url(),
            "HUBBUB_REDIS_URL": self.redis.url,
            **(settings or {}),
        }
        self.apis = [self._part(["api", "--port", "0"], f"api{index}") for index in range(apis)]
        self.writers = [self._part(["writer"], f"writer{index}") for index in range(writers)]

    def _part(self, command: list[str], name: str) -> Part:
        return Part(command, self.settings, self.folder / f"{name}.log")

    @property
    def url(self) -> str:
        return self.apis[0].url

    @property
    def pids(self) -> dict[str, int]:
        """The process of each part."""
        pids = {f"api {index + 1}": part.pid for index, part in enumerate(self.apis)}
        pids |= {f"writer {index + 1}": part.pid for index, part in enumerate(self.writers)}
        return pids | {"RabbitMQ": self.rabbitmq.pid, "MariaDB": self.mariadb.pid, "Redis": self.redis.pid}

    def start(self) -> None:
        try:
            for server in (self.redis, self.mariadb, self.rabbitmq):
                server.start()
            for part in (*self.writers, *self.apis):
                part.start()
        except ServerFailed as error:
            self.stop()
            raise StackFailed(str(error)) from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        for part in (*self.apis, *self.writers):
            part.stop()
        for server in (self.rabbitmq, self.mariadb, self.redis):
            server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> ClusterStack:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
