"""Nothing dies silently (rule 10): a task that ends by an error that nobody waits for ends its process.

Nothing that was acknowledged is lost by that, and its supervisor starts it again; a process that lives
on without one of its tasks would make clients, or a shard, wait for ever.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger("hubbub")


def keep(work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
    """A task that may end by returning or by being cancelled, and in no other way."""
    task = asyncio.get_running_loop().create_task(work, name=what)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("The task of %s has failed; the process ends.", task.get_name(), exc_info=error)
        logging.shutdown()
        os._exit(1)
