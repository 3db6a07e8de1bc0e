"""Periodic work: counting messages every few seconds, and deleting expired rows every hour."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable

from hubbub.chat.errors import Unavailable
from hubbub.cluster.broker import LOST, send_markers
from hubbub.cluster.processes import Processes
from hubbub.cluster.store import MySqlStore

log = logging.getLogger("hubbub.writer")

_COUNT_EVERY_S = 5
_FORGET_EVERY_S = 3600
_KEPT_S = 7 * 24 * 3600  # a publisher takes a new name after a day in which it sent nothing
_DRAINED_WITHIN_S = 600


async def keep_house(store: MySqlStore, processes: Processes, url: str, shards: int, now: Callable[[], int]) -> None:
    """Runs until cancelled."""
    await asyncio.gather(_count(store), _forget(store, processes, url, shards, now))


async def _count(store: MySqlStore) -> None:
    """Count messages every few seconds. A count is exact whenever it is read; this only keeps reading it cheap."""
    while True:
        try:
            await asyncio.to_thread(store.count_messages)
        except Unavailable as error:
            log.info("Messages will be counted later: %s", error.sentence)
        await asyncio.sleep(_COUNT_EVERY_S)


async def _forget(store: MySqlStore, processes: Processes, url: str, shards: int, now: Callable[[], int]) -> None:
    while True:
        try:
            await asyncio.to_thread(store.forget_sessions, now())
            await asyncio.to_thread(store.forget_links, now())
            await _forget_publishers(store, processes, url, shards)
        except (Unavailable, *LOST) as error:
            log.info("Expired rows will be deleted in an hour: %s", error)
        await asyncio.sleep(_FORGET_EVERY_S)


async def _forget_publishers(store: MySqlStore, processes: Processes, url: str, shards: int) -> None:
    """Delete the publishers that were silent for a week, once all that is queued now is applied. Otherwise a queued
    delivery of a deleted publisher would be a gap (rule 1): a cluster may have been stopped for longer than a week.

    A clock that is ahead would show every publisher as silent, and each shard would stop at the next delivery. So the
    earlier of two clocks counts: this process's, and the database's, which wrote when the publishers were last heard.
    """
    asked_at = min(int(time.time()), await asyncio.to_thread(store.clock))
    marker = f"house.{secrets.token_hex(8)}"
    await send_markers(url, shards, marker)
    until = time.monotonic() + _DRAINED_WITHIN_S
    while await asyncio.to_thread(processes.reached, marker) < shards:
        if time.monotonic() > until:
            return
        await asyncio.sleep(1)
    await asyncio.to_thread(store.forget_publishers, asked_at - _KEPT_S)
