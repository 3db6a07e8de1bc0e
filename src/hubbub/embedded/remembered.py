"""What a process that serves remembers of the store, kept as new as the commits that it hears of."""

from __future__ import annotations

from typing import Protocol

from hubbub.chat.commands import (
    DELETE_CHATS,
    Command,
    DeleteUser,
    EndSession,
    EndSessions,
    Outcome,
    RenameUser,
    ResetPassword,
    SetPassword,
)
from hubbub.embedded.view import MemoryCache
from hubbub.http.limits import LocalGate

# After each of them the sessions of its user must be checked again, whichever process verified them.
_OF_SESSIONS = (EndSession, EndSessions, RenameUser, SetPassword, ResetPassword, DeleteUser)


class Reads(Protocol):
    """See embedded.store."""

    def forget_ids(self) -> None: ...


class Remembered:
    """See embedded.queue.Changes: the ids of chats, the cache, and the marks of the users' sessions."""

    def __init__(self, store: Reads, cache: MemoryCache, gate: LocalGate) -> None:
        self._store = store
        self._cache = cache
        self._gate = gate

    def applied(self, command: Command, outcome: Outcome) -> None:
        if type(command) in DELETE_CHATS:
            self._store.forget_ids()
        elif isinstance(command, _OF_SESSIONS):
            self._gate.changed(command.user_id)
        self._cache.settled(command, outcome)

    def missed(self) -> None:
        self._store.forget_ids()
        self._cache.forget()
        self._gate.forget()
