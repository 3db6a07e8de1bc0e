"""The counts of all processes that serve, which the first of them keeps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from hubbub.chat.errors import Unavailable
from hubbub.chat.limits import Limit
from hubbub.embedded.peers import Handlers, Peer
from hubbub.http.limits import MemoryCounts

_TAKE, _GIVE_BACK = "counts.take", "counts.give_back"


class FirstsCounts:
    """See chat.ports.Counts: asks the first process, in the others. ``take`` raises Unavailable too, if that does not
    answer; then it may have counted.
    """

    def __init__(self, first: Peer) -> None:
        self._first = first

    async def take(self, counted: Sequence[tuple[Limit, str]]) -> Callable[[], Awaitable[None]]:
        await self._first.ask(_TAKE, counted)
        failures = [(limit, key) for limit, key in counted if limit.failures]

        async def give_back() -> None:
            # What succeeded must not be refused for this: the count stays one too high for a while.
            with suppress(Unavailable):
                await self._first.ask(_GIVE_BACK, failures)

        return give_back


def counting(counts: MemoryCounts) -> Handlers:
    """What the first process answers to FirstsCounts."""

    async def take(counted: Sequence[tuple[Limit, str]]) -> None:
        await counts.take(counted)

    return {_TAKE: take, _GIVE_BACK: counts.give_back}
