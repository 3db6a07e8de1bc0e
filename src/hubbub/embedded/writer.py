"""Applies batches of commands to the store. It runs on the queue's thread, never on the event loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Protocol

from hubbub.chat.commands import Command, Outcome
from hubbub.chat.errors import Unavailable
from hubbub.chat.ports import Store
from hubbub.measures import WriteMeasures, waited_s
from hubbub.tracing import Tracing

log = logging.getLogger("hubbub.writer")


class Erased(Store, Protocol):
    """See embedded.store."""

    def erase(self) -> None: ...


class Writer:
    """Applies batches to the store. ``fault`` says why the latest batch could not be stored; None when it could."""

    def __init__(self, store: Erased) -> None:
        self._store = store
        self.fault: str | None = None
        self.measures = WriteMeasures()
        self.tracing: Tracing | None = None

    def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        """Apply a batch. Returns one outcome for each command, in order; a command whose outcome is no error is on
        disk."""
        begun, begun_ns = time.monotonic(), time.time_ns()
        try:
            outcomes = self._store.apply(batch)
        except Unavailable as error:
            self._report(error.sentence, len(batch))
            return [error] * len(batch)
        except Exception as error:  # noqa: BLE001 - an error of one command must not fail the others
            return self._one_by_one(batch, error)
        self.measures.stored(
            len(batch),
            time.monotonic() - begun,
            waited_s(batch[0]),
        )
        if self.tracing is not None:
            self.tracing.stored(batch, begun_ns, time.time_ns())
        if self.fault is not None:
            self.fault = None
            log.warning("The store takes writes again.")
        return outcomes

    def _one_by_one(self, batch: Sequence[Command], error: Exception) -> list[Outcome]:
        if len(batch) == 1:
            log.error("A %s could not be applied and was refused.", type(batch[0]).__name__, exc_info=error)
            self.measures.dead += 1
            return [Unavailable("This could not be stored. If it happens again, the service's log says why.")]
        self.measures.retries += 1
        return [outcome for command in batch for outcome in self.apply([command])]

    def _report(self, sentence: str, lost: int) -> None:
        """Log a fault when it begins or changes, not again for every batch that it affects."""
        if sentence != self.fault:
            self.fault = sentence
            log.error("Writes are refused with 503, %d in this batch: %s", lost, sentence)

    def housekeep(self) -> None:
        """Do periodic work; called about once a second between batches."""
        try:
            self._store.count_messages()
            self._store.erase()
        except Unavailable as error:
            self._report(error.sentence, 0)
