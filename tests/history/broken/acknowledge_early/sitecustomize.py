"""A Hubbub that is broken on purpose: it answers posts before the commit."""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from hubbub.chat.commands import Command, Outcome, PostMessage
from hubbub.embedded.store import SqliteStore

T = TypeVar("T")

_DISK_S = 0.02  # a disk that takes its time, so that few kills are enough
_transaction_ended = threading.Lock()

_apply = SqliteStore.apply
_transaction = SqliteStore._transaction


def apply(self: SqliteStore, batch: Sequence[Command]) -> list[Outcome]:
    if not any(isinstance(command, PostMessage) for command in batch):
        return _apply(self, batch)
    _transaction_ended.acquire()
    self._writing.execute("BEGIN IMMEDIATE")
    outcomes = self._apply(batch)
    threading.Timer(_DISK_S, commit, (self,)).start()
    return outcomes


def commit(self: SqliteStore) -> None:
    self._writing.execute("COMMIT")
    _transaction_ended.release()


def transaction(self: SqliteStore, work: Callable[[], T]) -> T:
    with _transaction_ended:
        return _transaction(self, work)


SqliteStore.apply = apply  # type: ignore[method-assign]
SqliteStore._transaction = transaction  # type: ignore[method-assign]
