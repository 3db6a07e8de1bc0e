"""An embedded queue whose committer is a thread of the test, so that a test can hold the store behind it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence

from hubbub.chat.commands import Command, Outcome
from hubbub.embedded.committer import MAX_BATCH, MAX_BATCH_BYTES, PACE_S, Committer
from hubbub.embedded.queue import Changes, EmbeddedQueue
from hubbub.embedded.ring import Shared
from hubbub.embedded.writer import Writer


def run_beside(channels: Sequence[socket.socket], run: Callable[[], None]) -> None:
    """Run the other process's part on a thread, and close its ends of the sockets afterwards."""

    def part() -> None:
        try:
            run()
        finally:
            for channel in channels:
                channel.close()

    threading.Thread(target=part, daemon=True).start()


class Unheard:
    """Remembers nothing, and so has nothing to change."""

    def applied(self, command: Command, outcome: Outcome) -> None:
        pass

    def missed(self) -> None:
        pass


async def queue_with(
    writer: Writer,
    changes: Changes | None = None,
    *,
    max_batch: int = MAX_BATCH,
    max_batch_bytes: int = MAX_BATCH_BYTES,
    pace_s: float = PACE_S,
    **bounds: int,
) -> EmbeddedQueue:
    """A queue with these bounds, to be closed by the test. The first three settings are the committer's."""
    ours, theirs = socket.socketpair()
    committer = Committer([theirs], writer, max_batch=max_batch, max_batch_bytes=max_batch_bytes, pace_s=pace_s)
    run_beside([theirs], committer.run)
    queue = EmbeddedQueue(changes or Unheard(), **bounds)  # type: ignore[arg-type]
    await queue.connect(ours)
    return queue


async def queues_with(writer: Writer, changes: Sequence[Changes], shared: Shared) -> list[EmbeddedQueue]:
    """The queues of several processes that serve, to be closed by the test, the first one last."""
    pairs = [socket.socketpair() for _ in changes]
    theirs = [each for _, each in pairs]
    run_beside(theirs, Committer(theirs, writer, shared).run)
    queues = [EmbeddedQueue(each, shared, number) for number, each in enumerate(changes)]
    for queue, (ours, _) in zip(queues, pairs, strict=True):
        await queue.connect(ours)
    return queues
