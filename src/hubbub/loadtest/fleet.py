"""The generators of a run, on this machine and on others: starts them together and merges their summaries."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable

from hubbub.loadtest.accounts import SetupFailed
from hubbub.loadtest.channel import Broken, Channel, ChannelClosed, Message, Phase, PhaseDone, Ready, Task, Verify
from hubbub.loadtest.plan import Plan
from hubbub.loadtest.run import Moment, Run
from hubbub.loadtest.scenario import VirtualUser, Workload
from hubbub.loadtest.summary import SecondSummary
from hubbub.loadtest.verify import Findings

KEY_VARIABLE = "HUBBUB_PERFTEST_KEY"
_START_S = 0.2
_JOIN_S = 600.0


class GeneratorLost(Exception):
    """A generator stopped during the run; the text says why, if that is known."""


class Fleet:
    """Generators that are connected and have their task."""

    def __init__(self, channels: list[Channel]) -> None:
        self._channels = channels

    @property
    def size(self) -> int:
        return len(self._channels)

    async def assign(self, url: str, users: list[VirtualUser], workload: Workload) -> None:
        """Give each generator its workers, and wait until all are connected. Raises SetupFailed, GeneratorLost."""
        for index, channel in enumerate(self._channels):
            channel.send(Task(url, workload, users[index :: self.size], index, self.size))
        for answer in await self._all():
            if isinstance(answer, Broken):
                raise SetupFailed(answer.why)
            if not isinstance(answer, Ready):
                raise GeneratorLost(f"a generator said {type(answer).__name__} out of turn")

    async def run(
        self, plan: Plan, seen: Callable[[Run, Moment], None], begun: Callable[[Run], None] = lambda run: None
    ) -> Run:
        """A phase. ``begun`` is called at once, ``seen`` for each second when all generators have sent theirs.

        Raises:
            GeneratorLost
        """
        run = Run(plan, time.monotonic() + _START_S)
        begun(run)
        for channel in self._channels:
            channel.send(Phase(plan, _START_S))
        done: list[PhaseDone] = []
        while len(done) < self.size:
            seconds: list[SecondSummary] = []
            for message in await self._all():
                if isinstance(message, SecondSummary):
                    seconds.append(message)
                elif isinstance(message, PhaseDone):
                    done.append(message)
                else:
                    raise GeneratorLost(getattr(message, "why", "a generator sent a message of another phase"))
            if seconds:
                seen(run, run.add(seconds))
        run.took_s = max(each.took_s for each in done)
        run.peak_bytes = sum(each.peak_bytes for each in done)
        for side, recorder in enumerate(run.sides):
            recorder.unsent = sum(each.unsent[side] for each in done)
        return run

    async def verify(self, stranger: str) -> Findings:
        """What reading back found. Raises GeneratorLost."""
        for channel in self._channels:
            channel.send(Verify(stranger))
        findings = Findings(examples=[])
        for answer in await self._all():
            if not isinstance(answer, Findings):
                raise GeneratorLost(getattr(answer, "why", "a generator sent a message of another phase"))
            findings.add(answer)
        return findings

    async def _all(self) -> list[Message]:
        """The next message of every generator: they do the same things in the same order."""
        try:
            return await asyncio.gather(*(channel.receive() for channel in self._channels))
        except ChannelClosed as error:
            raise GeneratorLost("a generator was lost during the run") from error

    def close(self) -> None:
        for channel in self._channels:
            channel.close()


@contextlib.asynccontextmanager
async def fleet(
    key: str, *, processes: int, machines: int, listen: tuple[str, int], waiting: Callable[[int], None]
) -> AsyncIterator[Fleet]:
    """``processes`` generators on this machine, and those that join from ``machines`` others.

    ``waiting`` is called with the port, when others are expected. Raises GeneratorLost when not all come.
    """
    channels: list[Channel] = []
    complete = asyncio.Event()

    async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = Channel(reader, writer)
        try:
            await channel.prove(key, coordinator=True)
        except ChannelClosed:
            channel.close()
            return
        if len(channels) == processes + machines:
            channel.close()
            return
        channels.append(channel)
        if len(channels) == processes + machines:
            complete.set()

    server = await asyncio.start_server(joined, *listen)
    host, port = server.sockets[0].getsockname()[:2]
    if machines:
        waiting(port)
    own = host if host not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104 - compared, not bound
    children: list[asyncio.subprocess.Process] = []
    try:
        for _ in range(processes):
            children.append(
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "hubbub", "perftest", "join", f"{own}:{port}"),
                    env=os.environ | {KEY_VARIABLE: key},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C goes to the coordinator, which stops them
                )
            )
        await _complete(complete, children)
        together = Fleet(channels)
        try:
            yield together
        finally:
            together.close()
    finally:
        server.close()
        for child in children:
            if child.returncode is None:
                child.terminate()
            await child.wait()


async def _complete(complete: asyncio.Event, children: list[asyncio.subprocess.Process]) -> None:
    ends = [asyncio.ensure_future(child.wait()) for child in children]
    here = asyncio.ensure_future(complete.wait())
    try:
        await asyncio.wait([here, *ends], timeout=_JOIN_S, return_when=asyncio.FIRST_COMPLETED)
        if not here.done():
            gone = any(end.done() for end in ends)
            raise GeneratorLost("a generator did not start" if gone else "not all machines have joined")
    finally:
        for task in (here, *ends):
            task.cancel()
