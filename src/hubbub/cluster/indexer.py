"""Sends the changes that writers noted to the search server in the background: no write waits for it.

The store notes, in the transaction of each batch, which messages it changed. A note is deleted in a transaction that
commits only after the search server has accepted these messages. So no change is lost, whichever process is killed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from hubbub.chat.ports import Document
from hubbub.cluster.outbox import Outbox

log = logging.getLogger("hubbub.search")

_PAUSE_S = 0.25  # few large requests cost the writer and the search server less than many small ones
_AFTER_FAULT_S = 2.0


async def keep_index(outbox: Outbox, add: Callable[[Sequence[Document]], None]) -> None:
    """Send the noted changes to the search server, whenever it can be reached. Runs until cancelled; several processes
    may run it at once.
    """
    fault = ""
    while True:
        try:
            found = await asyncio.to_thread(outbox.index_changes, add)
        except Exception as error:  # noqa: BLE001 - after any error the notes are still there, and are tried again
            if str(error) != fault:
                fault = str(error)
                log.error("The search server can't be kept up to date: %s", error)
            await asyncio.sleep(_AFTER_FAULT_S)
            continue
        if fault:
            fault = ""
            log.warning("The search server is kept up to date again.")
        if not found.more:
            await asyncio.sleep(_PAUSE_S)
