"""An embedded queue whose committer is a thread of the test, so that a test can hold still the store behind it."""

from __future__ import annotations

import socket
import threading

from hubbub.embedded.committer import MAX_BATCH, MAX_BATCH_BYTES, Committer
from hubbub.embedded.queue import EmbeddedQueue
from hubbub.embedded.writer import Writer


async def queue_with(
    writer: Writer, *, max_batch: int = MAX_BATCH, max_batch_bytes: int = MAX_BATCH_BYTES, **bounds: int
) -> EmbeddedQueue:
    """A queue with these bounds, to be closed by the test. The first two bounds are the committer's."""
    ours, theirs = socket.socketpair()
    committer = Committer(theirs, writer, max_batch=max_batch, max_batch_bytes=max_batch_bytes)

    def run() -> None:
        with theirs:
            committer.run()

    threading.Thread(target=run, name="committer", daemon=True).start()
    queue = EmbeddedQueue(**bounds)  # type: ignore[arg-type]
    await queue.connect(ours)
    return queue
