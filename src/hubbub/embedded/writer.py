"""Applies batches of commands to the store. It runs in the process that commits, never on the event loop."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from hubbub.chat.commands import Command, Outcome
from hubbub.chat.errors import Unavailable
from hubbub.chat.ports import Store

log = logging.getLogger("hubbub.writer")


class Kept(Store, Protocol):
    """See embedded.store."""

    @property
    def fault(self) -> str | None: ...
    def erase(self) -> None: ...
    def indexed(self, position: int) -> None: ...
    def unsound(self, fault: str) -> None: ...


class Writer:
    """Applies batches to the store. ``fault`` says why the latest batch could not be stored; None when it could.
    ``retries`` counts the batches that were applied again, command by command, and ``dead`` the commands that could not
    be applied.
    """

    def __init__(self, store: Kept) -> None:
        self.store = store
        self.fault: str | None = None
        self.retries = 0
        self.dead = 0

    @property
    def faults(self) -> tuple[str | None, str | None]:
        """Why the latest batch could not be stored, and why the store takes no writes at all."""
        return self.fault, self.store.fault

    def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        """Apply a batch. Returns one outcome for each command, in order; a command whose outcome is no error is on
        disk."""
        try:
            outcomes = self.store.apply(batch)
        except Unavailable as error:
            self._report(error.sentence, len(batch))
            return [error] * len(batch)
        except Exception as error:  # noqa: BLE001 - an error of one command must not fail the others
            return self._one_by_one(batch, error)
        if self.fault is not None:
            self.fault = None
            log.warning("The store takes writes again.")
        return outcomes

    def _one_by_one(self, batch: Sequence[Command], error: Exception) -> list[Outcome]:
        if len(batch) == 1:
            log.error("A %s could not be applied and was refused.", type(batch[0]).__name__, exc_info=error)
            self.dead += 1
            return [Unavailable("This could not be stored. If it happens again, the service's log says why.")]
        self.retries += 1
        return [outcome for command in batch for outcome in self.apply([command])]

    def _report(self, sentence: str, refused: int) -> None:
        """Log a fault when it begins or changes, not again for every batch that it affects."""
        if sentence != self.fault:
            self.fault = sentence
            log.error("Writes are refused with 503, %d in this batch: %s", refused, sentence)

    def housekeep(self) -> None:
        """Do periodic work; called about once a second between batches."""
        try:
            self.store.count_messages()
            self.store.erase()
        except Unavailable as error:
            self._report(error.sentence, 0)
