"""The figures of all processes that serve, gathered in the first, whichever of them is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from hubbub.chat.errors import Unavailable
from hubbub.embedded.peers import Handlers, Peer
from hubbub.http.overview import Figures, Gathered
from hubbub.http.schemas import OperatorState

_LIMIT_S = 2.0  # well within what a process waits for the first, which waits for all
_OWN, _METRICS, _STATE = "figures.own", "figures.metrics", "figures.state"


async def of_all(others: Sequence[Peer]) -> list[Figures]:
    """In the first process: the figures of the others. Raises Unavailable if one of them does not answer."""
    try:
        async with asyncio.timeout(_LIMIT_S):
            figures: list[Figures] = await asyncio.gather(*(each.ask(_OWN) for each in others))
    except TimeoutError as error:
        raise Unavailable("A process of the service does not answer. Try again in a moment.") from error
    return figures


class FirstsOverview:
    """In the others: what the first process shows, see http.overview."""

    def __init__(self, first: Peer) -> None:
        self._first = first

    async def metrics(self) -> bytes:
        return cast(bytes, await self._first.ask(_METRICS))

    async def state(self) -> OperatorState:
        return cast(OperatorState, await self._first.ask(_STATE))


def showing(overview: Gathered) -> Handlers:
    """What each process answers the others. Only the first is asked for what is shown."""
    return {_OWN: overview.own, _METRICS: overview.metrics, _STATE: overview.state}
