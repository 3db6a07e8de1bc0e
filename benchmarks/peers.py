"""Hubbub beside Centrifugo and PocketBase under wrk: a closed loop of 100 connections, 1 write : 2 lists of ten.

    scripts/peers.sh [--rounds 3] [--seconds 5]        # or, with all three programs on the PATH:
    python -m benchmarks.peers [--rounds 3] [--seconds 5]

The servers take turns in each round, each a new process on scratch data, with ten chats, which are channels in
Centrifugo. All share the cores with wrk. The figures are medians of the rounds. CPU and memory are those of all
processes of a server; memory is what they have at the end (PSS).
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
import httpx
import psutil

from hubbub.loadtest.accounts import Accounts, SetupFailed
from hubbub.loadtest.process import StackFailed
from hubbub.loadtest.servers import Server, ServerFailed
from hubbub.loadtest.setup import prepare
from hubbub.loadtest.stack import EmbeddedStack

_CHATS = 10
_NEWEST = 10
_CONNECTIONS = 100
_WARMUP_S = 2
_TEXT = "x" * 76

# wrk writes its results on standard output after its own report.
_LUA = """
local requests = { %s }
local turn = 0
request = function()
  turn = turn %% #requests + 1
  return requests[turn]
end
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format('\\n{"seconds": %%f, "requests": %%d, "refused": %%d, "broken": %%d, "p50": %%f, "p99": %%f}',
    summary.duration / 1e6, summary.requests, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
"""


class WrongAnswer(Exception):
    """A server does not do what is to be measured."""


_FAILURES = (StackFailed, SetupFailed, ServerFailed, WrongAnswer, httpx.HTTPError, subprocess.CalledProcessError)


class Request(NamedTuple):
    """``headers`` are those beside the usual ones."""

    method: str
    path: str
    headers: dict[str, str]
    body: object
    reads: bool

    def text(self, host: str) -> str:
        """As it is sent."""
        content = "" if self.body is None else json.dumps(self.body)
        headers = {"Host": host, **self.headers}
        if content:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", content])


class Running(NamedTuple):
    """A server, and the requests that wrk repeats in this order."""

    url: str
    pid: int
    requests: list[Request]


class Figures(NamedTuple):
    """Of one run: requests answered a second, milliseconds, CPU microseconds a request, bytes, failed requests."""

    rate: float
    p50: float
    p99: float
    cpu_us: float
    memory: float
    failed: float


# The servers ---------------------------------------------------------------------------------------------------------


@contextmanager
def hubbub(folder: Path) -> Iterator[Running]:
    """A user in each chat, who posts, lists the chat's messages and lists the chats."""
    with EmbeddedStack({"HUBBUB_USER_RATE": "1000000"}) as stack:
        users = asyncio.run(prepare(Accounts(stack.url), _CHATS, chats=_CHATS, members=_CHATS))
        requests = []
        for user, chat in zip(users, users[0].chats, strict=True):
            chats = f"/api/v1/applications/{user.token}/chats"
            cookie = {"Cookie": user.cookie}
            requests += [
                Request("POST", f"{chats}/{chat}/messages", cookie, {"body": _TEXT}, reads=False),
                Request("GET", f"{chats}/{chat}/messages", cookie, None, reads=True),
                Request("GET", chats, cookie, None, reads=True),
            ]
        yield Running(stack.url, stack.pids["Service"], requests)


class _Peer(Server):
    """A server that is ready when ``health`` answers."""

    health = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        try:
            return httpx.get(self.url + self.health).is_success
        except httpx.TransportError:
            return False

    @contextmanager
    def started(self) -> Iterator[None]:
        try:
            self.start()
            yield
        finally:
            self.stop()


class _Centrifugo(_Peer):
    name = program = "centrifugo"
    health = "/health"

    def _run(self) -> None:
        settings = {
            "http_server": {"address": "127.0.0.1", "port": str(self.port)},
            "http_api": {"key": self.password},
            "channel": {"without_namespace": {"history_size": 100, "history_ttl": "300s"}},
            "health": {"enabled": True},
            "usage_stats": {"enabled": False},
        }
        (self.folder / "config.json").write_text(json.dumps(settings))
        self._spawn([self.program, "--config", "config.json"])


@contextmanager
def centrifugo(folder: Path) -> Iterator[Running]:
    """A channel for each chat, with one publish and two reads of its history."""
    server = _Centrifugo(folder)
    with server.started():
        key = {"X-API-Key": server.password}
        requests = []
        for chat in range(_CHATS):
            message = {"senderId": "0123456789abcdef", "senderName": f"perftest{chat}", "body": _TEXT}
            newest = {"channel": f"chat{chat}", "limit": _NEWEST, "reverse": True}
            read = Request("POST", "/api/history", key, newest, reads=True)
            post = Request("POST", "/api/publish", key, {"channel": f"chat{chat}", "data": message}, reads=False)
            requests += [post, read, read]
        yield Running(server.url, server.pid, requests)


class _PocketBase(_Peer):
    name = program = "pocketbase"
    health = "/api/health"

    def _run(self) -> None:
        common = ["--dir", "data", "--automigrate=false"]
        account = ["superuser", "upsert", "peers@example.com", self.password]
        subprocess.run([self.program, *account, *common], cwd=self.folder, check=True, capture_output=True)
        self._spawn([self.program, "serve", "--http", f"127.0.0.1:{self.port}", *common])

    def prepare(self, *, tuned: bool) -> None:
        """Make the collection; ``tuned``: with an index for the reads, and without the log of requests."""
        collection = {
            "name": "messages",
            "type": "base",
            "listRule": "",
            "createRule": "",
            "fields": [
                {"name": "chat", "type": "number"},
                {"name": "sender", "type": "text"},
                {"name": "body", "type": "text", "max": 10_000},
                {"name": "created", "type": "autodate", "onCreate": True},
            ],
            "indexes": ["CREATE INDEX newest ON messages (chat, created)"] if tuned else [],
        }
        with httpx.Client(base_url=f"{self.url}/api") as client:
            account = {"identity": "peers@example.com", "password": self.password}
            login = client.post("/collections/_superusers/auth-with-password", json=account).raise_for_status()
            client.headers["Authorization"] = login.json()["token"]
            client.post("/collections", json=collection).raise_for_status()
            if tuned:
                client.patch("/settings", json={"logs": {"maxDays": 0}}).raise_for_status()


@contextmanager
def pocketbase(folder: Path, *, tuned: bool) -> Iterator[Running]:
    """A record for each message, in one collection, with one made and the newest of its chat listed twice."""
    server = _PocketBase(folder)
    with server.started():
        server.prepare(tuned=tuned)
        path = "/api/collections/messages/records"
        requests = []
        for chat in range(_CHATS):
            record = {"chat": chat, "sender": f"perftest{chat}", "body": _TEXT}
            newest = f"{path}?perPage={_NEWEST}&sort=-created&filter=chat%3D{chat}" + ("&skipTotal=1" if tuned else "")
            read = Request("GET", newest, {}, None, reads=True)
            requests += [Request("POST", path, {}, record, reads=False), read, read]
        yield Running(server.url, server.pid, requests)


class Kind(NamedTuple):
    """How to run a server, with which program, and what it does otherwise than the others."""

    run: Callable[[Path], AbstractContextManager[Running]]
    program: str
    differs: str


_OURS = "Hubbub"
KINDS = {
    _OURS: Kind(
        hubbub,
        sys.executable,
        "durable (SQLite, each acknowledged post synced to disk), with users: each request has a session and is checked"
        " for membership and rate; posts are searchable; lists messages, and chats with counts.",
    ),
    "Centrifugo": Kind(
        centrifugo,
        _Centrifugo.program,
        "in memory only, the last 100 of each channel for 5 minutes; no users, one API key; nothing to search.",
    ),
    "PocketBase": Kind(
        partial(pocketbase, tuned=False),
        _PocketBase.program,
        "durable (SQLite, not synced at each commit); no users, open rules; nothing to search; as it comes: no index"
        " but the ids', each list counts the total, a log of requests.",
    ),
    "PocketBase, tuned": Kind(
        partial(pocketbase, tuned=True),
        _PocketBase.program,
        "the same with an index of chat and time, no total and no log of requests.",
    ),
}


# The measurement -----------------------------------------------------------------------------------------------------


def wrk(running: Running, seconds: int, folder: Path) -> dict[str, float]:
    script = folder / "requests.lua"
    host = running.url.removeprefix("http://")
    # Strings of JSON that are ASCII and have no control characters but \r and \n are also strings of Lua.
    script.write_text(_LUA % ", ".join(json.dumps(each.text(host)) for each in running.requests))
    command = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s", "-s", str(script), running.url]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    results: dict[str, float] = json.loads(output.splitlines()[-1])
    return results


def check(running: Running) -> None:
    """Raises WrongAnswer unless each read has the newest ten; some servers answer 200 to what they can't do."""
    with httpx.Client(base_url=running.url) as client:
        for request in running.requests:
            answer = client.request(request.method, request.path, headers=request.headers, json=request.body)
            found = answer.json() if answer.is_success else None
            if isinstance(found, dict):
                found = found.get("items", found.get("result", {}).get("publications"))
            if request.reads and (found is None or len(found) != _NEWEST):
                raise WrongAnswer(f"{request.method} {request.path} answered {answer.status_code}: {answer.text[:200]}")


def measure(kind: Kind, seconds: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="hubbub-peers-") as scratch, kind.run(Path(scratch)) as running:
        wrk(running, _WARMUP_S, Path(scratch))
        check(running)
        server = psutil.Process(running.pid)
        processes = [server, *server.children(recursive=True)]
        before = _cpu_s(processes)
        result = wrk(running, seconds, Path(scratch))
        cpu_s = _cpu_s(processes) - before
        memory = sum(process.memory_full_info().pss for process in processes)
        check(running)
    answered = result["requests"] - result["refused"]
    if not answered:
        raise WrongAnswer(f"None of {result['requests']:.0f} requests was answered well.")
    failed = result["refused"] + result["broken"]
    rate = answered / result["seconds"]
    return Figures(rate, result["p50"], result["p99"], cpu_s / answered * 1e6, memory, failed)


def _cpu_s(processes: list[psutil.Process]) -> float:
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


def row(name: str, runs: list[Figures], ours: list[Figures]) -> str:
    median = Figures(*map(statistics.median, zip(*runs, strict=True)))
    ratios = [our.rate / run.rate for our, run in zip(ours, runs, strict=False)]
    cells = [
        name,
        f"{median.rate:,.0f}",
        f"{median.p50:.1f}",
        f"{median.p99:.1f}",
        f"{median.cpu_us:.0f} µs",
        f"{median.memory / 1e6:,.0f} MB",
        f"{sum(run.failed for run in runs):.0f}",
        f"{statistics.median(ratios):.2f} ×" if ratios else "",
    ]
    return f"| {' | '.join(cells)} |"


@click.command()
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=5, show_default=True, type=click.IntRange(1))
def main(rounds: int, seconds: int) -> None:
    if shutil.which("wrk") is None:
        raise click.ClickException("wrk is not on the PATH; scripts/peers.sh brings it")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped
    began = f"{datetime.now(UTC):%d %B %Y, %H:%M}"
    loads = [os.getloadavg()[0]]
    runs: dict[str, list[Figures]] = {name: [] for name in KINDS}
    lacking = {name: "not built" for name, kind in KINDS.items() if shutil.which(kind.program) is None}
    for _ in range(rounds):
        for name, kind in KINDS.items():
            if name in lacking:
                continue
            try:
                runs[name].append(measure(kind, seconds))
            except _FAILURES as error:
                lacking[name] = f"failed: {' '.join(str(error).split())[-300:]}"
        loads.append(os.getloadavg()[0])
    click.echo(
        "| server | requests/s | P50, ms | P99, ms | CPU a request | memory | failed | Hubbub's rate to it |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for name in KINDS:
        if name in lacking:
            click.echo(f"| {name} | {lacking[name]} | | | | | | |")
        else:
            click.echo(row(name, runs[name], runs[_OURS]))
    click.echo("")
    for name, kind in KINDS.items():
        click.echo(f"{name}: {kind.differs}")
    click.echo(
        f"\nMedians of {rounds} rounds in turns, {seconds} s each, {_CONNECTIONS} connections of wrk, {began} UTC,"
        f" {os.cpu_count()} cores ({platform.machine()}), load average {min(loads):.1f} to {max(loads):.1f}."
    )


if __name__ == "__main__":
    main()
