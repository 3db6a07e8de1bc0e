"""Faults that can happen to a cluster while people use it. Each is a function of a Field and draws its choices from the
field's seed. When it returns, it has removed the cause of everything that it broke.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import NamedTuple, Protocol

import httpx
import pymysql

from hubbub.loadtest.cluster import ClusterStack
from hubbub.loadtest.process import Part, StackFailed
from hubbub.loadtest.servers import Redis, Server
from tests.cluster.proxy import Proxies, Proxy
from tests.conftest import eventually

_FROZEN_S = 10.0  # for longer than any heartbeat
_READY_S = 90.0
_SERVERS = {"rabbitmq": "HUBBUB_AMQP_URL", "mariadb": "HUBBUB_MYSQL_URL", "redis": "HUBBUB_REDIS_URL"}


class Restartable(Protocol):
    def start(self) -> None: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Field:
    """A running cluster of three API processes and two writers, each with a proxy of its own to each server; a context
    manager. ``links`` has the proxies by the part, "api0" or "writer1", and the server.

    Only ``ready`` restarts our processes here, as a supervisor would; ``ended`` counts how often.
    """

    def __init__(self, seed: int, *, apis: int = 3, writers: int = 2, settings: dict[str, str] | None = None) -> None:
        self.rng = random.Random(seed)
        self.stack = ClusterStack(apis=apis, writers=writers, search=None, settings=settings)
        self.links: dict[tuple[str, str], Proxy] = {}
        self.ended = 0
        self.chats: Sequence[str] = ()
        self._proxies = Proxies()
        self._second: Redis | None = None

    def __enter__(self) -> Field:
        self._proxies.__enter__()
        try:
            for name, part in self._parts().items():
                self._link(name, part)
            self.stack.start()
        except BaseException:
            self._proxies.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._second is not None:
            self._second.stop()
        self.stack.stop()
        self._proxies.__exit__()

    def _parts(self) -> dict[str, Part]:
        apis = {f"api{index}": part for index, part in enumerate(self.stack.apis)}
        return apis | {f"writer{index}": part for index, part in enumerate(self.stack.writers)}

    def _link(self, name: str, part: Part) -> None:
        for server, setting in _SERVERS.items():
            port = getattr(self.stack, server).port
            proxy = self.links[name, server] = self._proxies.to(port)
            part.settings[setting] = part.settings[setting].replace(f":{port}/", f":{proxy.port}/")

    def some_links(self, kind: str, server: str) -> list[Proxy]:
        """Choose the links to a server of one API process or writer, or of all of them."""
        every = [proxy for (part, to), proxy in sorted(self.links.items()) if part.startswith(kind) and to == server]
        return every if self.rng.random() < 0.4 else [self.rng.choice(every)]

    @property
    def parts(self) -> list[Part]:
        return [*self.stack.apis, *self.stack.writers]

    @property
    def servers(self) -> list[Server]:
        return [self.stack.mariadb, self.stack.redis, self.stack.rabbitmq]

    @contextmanager
    def another_writer(self) -> Iterator[Part]:
        part = self.stack.add_writer()
        name = f"writer{len(self.stack.writers) - 1}"
        self._link(name, part)
        try:
            yield part
        finally:
            part.stop()
            self.stack.writers.remove(part)
            self.stack.writer_metrics.pop()
            for server in _SERVERS:
                del self.links[name, server]

    def second_redis(self) -> Redis:
        """Return a second server with the password of the first."""
        if self._second is None:
            folder = self.stack.folder / "second"
            folder.mkdir()
            self._second = Redis(folder)
            self._second.password = self.stack.redis.password
            self._second.start()
        return self._second

    # Waiting ---------------------------------------------------------------------------------------------------------

    def ready(self, within_s: float = _READY_S) -> float:
        """Restart processes that have ended, wait until every API process is ready, and return the seconds it took."""
        begun = time.monotonic()

        def all_ready() -> bool:
            for part in self.parts:
                if part.ended:
                    self.ended += 1
                    part.kill()
                    with suppress(StackFailed):
                        part.start()
            return all(is_ready(part.url) for part in self.stack.apis)

        eventually(all_ready, within_s)
        return time.monotonic() - begun

    def fix(self) -> None:
        """Repair everything, so that the next fault starts from the same state."""
        for proxy in self.links.values():
            proxy.release()
            proxy.fix()
            proxy.point(proxy.first)
        for part in self.parts:
            part.kill()
        for server in self.servers:
            server.kill()
            server.start()
        for part in (*self.stack.writers, *self.stack.apis):
            part.start()


def is_ready(url: str) -> bool:
    try:
        return httpx.get(url + "/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


class Fault(NamedTuple):
    """A fault and its properties. No client may notice a ``planned`` one. One of ``redis`` loses Redis or a part of it,
    so reads may lag and say so. A ``slow`` one takes more than ten seconds.
    """

    name: str
    group: str
    do: Callable[[Field], None]
    planned: bool
    redis: bool
    slow: bool


FAULTS: list[Fault] = []
_Do = Callable[[Field], None]


def _fault(group: str, *, planned: bool = False, redis: bool = False, slow: bool = False) -> Callable[[_Do], _Do]:
    def add(do: _Do) -> _Do:
        FAULTS.append(Fault(do.__name__, group, do, planned, redis, slow))
        return do

    return add


def _restart(part: Restartable, away_s: float) -> None:
    part.kill()
    time.sleep(away_s)
    part.start()


# Planned work ---------------------------------------------------------------------------------------------------------


@_fault("planned")
def replace_writers(field: Field) -> None:
    """Replace processes one after another, as docs/operations.md describes."""
    for _ in range(2):
        for part in field.stack.writers:
            assert part.stop() == 0
            part.start()


@_fault("planned")
def replace_apis(field: Field) -> None:
    for part in field.stack.apis:
        assert part.stop() == 0
        part.start()


@_fault("planned")
def join_writer(field: Field) -> None:
    """Start a third writer, which gets its share of the shards, and stop it."""
    with field.another_writer() as part:
        part.start()
        time.sleep(field.rng.uniform(2, 5))


# kill -9 --------------------------------------------------------------------------------------------------------------


@_fault("kill")
def kill_api(field: Field) -> None:
    _restart(field.rng.choice(field.stack.apis), field.rng.uniform(0, 1))


@_fault("kill")
def kill_writer(field: Field) -> None:
    _restart(field.rng.choice(field.stack.writers), field.rng.uniform(0, 2))


@_fault("kill")
def kill_rabbitmq(field: Field) -> None:
    _restart(field.stack.rabbitmq, field.rng.uniform(0, 1))


@_fault("kill")
def kill_mariadb(field: Field) -> None:
    _restart(field.stack.mariadb, field.rng.uniform(0, 2))


@_fault("kill", redis=True)
def kill_redis(field: Field) -> None:
    _restart(field.stack.redis, field.rng.uniform(0, 3))


@_fault("kill", redis=True)
def kill_two(field: Field) -> None:
    """Kill any two parts or servers at once, and restart them in any order."""
    _kill_together(field, field.rng.sample([*field.parts, *field.servers], 2))


@_fault("kill", redis=True, slow=True)
def kill_all(field: Field) -> None:
    """Kill everything, as a power cut does."""
    _kill_together(field, [*field.parts, *field.servers])


def _kill_together(field: Field, victims: Sequence[Part | Server]) -> None:
    with ThreadPoolExecutor(len(victims)) as threads:
        list(threads.map(lambda victim: victim.kill(), field.rng.sample(victims, len(victims))))
    time.sleep(field.rng.uniform(0, 1))
    for victim in field.rng.sample(victims, len(victims)):
        if isinstance(victim, Server):
            victim.start()
    starting = [victim for victim in victims if isinstance(victim, Part)]
    with ThreadPoolExecutor(max(len(starting), 1)) as threads:
        list(threads.map(lambda part: part.start(), starting))


# SIGSTOP, for longer than the broker waits for a heartbeat ------------------------------------------------------------


@contextmanager
def _paused(victim: Restartable) -> Iterator[None]:
    victim.pause()
    try:
        yield
    finally:
        victim.resume()


def _freeze(victim: Restartable) -> None:
    with _paused(victim):
        time.sleep(_FROZEN_S)


@_fault("freeze", slow=True)
def freeze_api(field: Field) -> None:
    _freeze(field.rng.choice(field.stack.apis))


@_fault("freeze", slow=True)
def freeze_writer(field: Field) -> None:
    """Freeze a writer. When it continues, the other writer has taken over."""
    _freeze(field.rng.choice(field.stack.writers))


@_fault("freeze", slow=True)
def freeze_rabbitmq(field: Field) -> None:
    _freeze(field.stack.rabbitmq)


@_fault("freeze", slow=True)
def freeze_mariadb(field: Field) -> None:
    """Let the database hang."""
    _freeze(field.stack.mariadb)


@_fault("freeze", slow=True, redis=True)
def freeze_redis(field: Field) -> None:
    _freeze(field.stack.redis)


@_fault("freeze", redis=True)
def freeze_shortly(field: Field) -> None:
    """Freeze any part or server, for less time than the others wait for it."""
    parts: list[Restartable] = [*field.parts, *field.servers]
    with _paused(field.rng.choice(parts)):
        time.sleep(field.rng.uniform(0.2, 2.5))


# The network ----------------------------------------------------------------------------------------------------------


def _stall(field: Field, kind: str, server: str, seconds: float) -> None:
    """Hold what a network link carries, in both directions or in one, and let it arrive late."""
    links = field.some_links(kind, server)
    questions, answers = field.rng.choice([(True, True), (True, False), (False, True)])
    for link in links:
        link.hold(questions=questions, answers=answers)
    time.sleep(seconds)
    for link in links:
        link.release()


def _resets(field: Field, kind: str, server: str) -> None:
    """Break connections several times, and then refuse new ones for about a second."""
    for _ in range(field.rng.randint(2, 6)):
        for link in field.some_links(kind, server):
            link.reset()
        time.sleep(field.rng.uniform(0, 0.4))
    links = field.some_links(kind, server)
    for link in links:
        link.cut()
    time.sleep(field.rng.uniform(0.2, 1.5))
    for link in links:
        link.fix()


def _network(kind: str, server: str) -> None:
    redis = server == "redis"

    def stall(field: Field) -> None:
        _stall(field, kind, server, field.rng.uniform(0.5, 5))

    def reset(field: Field) -> None:
        _resets(field, kind, server)

    stall.__name__, reset.__name__ = f"stall_{kind}_{server}", f"reset_{kind}_{server}"
    _fault("network", redis=redis)(stall)
    _fault("network", redis=redis)(reset)


for _kind, _server in product(("api", "writer"), _SERVERS):
    _network(_kind, _server)


@_fault("network", slow=True)
def stall_writer_rabbitmq_long(field: Field) -> None:
    """Stall it for longer than a heartbeat: the broker gives its shards to others, then everything held arrives."""
    _stall(field, "writer", "rabbitmq", _FROZEN_S)


# Redis ----------------------------------------------------------------------------------------------------------------


@_fault("redis", redis=True)
def flush(field: Field) -> None:
    for _ in range(field.rng.randint(1, 4)):
        field.stack.redis.command("FLUSHALL")
        time.sleep(field.rng.uniform(0, 0.5))


@_fault("redis", redis=True)
def redis_gone(field: Field) -> None:
    _restart(field.stack.redis, field.rng.uniform(3, 6))


@_fault("redis", redis=True)
def redis_full(field: Field) -> None:
    redis = field.stack.redis
    answer = re.search(rb"used_memory:(\d+)", redis.command("INFO memory"))
    most = field.rng.choice([1, int(answer[1]) - 1000 if answer else 1])
    try:
        for _ in range(2):
            redis.command(f"CONFIG SET maxmemory {most}")
            time.sleep(field.rng.uniform(0.5, 2))
            redis.command("CONFIG SET maxmemory 0")
            time.sleep(field.rng.uniform(0, 0.5))
    finally:
        redis.command("CONFIG SET maxmemory 0")


@_fault("redis", redis=True)
def redis_read_only(field: Field) -> None:
    """Make Redis a replica whose master is away, or a master without the replicas that it must have."""
    redis = field.stack.redis
    begin, end = field.rng.choice(
        [
            ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
            ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
        ]
    )
    redis.command(begin)
    time.sleep(field.rng.uniform(1, 3))
    redis.command(end)


@_fault("redis", redis=True)
def script_flush(field: Field) -> None:
    for _ in range(3):
        field.stack.redis.command("SCRIPT FLUSH")
        time.sleep(field.rng.uniform(0, 0.5))


@_fault("redis", redis=True)
def old_copy(field: Field) -> None:
    """Kill Redis and start it again with the data of some time ago."""
    redis = field.stack.redis
    redis.command("SAVE")
    saved = Path(shutil.copy(redis.folder / "dump.rdb", redis.folder / "saved.rdb"))
    for _ in range(field.rng.randint(1, 2)):
        time.sleep(field.rng.uniform(0, 1.5))
        redis.kill()
        shutil.copy(saved, redis.folder / "dump.rdb")
        redis.start()
    (redis.folder / "dump.rdb").unlink()


def _replicates(redis: Redis, source: Redis) -> None:
    redis.command(f"CONFIG SET masterauth {source.password}")  # each time, as a restarted server forgets it
    redis.command(f"REPLICAOF 127.0.0.1 {source.port}")
    eventually(lambda: b"master_link_status:up" in redis.command("INFO replication"), 30)


@_fault("redis", redis=True)
def redis_fails_over(field: Field) -> None:
    """Fail over to a copy and back. Each lacks the latest writes of the other; some processes may stay behind."""
    first, second, rng = field.stack.redis, field.second_redis(), field.rng
    links = [proxy for (_, server), proxy in sorted(field.links.items()) if server == "redis"]
    _replicates(second, first)
    time.sleep(rng.uniform(0, 0.5))
    second.command("REPLICAOF NO ONE")
    time.sleep(rng.uniform(0, 0.5))
    moving = links if rng.random() < 0.7 else rng.sample(links, rng.randint(1, len(links) - 1))
    for link in moving:
        link.point(second.port)
    time.sleep(rng.uniform(0.5, 3))
    if rng.random() < 0.5:
        _replicates(first, second)
        first.command("REPLICAOF NO ONE")
        time.sleep(rng.uniform(0, 0.5))
    for link in moving:
        link.point(first.port)


# RabbitMQ -------------------------------------------------------------------------------------------------------------


@_fault("rabbitmq")
def memory_alarm(field: Field) -> None:
    field.stack.rabbitmq.control("set_vm_memory_high_watermark", "0.00000001")
    time.sleep(field.rng.uniform(0, 3))
    field.stack.rabbitmq.control("set_vm_memory_high_watermark", "0.4")


@_fault("rabbitmq")
def disk_alarm(field: Field) -> None:
    field.stack.rabbitmq.control("set_disk_free_limit", "1000000GB")
    time.sleep(field.rng.uniform(0, 3))
    field.stack.rabbitmq.control("set_disk_free_limit", "50MB")


# The database ---------------------------------------------------------------------------------------------------------


@_fault("database")
def database_read_only(field: Field) -> None:
    field.stack.mariadb.root("SET GLOBAL read_only = ON")
    time.sleep(field.rng.uniform(1, 3))
    field.stack.mariadb.root("SET GLOBAL read_only = OFF")


def _connect(field: Field) -> pymysql.Connection[pymysql.cursors.Cursor]:
    mariadb = field.stack.mariadb
    return pymysql.connect(host="127.0.0.1", port=mariadb.port, user="hubbub", password=mariadb.password)


@_fault("database")
def no_connections(field: Field) -> None:
    """Let others take all connections of the database while those of our processes are closed."""
    mariadb = field.stack.mariadb
    mariadb.root("SET GLOBAL max_connections = 10; KILL CONNECTION USER hubbub")
    others = []
    with suppress(pymysql.err.OperationalError):
        while True:
            others.append(_connect(field))
    time.sleep(field.rng.uniform(1, 3))
    for other in others:
        other.close()

    def give_back() -> bool:
        """Return False if no connection was left for root because our processes were faster."""
        try:
            mariadb.root("SET GLOBAL max_connections = 151")
        except subprocess.CalledProcessError:
            return False
        return True

    eventually(give_back, 30)


@_fault("database")
def deadlocks(field: Field) -> None:
    """Lock messages and then their chats, while the writers lock them the other way round. The database rolls back the
    session with fewer changes, so a session with many wins.
    """
    chats = [(token, int(number)) for _, _, token, _, number in (chat.split("/") for chat in field.chats)]
    before = _deadlocks(field)
    until = time.monotonic() + 20
    session = _connect(field)
    with session.cursor() as cursor:
        cursor.execute("CREATE DATABASE IF NOT EXISTS hubbub_other")
        cursor.execute("CREATE TABLE IF NOT EXISTS hubbub_other.weight (n INT)")
        cursor.execute("SET innodb_lock_wait_timeout = 3")
        while _deadlocks(field) - before < 3 and time.monotonic() < until:
            with suppress(pymysql.err.OperationalError):
                if field.rng.random() < 0.7:
                    cursor.execute("INSERT INTO hubbub_other.weight SELECT seq FROM seq_1_to_3000")
                for token, number in field.rng.sample(chats, len(chats)):
                    key = (token, number)
                    cursor.execute(
                        "SELECT number FROM hubbub.messages WHERE token = %s AND chat = %s"
                        " ORDER BY number DESC LIMIT 20 FOR UPDATE",
                        key,
                    )
                    time.sleep(field.rng.uniform(0, 0.2))
                    cursor.execute("SELECT number FROM hubbub.chats WHERE token = %s AND number = %s FOR UPDATE", key)
            session.rollback()
            time.sleep(field.rng.uniform(0, 0.1))
    session.close()


def _deadlocks(field: Field) -> int:
    answer = field.stack.mariadb.root("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")
    return int(answer.split()[-1])


GROUPS = list(dict.fromkeys(fault.group for fault in FAULTS))
