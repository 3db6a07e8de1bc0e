"""Goodput, latency and memory under overload and beside hostile clients, and right after an overload.

    python -m benchmarks.overload [--seconds 20]

It runs `hubbub perftest` against one embedded service: near its peak, at twice the peak with ten and thirty times the
connections, and then at once with the standard load. Then it runs the standard load, or --writes and --reads, beside
each kind of hostile client, and beside all of them at once: 400 connections for each way in tests/abuse/hostile.py, and
50 of one user for each kind that needs an account. Each kind has an address of its own. The generator and the hostile
clients run on the same cores as the service, the hostile ones with the lower priority.

--only PART runs only the loads whose name contains it. HUBBUB_SOURCE can name the src of another build for the service.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import click
import httpx
from tests.abuse.hostile import HEAD, WAYS, largest_file
from tests.large import EMAIL, LONGEST, PASSWORD, TOKEN, Sizes, fill
from tests.worst import QUERIES

from hubbub.loadtest.process import Part

_STEPS = (
    ("near the peak", 7000, 14000, 100),
    ("twice the peak", 14000, 28000, 1000),
    ("twice the peak, 3,000 connections", 14000, 28000, 3000),
    ("the standard load, right after", 5000, 10000, 100),
)
_WORKERS = 100
_SIZES = Sizes(messages=100_000, chats=1000, members=1000, applications=100)
_HOLD_S = 5.0


class Hostile(NamedTuple):
    """A kind of hostile client. On each connection it sends ``data`` again and again and reads the answers (``reads``),
    or sends it once and reads nothing for five seconds.
    """

    name: str
    data: bytes
    connections: int
    reads: bool


def hostiles(url: str, token: str = TOKEN) -> list[Hostile]:
    """Return all kinds. Those with an account are of one user, whose chats have the longest texts."""
    file = largest_file(url)
    account = {"email": EMAIL, "password": PASSWORD}
    cookie = httpx.post(url + "/api/v1/auth/login", json=account).raise_for_status().cookies["auth_token"]
    chats = f"/api/v1/applications/{token}/chats"

    def asked(method: str, path: str, content: bytes = b"") -> bytes:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nCookie: auth_token={cookie}\r\n"
        kind = f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n" if content else ""
        return f"{head}{kind}\r\n".encode() + content

    guess = json.dumps({"email": EMAIL, "password": "wrong password"}).encode()
    guesses = HEAD + b"Content-Length: %d\r\n\r\n" % len(guess) + guess
    lists = asked("GET", f"{chats}/1/messages?limit=100")
    search = f"{chats}/2/messages/search?limit=100&q={quote(QUERIES['a typo in every word'])}"
    return [
        *(Hostile(way.__name__.replace("_", " "), way(file), 400, reads=False) for way in WAYS),
        Hostile("wrong passwords", guesses, 50, reads=True),
        Hostile("lists of the longest texts", lists, 50, reads=True),
        Hostile("second pages of these", asked("GET", f"{chats}/1/messages?page=2&limit=100"), 50, reads=True),
        Hostile("lists that are not read", lists * 20, 50, reads=False),
        Hostile("deep pages", asked("GET", f"{chats}/1/messages?page=900&limit=100"), 50, reads=True),
        Hostile("streams from the beginning", asked("GET", f"{chats}/1/messages/stream?after=0"), 50, reads=True),
        Hostile("the worst searches", asked("GET", search), 50, reads=True),
        Hostile("the longest posts", asked("POST", f"{chats}/3/messages", _POST), 50, reads=True),
        Hostile("posts of 40 KB", asked("POST", f"{chats}/3/messages", _WIDE_POST), 50, reads=True),
    ]


_WIDE_POST = json.dumps({"body": "\U0001f600" * 10_000}, ensure_ascii=False).encode()
_POST = json.dumps({"body": LONGEST}).encode()


async def _attack(url: str, hostile: Hostile, address: str) -> None:
    parts = urlsplit(url)

    async def discard(reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while await reader.read(262_144):
                pass

    async def client() -> None:
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port, local_addr=(address, 0))
                if hostile.reads:
                    reading = asyncio.create_task(discard(reader))
                    with suppress(asyncio.CancelledError):
                        while not reading.done():
                            writer.write(hostile.data)
                            await writer.drain()
                            await asyncio.sleep(0)
                else:
                    writer.transport.pause_reading()  # type: ignore[attr-defined]
                    writer.write(hostile.data)
                    await asyncio.sleep(_HOLD_S)
                writer.transport.abort()
            await asyncio.sleep(0.1)

    await asyncio.gather(*(client() for _ in range(hostile.connections)))


def attacker(url: str, among: list[Hostile]) -> None:
    os.nice(10)

    async def attack() -> None:
        addresses = (f"127.0.0.{number}" for number in range(2, 254))
        await asyncio.gather(*(_attack(url, *pair) for pair in zip(among, addresses, strict=False)))

    asyncio.run(attack())


def run(
    url: str, out: Path, writes: int, reads: int, workers: int, seconds: int, among: list[Hostile]
) -> dict[str, Any] | None:
    """Run the load test and return its result, if any. Hostile clients start with the warmup, in another process."""
    options = ("--writes", writes, "--reads", reads, "--workers", workers, "--duration", seconds, "--json", out)
    command = [sys.executable, "-m", "hubbub", "perftest", "--url", url, "--keep", *map(str, options)]
    attack = multiprocessing.Process(target=attacker, args=(url, among))
    out.unlink(missing_ok=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            sys.stderr.write(line)
            if line.startswith("Phase 2") and among:
                attack.start()
    if attack.pid is not None:
        attack.terminate()
        attack.join()
    result: dict[str, Any] | None = json.loads(out.read_text()) if out.exists() else None
    return result


def show(name: str, result: dict[str, Any] | None, asked: int) -> None:
    if result is None:
        click.echo(f"| {name} | {asked} | the run had no result | | | | |")
        return
    sides = (result["writes"], result["reads"])
    good = sum((side["total"] - side["failed"]) / result["duration_s"] for side in sides)
    failed = sum(side["failed"] for side in sides)
    p99 = [side["uncorrected_ms"]["p99"] for side in sides]
    memory = max(part["peak_bytes"] for part in result["parts"].values()) / 1e6
    click.echo(f"| {name} | {asked} | {good:.0f} | {failed} | {p99[0]:.0f} ms | {p99[1]:.0f} ms | {memory:.0f} MB |")


@click.command()
@click.option("--seconds", default=20, show_default=True)
@click.option("--only", default="", metavar="PART")
@click.option("--writes", default=5000, show_default=True, help="Writes a second beside hostile clients.")
@click.option("--reads", default=10000, show_default=True, help="Reads a second beside hostile clients.")
def main(seconds: int, only: str, writes: int, reads: int) -> None:
    click.echo("| load | asked for /s | answered well /s | refused | P99 from sent, writes | reads | memory |")
    click.echo("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as scratch:
        out, data = Path(scratch) / "result.json", Path(scratch) / "data"
        fill(data, _SIZES)
        source = os.environ.get("HUBBUB_SOURCE")
        command = ["serve", "--port", "0", "--data", str(data)]
        service = Part(command, {"PYTHONPATH": source} if source else {}, Path(scratch) / "log")
        service.start()
        try:
            for name, *load, workers in _STEPS:
                if only in name:
                    show(name, run(service.url, out, load[0], load[1], workers, seconds, []), sum(load))
            kinds = hostiles(service.url)
            besides = {"nobody": [], **{kind.name: [kind] for kind in kinds}, "all of these at once": kinds}
            for beside, among in besides.items():
                name = f"beside {beside}"
                if only in name:
                    show(name, run(service.url, out, writes, reads, _WORKERS, seconds, among), writes + reads)
        finally:
            service.stop()


if __name__ == "__main__":
    main()
