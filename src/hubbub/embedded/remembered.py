"""What a process that serves remembers of the store, kept as new as the commits that it hears of."""

from __future__ import annotations

import asyncio

from hubbub.chat.commands import (
    Command,
    DeleteUser,
    EndSession,
    EndSessions,
    Outcome,
    PostMessage,
    RenameUser,
    ResetPassword,
    SetPassword,
)
from hubbub.embedded.view import MemoryCache
from hubbub.http.limits import LocalGate

# After each of them the sessions of its user must be checked again, whichever process verified them.
_OF_SESSIONS = (EndSession, EndSessions, RenameUser, SetPassword, ResetPassword, DeleteUser)
_IN_FLIGHT_S = 5.0  # for how long a post may be on its way that was accepted before its sender was renamed


class Remembered:
    """See embedded.queue.Changes: the cache, and the marks of the users' sessions."""

    def __init__(self, cache: MemoryCache, gate: LocalGate) -> None:
        self._cache = cache
        self._gate = gate

    def applied(self, command: Command, outcome: Outcome) -> None:
        if type(command) is not PostMessage and isinstance(command, _OF_SESSIONS):  # nearly all are posts
            self._gate.changed(command.user_id)
        self._cache.settled(command, outcome)

    def missed(self) -> None:
        self._cache.forget()
        self._gate.forget()
        # A rename that was missed may have been before a post that is yet to come, with the old name.
        asyncio.get_running_loop().call_later(_IN_FLIGHT_S, self._cache.names_changed)

    def accounts_changed(self) -> None:
        """Another program changed accounts, see embedded.users."""
        self._gate.forget()
        self._cache.names_changed()
