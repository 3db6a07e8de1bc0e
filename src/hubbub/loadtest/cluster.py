"""A private cluster on this machine: RabbitMQ, MariaDB, Redis, a search server where it is, API and writers."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from hubbub.loadtest.process import Part, StackFailed, undisturbed
from hubbub.loadtest.servers import (
    MariaDb,
    OpenSearch,
    RabbitMq,
    Redis,
    SearchServer,
    Server,
    ServerFailed,
    ServerMissing,
    free_port,
    missing,
)


class ClusterStack:
    """A context manager; ``url`` is that of the first API process inside it.

    Raises:
        ServerMissing: a server is not installed; the text has the command that installs it.
        StackFailed: a part did not start.
    """

    def __init__(
        self,
        *,
        apis: int = 1,
        writers: int = 1,
        search: type[SearchServer] | None = OpenSearch,
        settings: dict[str, str] | None = None,
    ) -> None:
        absent = missing()
        if absent:
            raise ServerMissing(f"The cluster needs servers that are {absent}")
        self.folder = Path(tempfile.mkdtemp(prefix="hubbub-cluster-"))
        self.rabbitmq = RabbitMq(self.folder)
        self.mariadb = MariaDb(self.folder)
        self.redis = Redis(self.folder)
        self.search = search(self.folder) if search is not None and not search.absent() else None
        self.settings = {
            "HUBBUB_AMQP_URL": self.rabbitmq.url,
            "HUBBUB_MYSQL_URL": self.mariadb.url(),
            "HUBBUB_REDIS_URL": self.redis.url,
            **({"HUBBUB_SEARCH_URL": self.search.url} if self.search else {}),
            **(settings or {}),
        }
        self.apis = [self._part(["api", "--port", "0"], f"api{index}") for index in range(apis)]
        self.writer_metrics: list[str] = []
        self.writers: list[Part] = []
        for _ in range(writers):
            self.add_writer()

    def add_writer(self) -> Part:
        """One more; a caller that adds it while the cluster runs starts it."""
        port = free_port()
        part = self._part(["writer", "--metrics-port", str(port)], f"writer{len(self.writers)}")
        self.writer_metrics.append(f"http://127.0.0.1:{port}/metrics")
        self.writers.append(part)
        return part

    def _part(self, command: list[str], name: str) -> Part:
        """Each has settings of its own, so that it can be told another way to a server than the others."""
        return Part(command, dict(self.settings), self.folder / f"{name}.log")

    @property
    def url(self) -> str:
        return self.apis[0].url

    @property
    def pids(self) -> dict[str, int]:
        """The process of each part."""
        pids = {f"api {index + 1}": part.pid for index, part in enumerate(self.apis)}
        pids |= {f"writer {index + 1}": part.pid for index, part in enumerate(self.writers)}
        pids |= {"RabbitMQ": self.rabbitmq.pid, "MariaDB": self.mariadb.pid, "Redis": self.redis.pid}
        return pids | ({"Search": self.search.pid} if self.search else {})

    @property
    def _servers(self) -> list[Server]:
        """In the order of stopping."""
        searching = [self.search] if self.search else []
        return [*searching, self.rabbitmq, self.mariadb, self.redis]

    def start(self) -> None:
        try:
            for server in reversed(self._servers):
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
        with undisturbed():
            for part in (*self.apis, *self.writers):
                part.stop()
            for server in self._servers:
                server.stop()
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> ClusterStack:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
