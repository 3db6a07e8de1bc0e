"""``hubbub doctor``: whether Hubbub can run here, part by part, and the fix for each fault."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import resource
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hubbub.embedded import data_set
from hubbub.logs import without_passwords
from hubbub.settings import Settings

_LITTLE_SPACE = 1 << 30
_FILES = 12_000  # MAX_CONNECTIONS, and some for the database
_SLOW_SYNC_S = 0.05
_SKEW_S = 5.0
_PACKET = 16 * 1024 * 1024  # four times the largest statement
_FULL = 0.9  # of Redis' maxmemory: from there on posts are refused
_NEARLY_FULL = 0.7
_HAS_TABLES = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'holes'"


class Finding(NamedTuple):
    """``fix`` is empty where all is well. What is not ``serious`` works, though worse than it could."""

    part: str
    said: str
    fix: str = ""
    serious: bool = True


def examine(settings: Settings) -> Iterator[Finding]:
    """One finding after another, as they are made."""
    yield _clock()
    yield _files()
    if settings.mysql_url or settings.amqp_url or settings.redis_url:
        for part, url, check in (
            ("mysql", settings.mysql_url, _mysql),
            ("rabbitmq", settings.amqp_url, _rabbitmq),
            *(("redis", url, _redis) for url in settings.redis_urls or [""]),
        ):
            if url:
                yield from _guarded(part, url, check)
            else:
                yield Finding(part, "is not set", f"Set HUBBUB_{_SETTING[part]} (or the same in hubbub.toml).")
        yield from _servers(settings.redis_urls)
        for number, url in enumerate(settings.mysql_replicas, 1):
            yield from _guarded(f"replica {number}", url, _replica)
        if settings.search_url:
            yield from _guarded("search", settings.search_url, _search)
        else:
            yield Finding("search", "none", "Set HUBBUB_SEARCH_URL; without it, every search is a 503.", serious=False)
    else:
        yield from _folder(settings.data)


_SETTING = {"mysql": "MYSQL_URL", "rabbitmq": "AMQP_URL", "redis": "REDIS_URL"}


def _guarded(part: str, url: str, check: Callable[[str], Iterator[Finding]]) -> Iterator[Finding]:
    """A server's findings; that it can't be asked is one too."""
    try:
        yield from check(url)
    except Exception as error:  # noqa: BLE001 - whatever a client raises, the operator wants to read it
        where = url.rsplit("@", 1)[-1].split("://")[-1]
        said = without_passwords(str(error) or type(error).__name__).splitlines()[0]
        yield Finding(part, f"{where} can't be used: {said}", "Start it, or fix the address, user or password.")


def _clock() -> Finding:
    year = time.gmtime().tm_year
    if year < 2025:
        return Finding("clock", f"says that the year is {year}", "Set the machine's clock; sessions depend on it.")
    return Finding("clock", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))


def _files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _FILES:
        fix = f"For 10,000 connections: ulimit -n {_FILES} (LimitNOFILE in a systemd unit; hard limit {hard})."
        return Finding("files", f"this process may open {soft}", fix, serious=soft < 256)
    return Finding("files", f"this process may open {soft}")


# Embedded ------------------------------------------------------------------------------------------------------------


def _folder(path: Path) -> Iterator[Finding]:
    there = next(each for each in (path.absolute(), *path.absolute().parents) if os.path.exists(each))
    if not os.access(there, os.W_OK | os.X_OK):
        yield Finding("data", f"{there} can't be written", "Choose another with --data, or fix its permissions.")
        return
    free = shutil.disk_usage(there).free
    space = Finding("disk", f"{free / 1e9:.1f} GB free at {there}")
    if free < _LITTLE_SPACE:
        space = space._replace(fix="Make room: a million messages take some 300 MB.", serious=free < 50_000_000)
    yield space
    yield _sync(there)
    try:
        data_set.checked(path / "hubbub.db")
    except (data_set.DataSetWrong, OSError) as error:
        yield Finding("data", str(error), "hubbub serve will not start until this is fixed.")
    else:
        if not (path / "hubbub.db").exists():
            yield Finding("data", f"hubbub serve will create {path}")
    if not (path / "hubbub.db").exists():
        return
    yield _holder(path)
    mode = (path / "secret").stat().st_mode & 0o777 if (path / "secret").exists() else 0o600
    if mode & 0o077:
        yield Finding("secret", f"others may read it ({mode:03o})", f"chmod 600 {path / 'secret'}")
    yield _database(path / "hubbub.db")


def _sync(folder: Path) -> Finding:
    """How long a small write takes to be on the disk: every acknowledged message waits for one."""
    probe = folder / ".hubbub-doctor"
    try:
        with probe.open("wb") as file:
            times = []
            for _ in range(5):
                file.write(b"x" * 4096)
                file.flush()
                begun = time.monotonic()
                os.fsync(file.fileno())
                times.append(time.monotonic() - begun)
    except OSError as error:
        return Finding(
            "disk", f"can't be written: {error.strerror}", "Make room, or choose another folder with --data."
        )
    finally:
        probe.unlink(missing_ok=True)
    median = sorted(times)[2]
    found = Finding("disk", f"a small write takes {median * 1000:.1f} ms to be on disk")
    if median > _SLOW_SYNC_S:
        found = found._replace(fix="A faster disk makes every message faster.", serious=False)
    return found


def _holder(path: Path) -> Finding:
    with (path / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            return Finding("data", f"{path} is served by process {lock.read().strip()}")
    return Finding("data", f"{path} is not being served")


def _database(path: Path) -> Finding:
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            (version,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            last = connection.execute("SELECT MAX(rowid) FROM changes").fetchone()[0] or 0
        finally:
            connection.close()
    except sqlite3.Error as error:
        return Finding(
            "database", f"{path} can't be read: {error}", "Restore a backup into a new folder: hubbub restore."
        )
    return Finding("database", f"schema {version}, {path.stat().st_size / 1e6:.0f} MB, {last} batches of changes")


# Cluster -------------------------------------------------------------------------------------------------------------


def _mysql(url: str) -> Iterator[Finding]:
    from hubbub.cluster.engine import engine_of

    engine = engine_of(url)
    try:
        with engine.connect() as connection:

            def ask(sql: str) -> str:
                return str(connection.exec_driver_sql(sql).scalar())

            version = ask("SELECT VERSION()")
            yield _version("mysql", version, (10, 11) if "MariaDB" in version else (8, 0))
            skew = abs(time.time() - float(ask("SELECT UNIX_TIMESTAMP(NOW(6))")))
            if skew > _SKEW_S:
                fix = "Let a time server set both clocks."
                yield Finding("mysql", f"its clock is {skew:.0f} s off", fix, serious=False)
            if ask("SELECT @@GLOBAL.innodb_flush_log_at_trx_commit") != "1":
                fix = "SET GLOBAL innodb_flush_log_at_trx_commit = 1, and in its configuration."
                yield Finding("mysql", "a power failure may lose a commit", fix)
            if ask("SELECT @@GLOBAL.read_only") != "0":
                yield Finding("mysql", "is read-only", "Name the primary, or SET GLOBAL read_only = OFF.")
            yield from _sessions(ask)
            connection.exec_driver_sql("CREATE TABLE hubbub_doctor (a INT PRIMARY KEY)")
            connection.exec_driver_sql("DROP TABLE hubbub_doctor")
            yield Finding("mysql", "may create tables")
            if ask(_HAS_TABLES) != "0":
                yield from _left_over(ask)
    finally:
        engine.dispose()


def _sessions(ask: Callable[[str], str]) -> Iterator[Finding]:
    """What a session may send, and for how long it may hold its locks when its process is gone."""
    from hubbub.cluster.engine import SILENT_S

    packet = int(ask("SELECT @@GLOBAL.max_allowed_packet"))
    if packet < _PACKET:
        fix = f"SET GLOBAL max_allowed_packet = {_PACKET}, and in its configuration; then restart the writers."
        yield Finding("mysql", f"accepts statements of {packet / 2**20:.0f} MiB at most", fix)
    timeout = ask("SELECT @@SESSION.wait_timeout")
    if timeout != str(SILENT_S):
        said = f"a session that has lost its process keeps its locks for {timeout} s"
        fix = f"Remove what is in between (a proxy?): SET SESSION wait_timeout = {SILENT_S} has no effect."
        yield Finding("mysql", said, fix)


def _left_over(ask: Callable[[str], str]) -> Iterator[Finding]:
    """What waits for an operator."""
    if stopped := int(ask("SELECT COUNT(*) FROM holes WHERE state = 'stopped'")):
        fix = "hubbub shards says what is missing; if it can't be recovered: hubbub shards --accept-loss."
        yield Finding("shards", f"{stopped} stopped, because acknowledged commands are missing from their queues", fix)
    acknowledged = int(ask("SELECT COUNT(*) FROM set_aside WHERE acknowledged"))
    if acknowledged:
        fix = "hubbub dead list says why; then hubbub dead retry, or drop."
        yield Finding("set aside", f"{acknowledged} commands that were acknowledged could not be stored", fix)
    if others := int(ask("SELECT COUNT(*) FROM set_aside WHERE NOT acknowledged")):
        fix = "They were not acknowledged to any client: hubbub dead list, then hubbub dead drop."
        yield Finding("set aside", f"{others} commands that were answered 503", fix, serious=False)


def _replica(url: str) -> Iterator[Finding]:
    from hubbub.cluster.engine import engine_of

    engine = engine_of(url)
    try:
        with engine.connect() as connection:
            version = str(connection.exec_driver_sql("SELECT VERSION()").scalar())
            yield Finding("replica", f"answers, version {version}")
    finally:
        engine.dispose()


def _rabbitmq(url: str) -> Iterator[Finding]:
    from hubbub.cluster.broker import probe

    found = asyncio.run(probe(url))
    yield _version("rabbitmq", found.version, (3, 10))
    yield Finding("rabbitmq", "accepts and confirms a message in a quorum queue")
    if found.limited:
        said = f"drops what was delivered too often from {', '.join(found.limited)}"
        fix = (
            "rabbitmqctl set_policy hubbub '^hubbub\\.shard\\.' '{\"delivery-limit\": -1}' --apply-to quorum_queues"
            " (doctor can't see policies and repeats this; with the policy, all is well)."
        )
        yield Finding("rabbitmq", said, fix, serious=False)


def _redis(url: str) -> Iterator[Finding]:
    from hubbub.cluster.redis.connection import RedisClient

    async def ask() -> tuple[dict[str, str], float]:
        client = RedisClient(url, {})
        try:
            if not await client.connected(3):
                raise ConnectionError("no answer within 3 s")
            information = bytes(await client.call("INFO")).decode()
            seconds, micros = await client.call("TIME")
            skew = abs(time.time() - int(seconds) - int(micros) / 1e6)
        finally:
            await client.close()
        return dict(line.split(":", 1) for line in information.splitlines() if ":" in line), skew

    says, skew = asyncio.run(ask())
    yield _version("redis", says["redis_version"], (6, 0))
    if says["role"] != "master":
        said = f"is a copy of {says.get('master_host', 'another')}, and takes no writes"
        yield Finding("redis", said, "Name the master in redis_url, or make this one the master: REPLICAOF NO ONE.")
    if says.get("cluster_enabled", "0") != "0":
        yield Finding("redis", "is a node of a Redis Cluster", "Name standalone servers, with commas, in redis_url.")
    yield from _memory(int(says["used_memory"]), int(says["maxmemory"]), says.get("maxmemory_policy", "noeviction"))
    if skew > _SKEW_S:
        fix = "Let a time server set both clocks."
        yield Finding("redis", f"its clock is {skew:.0f} s off", fix, serious=False)


def _memory(used: int, most: int, policy: str) -> Iterator[Finding]:
    if policy != "noeviction":
        yield Finding(
            "redis", f"evicts ({policy})", "CONFIG SET maxmemory-policy noeviction, and in its configuration."
        )
    if not most:
        fix = "CONFIG SET maxmemory to three quarters of what its machine can spare, and in its configuration."
        yield Finding("redis", "has no maxmemory: it grows until the machine has no memory left", fix, serious=False)
    elif used > _NEARLY_FULL * most:
        refused = used > _FULL * most
        said = f"{used / most:.0%} full" + (": posts are refused" if refused else "")
        yield Finding("redis", said, "Raise maxmemory, or let the writers catch up.", serious=refused)


def _servers(urls: Sequence[str]) -> Iterator[Finding]:
    """Of several Redis servers: each must be another."""
    where = [url.rsplit("@", 1)[-1].split("://")[-1].split("/")[0] for url in urls]
    twice = sorted({each for each in where if where.count(each) > 1})
    if twice:
        yield Finding("redis", f"{', '.join(twice)} is named twice", "Name each server once in redis_url.")
    elif len(urls) > 1:
        yield Finding(
            "redis", f"{len(urls)} servers share the applications; every process must name them in this order"
        )


def _search(url: str) -> Iterator[Finding]:
    from hubbub.cluster.search import connect

    about = connect(url)("GET", "/", None, 5.0)
    version = about["version"]
    name = version.get("distribution", "elasticsearch")
    yield _version("search", f"{version['number']} ({name})", (2, 0) if name == "opensearch" else (8, 0))
    health = connect(url)("GET", "/_cluster/health", None, 5.0)
    if health["status"] == "red":
        said = json.dumps({key: health[key] for key in ("status", "unassigned_shards")})
        yield Finding("search", said, "See its log; then hubbub search rebuild.")


def _version(part: str, version: str, least: tuple[int, int]) -> Finding:
    found = re.search(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < least:
        return Finding(part, f"is version {version}", f"Upgrade it to {least[0]}.{least[1]} or newer.")
    return Finding(part, f"answers, version {version}")
