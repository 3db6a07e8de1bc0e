"""Random faults in an embedded service, from a seed: whatever it acknowledged and showed must hold.

`--fault-rounds N` sets the number of faults, `--fault-seed S` repeats a run's choices.
"""

from __future__ import annotations

import asyncio
import random
import resource
import signal
import socket
import sqlite3
import struct
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import Service
from tests.history.conftest import Stored
from tests.history.workload import Workload

Judge = Callable[[Workload, "Counter[str]", Stored], Awaitable[None]]
_CLOCK = Path(__file__).parent / "clock"
_DAY_S = 86400
_WAL_HEADER, _FRAME_HEADER = 32, 24  # bytes, https://www.sqlite.org/fileformat2.html#walformat


class Victim:
    """An embedded service on a small disk, with a clock of its own. So many of its processes serve."""

    def __init__(self, folder: Path, rng: random.Random, serving: int) -> None:
        self.rng = rng
        self.serving = serving
        self.disk = folder / "disk"
        self.clock = folder / "clock"
        self.clock.write_text("0")
        self.service = Service(self.disk / "data", log=folder / "service.log")

    def start(self) -> None:
        self.service.start(PYTHONPATH=str(_CLOCK), CLOCK=str(self.clock), HUBBUB_PROCESSES=str(self.serving))

    async def kill(self) -> None:
        self.service.kill()
        await asyncio.to_thread(self.start)

    async def torn_write(self) -> None:
        """Kill the service as if it was writing a frame to the log: a part of the frame is there."""
        self.service.kill()
        _tear(self.service.data / "hubbub.db-wal", self.rng)
        await asyncio.to_thread(self.start)

    async def stop(self) -> None:
        assert await asyncio.to_thread(self.service.stop) == 0
        await asyncio.to_thread(self.start)

    async def freeze(self) -> None:
        self.service.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(self.rng.uniform(0.1, 2))
        self.service.process.send_signal(signal.SIGCONT)

    def _another(self) -> psutil.Process:
        """One that serves beside the first."""
        return self.rng.choice([part for part in self.service.parts() if part.name().startswith("hubbub-serve")])

    async def freeze_another(self) -> None:
        another = self._another()
        another.suspend()
        await asyncio.sleep(self.rng.uniform(0.1, 2))
        another.resume()

    async def kill_another(self) -> None:
        self._another().kill()
        assert await asyncio.to_thread(self.service.process.wait, 30) == 1
        await asyncio.to_thread(self.start)

    async def disk_full(self) -> None:
        filler = self.disk / "filler"
        self._fill(filler)
        await asyncio.sleep(self.rng.uniform(0.1, 1))
        if self.rng.random() < 0.3:
            self.service.kill()
        filler.unlink()
        if self.service.process.poll() is not None:
            await asyncio.to_thread(self.start)

    def _fill(self, filler: Path) -> None:
        try:
            with filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(64 * 1024))
        except OSError:
            return

    async def clock_jump(self) -> None:
        """Move the clock by up to three days in either direction; tokens live for seven."""
        self.clock.write_text(str(self.rng.randint(-3 * _DAY_S, 3 * _DAY_S)))
        await asyncio.sleep(0.3)

    async def no_files(self) -> None:
        """Let the process open no more files while clients connect."""
        pid = self.service.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (psutil.Process(pid).num_fds(), limits[1]))
        address = self.service.url.removeprefix("http://").split(":")
        callers = [socket.create_connection((address[0], int(address[1]))) for _ in range(20)]
        await asyncio.sleep(self.rng.uniform(0.1, 1))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        for caller in callers:
            caller.close()

    def stored(self, chat: str) -> list[tuple[int, str]]:
        return stored_in(self.service.data, chat)

    async def ready(self) -> None:
        async with asyncio.timeout(30):
            while not await self._is_ready():
                await asyncio.sleep(0.02)

    async def _is_ready(self) -> bool:
        async with httpx.AsyncClient() as client:
            try:
                return (await client.get(self.service.url + "/readyz", timeout=5)).status_code == 200
            except httpx.TransportError:
                return False


def stored_in(data: Path, chat: str) -> list[tuple[int, str]]:
    """Return the messages that a service's database has of the chat with this path."""
    _, _, token, _, number = chat.split("/")
    with closing(sqlite3.connect(f"file:{data / 'hubbub.db'}?mode=ro", uri=True)) as database:
        rows = database.execute(
            "SELECT m.number, m.body FROM messages m JOIN chats c ON c.id = m.chat_id"
            " JOIN applications a ON a.id = c.application_id WHERE a.token = ? AND c.number = ? ORDER BY m.number",
            (token, int(number)),
        )
        return rows.fetchall()


def _tear(log: Path, rng: random.Random) -> None:
    """Write a part of a frame behind the last whole one, with the right salts, as an unfinished write leaves it."""
    content = log.read_bytes() if log.exists() else b""
    if len(content) < _WAL_HEADER:
        return
    (page_size,) = struct.unpack(">I", content[8:12])
    salts = content[16:24]
    end = _WAL_HEADER
    while content[end + 8 : end + 16] == salts:
        end += _FRAME_HEADER + page_size
    frame = struct.pack(">II", rng.randrange(1, 100), rng.choice((0, 50))) + salts + rng.randbytes(8 + page_size)
    with log.open("r+b") as file:
        file.seek(end)
        file.write(frame[: rng.randrange(_FRAME_HEADER, len(frame))])


@pytest.fixture(params=[1, 2], ids=["one process", "two processes"])
def victim(request: pytest.FixtureRequest, tmp_path: Path, fault_seed: int) -> Iterator[Victim]:
    victim = Victim(tmp_path, random.Random(fault_seed), request.param)
    victim.disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(victim.disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.decode().strip()}")
    victim.start()
    yield victim
    if victim.service.process.poll() is None:
        victim.service.kill()
    subprocess.run(["umount", str(victim.disk)], check=True)


async def test_random_faults_break_no_promise(victim: Victim, fault_seed: int, fault_rounds: int, judge: Judge) -> None:
    ways: list[Callable[[], Awaitable[None]]] = [
        *[victim.kill] * 6,
        victim.torn_write,
        victim.torn_write,
        victim.stop,
        victim.freeze,
        victim.disk_full,
        victim.clock_jump,
        victim.no_files,
        *([victim.freeze_another] * 3 + [victim.kill_another] if victim.serving > 1 else []),
    ]
    done: Counter[str] = Counter()
    workload = Workload(lambda: [victim.service.url], fault_seed)
    every = list(dict.fromkeys(ways))  # each of them comes once before any is repeated
    async with workload:
        for round_ in range(fault_rounds):
            await workload.more(victim.rng.randint(5, 80))
            way = every[round_] if round_ < len(every) else victim.rng.choice(ways)
            await way()
            await victim.ready()
            done[way.__name__] += 1
        await workload.more(50)
    await victim.kill()
    await victim.ready()
    await judge(workload, done, victim.stored)
