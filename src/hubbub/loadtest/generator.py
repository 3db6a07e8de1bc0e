"""A generator of load: a process that takes its task and each phase from the coordinator, and reports every second."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource

from hubbub.loadtest.channel import (
    Broken,
    Channel,
    ChannelClosed,
    Phase,
    PhaseDone,
    Ready,
    Task,
    Verify,
)
from hubbub.loadtest.runner import Runner
from hubbub.loadtest.scenario import Scenario, Texts
from hubbub.loadtest.verify import Unreadable, read_back
from hubbub.loadtest.worker import Worker

_CONNECT_AT_ONCE = 100


class Unconnected(Exception):
    """The coordinator can't be reached, or refuses this generator."""


async def generate(host: str, port: int, key: str) -> None:
    """Serve one coordinator until it hangs up. Raises Unconnected."""
    _allow_sockets()
    _interrupt_nobody()
    try:
        async with asyncio.timeout(10):
            channel = Channel(*await asyncio.open_connection(host, port))
        await channel.prove(key, coordinator=False)
    except (TimeoutError, OSError) as error:
        raise Unconnected(f"{host}:{port} accepts no connection: {error}") from error
    except ChannelClosed as error:
        raise Unconnected(f"{host}:{port}: {error}") from error
    try:
        await _serve(channel)
    except ChannelClosed:
        pass  # how a run ends
    finally:
        channel.close()


async def _serve(channel: Channel) -> None:
    task = await channel.receive()
    if not isinstance(task, Task):
        raise ChannelClosed("no task arrived")
    runner = Runner(task.url, channel.send)
    texts = Texts(task.workload)
    scenarios = [
        Scenario(task.url, user, task.workload, texts, task.index + place * task.count)
        for place, user in enumerate(task.users)
    ]
    runner.workers = [Worker(runner, place, scenario) for place, scenario in enumerate(scenarios)]
    try:
        for place in range(0, len(scenarios), _CONNECT_AT_ONCE):
            await asyncio.gather(*(each.connect() for each in runner.workers[place : place + _CONNECT_AT_ONCE]))
    except (TimeoutError, OSError) as error:
        channel.send(Broken(f"{task.url} accepts no connection: {error}"))
        await channel.flush()
        return
    runner.listen()
    channel.send(Ready())
    try:
        while True:
            message = await channel.receive()
            if isinstance(message, Phase):
                await asyncio.sleep(message.delay_s)
                took, unsent = await runner.run(message.plan, task.index, task.count)
                channel.send(PhaseDone(took, unsent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
            elif isinstance(message, Verify):
                try:
                    channel.send(await read_back(task.url, scenarios, task.workload.run, message.stranger))
                except Unreadable as error:
                    channel.send(Broken(f"what was acknowledged could not be read back: {error}"))
            await channel.flush()
    finally:
        await runner.close()


def _allow_sockets() -> None:
    """One for each worker: the soft limit of open files is often too low for that."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _interrupt_nobody() -> None:
    """Let an answer that comes wake this process without taking the core from the one that runs there. That may be
    the service, on its way to the next answer: then this process would be woken for each of them alone. A policy that
    somebody has chosen, by ``chrt`` for instance, is kept; so is the usual one where the system allows no other.
    """
    with contextlib.suppress(OSError):  # with musl even the question fails
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
