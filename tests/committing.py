"""An embedded queue whose committer is a thread of the test, so that a test can hold the store behind it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from hubbub.embedded.committer import MAX_BATCH, MAX_BATCH_BYTES, Committer
from hubbub.embedded.queue import EmbeddedQueue
from hubbub.embedded.writer import Writer


def run_beside(channel: socket.socket, run: Callable[[], None]) -> None:
    """Run the other process's part on a thread, and close its end of the socket afterwards."""

    def part() -> None:
        with channel:
            run()

    threading.Thread(target=part, daemon=True).start()


async def queue_with(
    writer: Writer, *, max_batch: int = MAX_BATCH, max_batch_bytes: int = MAX_BATCH_BYTES, **bounds: int
) -> EmbeddedQueue:
    """A queue with these bounds, to be closed by the test. The first two bounds are the committer's."""
    ours, theirs = socket.socketpair()
    run_beside(theirs, Committer(theirs, writer, max_batch=max_batch, max_batch_bytes=max_batch_bytes).run)
    queue = EmbeddedQueue(**bounds)  # type: ignore[arg-type]
    await queue.connect(ours)
    return queue
