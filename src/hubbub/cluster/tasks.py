"""No task fails silently (rule 10): an error in a background task ends its process.

Nothing that was acknowledged is lost by that, and the supervisor restarts the process. A process that kept running
without one of its tasks would make clients, or a shard, wait for ever.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger("hubbub")


def keep(work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
    """Start a background task. It may return or be cancelled; an error in it ends the process."""
    task = asyncio.get_running_loop().create_task(work, name=what)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("The task of %s has failed; the process ends.", task.get_name(), exc_info=error)
        logging.shutdown()
        os._exit(1)
