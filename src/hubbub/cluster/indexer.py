"""Sends the changes that writers noted to the search server in the background: no write waits for it.

The store notes, in the transaction of each batch, which messages it changed; a note goes in the transaction that has
seen the search server take them. So nothing is forgotten, whatever is killed when.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from hubbub.chat.ports import Document
from hubbub.cluster.outbox import Outbox

log = logging.getLogger("hubbub.search")

_PAUSE_S = 0.25  # taking little often costs the writer and the search server more than taking much seldom
_AFTER_FAULT_S = 2.0


async def keep_index(outbox: Outbox, add: Callable[[Sequence[Document]], None]) -> None:
    """Brings what a cluster's store has noted to a search server, whenever that can be reached. Runs until cancelled;
    several processes may run it at once.
    """
    fault = ""
    while True:
        try:
            found = await asyncio.to_thread(outbox.index_changes, add)
        except Exception as error:  # noqa: BLE001 - whatever it is, what was noted stays noted, and is tried again
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
