"""The processes of ``hubbub serve``: one that commits, one that indexes and searches, and one or more that serve. The
first of those has forked all others.

docs/decisions/0008-processes.md says how they work together.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from hubbub.embedded.child import Child, Sockets
from hubbub.embedded.committer import commit
from hubbub.embedded.data_folder import DataFolder
from hubbub.embedded.rates import ProcessRates, SharedRates
from hubbub.embedded.ring import Ring, Shared
from hubbub.embedded.search_process import search


class Place(NamedTuple):
    """What one of the processes that serve has of its own: its number, which is 0 for the first, and its ends of the
    sockets to the others. ``peers`` are the other processes that serve as far as it speaks to them: the first speaks to
    all, and each of them to the first. ``shared`` and ``rates`` are None if it serves alone.
    """

    number: int
    committing: socket.socket
    searching: socket.socket
    peers: Sequence[socket.socket]
    shared: Shared | None
    rates: ProcessRates | None


class Processes:
    """The other processes, as the first that serves has them."""

    def __init__(self, folder: DataFolder, serving: int) -> None:
        """Fork those that commit and search, for so many that serve. Call it early: they share the memory that this
        process has by then."""
        self._sockets = sockets = Sockets()
        self._shared = Shared(Ring(), [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(serving)]) if serving > 1 else None
        self._rates = SharedRates(serving) if serving > 1 else None
        self._to_commit, commits = sockets.pairs(serving - 1)
        self._to_search, searches = sockets.pairs(serving - 1)

        def committing(channel: socket.socket) -> None:
            commit([channel, *commits], folder.database, self._shared)

        def searching(channel: socket.socket) -> None:
            search([channel, *searches], folder.path, folder.data_set)

        self._committing = Child.start("commit", committing, sockets, commits)
        self._searching = Child.start("search", searching, sockets, searches)
        self._serving: list[Child] = []

    def fork_serving(
        self, listeners: Sequence[socket.socket], serve: Callable[[Place, socket.socket, socket.socket], None]
    ) -> Place:
        """Fork the others that serve, and return the place of the first. ``serve`` gets the process's place, its
        listening socket, and one that is closed to end it. Call it late: they share the memory of what is imported."""
        to_others, to_first = self._sockets.pairs(len(listeners) - 1)
        self._sockets.add(*listeners)
        for number, listener in enumerate(listeners[1:], 1):
            ends = self._to_commit[number - 1], self._to_search[number - 1], to_first[number - 1]
            place = self._place(number, ends[0], ends[1], ends[2:])
            run = partial(serve, place, listener)
            self._serving.append(Child.start(f"serve-{number}", run, self._sockets, [*ends, listener], own_log=True))
        first = self._place(0, self._committing.channel, self._searching.channel, to_others)
        told = [each.channel for each in self._serving]
        self._sockets.keep(first.committing, first.searching, *first.peers, *told, listeners[0])
        return first

    def _place(
        self, number: int, committing: socket.socket, searching: socket.socket, peers: Sequence[socket.socket]
    ) -> Place:
        rates = self._rates.of(number) if self._rates is not None else None
        return Place(number, committing, searching, peers, self._shared, rates)

    @property
    def all(self) -> list[Child]:
        return [self._committing, self._searching, *self._serving]

    def begin(self) -> None:
        """Let all begin, now that the database is ready for them."""
        for each in self.all:
            each.begin()

    def stop_serving(self) -> None:
        """Let the others that serve finish what they have accepted."""
        for each in self._serving:
            each.end()

    async def served(self) -> None:
        """Wait until the others that serve have ended."""
        self.stop_serving()
        for each in self._serving:
            await each.ended()

    async def ended(self) -> None:
        """Wait until the other two have ended, which have nothing more to do."""
        for each in (self._committing, self._searching):
            await each.ended()
