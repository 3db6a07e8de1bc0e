"""The real servers of the cluster mode, which are started once for the whole run and stopped at its end."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubbub.loadtest.servers import Elasticsearch, MariaDb, OpenSearch, RabbitMq, Redis, SearchServer, Server, missing

_databases = itertools.count(1)


def new_database(mariadb: MariaDb) -> str:
    """Create an empty database and return its URL."""
    name = f"hubbub_test{next(_databases)}"
    mariadb.root(f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    return mariadb.url(name)


def _running(server: Server) -> Iterator[Server]:
    server.start()
    yield server
    server.stop()


def need_servers() -> None:
    """Skip the test if a server is not installed, and name it."""
    absent = missing()
    if absent:
        pytest.skip(absent)


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    need_servers()
    yield from _running(MariaDb(Path(tmp_path_factory.mktemp("mariadb"))))


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    need_servers()
    yield from _running(Redis(Path(tmp_path_factory.mktemp("redis"))))


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    need_servers()
    yield from _running(RabbitMq(Path(tmp_path_factory.mktemp("rabbitmq"))))


@pytest.fixture(scope="session")
def opensearch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from _searching(OpenSearch, tmp_path_factory)


@pytest.fixture(scope="session")
def elasticsearch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from _searching(Elasticsearch, tmp_path_factory)


def _searching(kind: type[SearchServer], folders: pytest.TempPathFactory) -> Iterator[Server]:
    absent = kind.absent()
    if absent:
        pytest.skip(absent)
    yield from _running(kind(Path(folders.mktemp(kind.name))))
