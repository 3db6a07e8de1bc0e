"""Erases the messages of deleted accounts, one after another, each as an ordinary delete command."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence

from hubbub.chat.commands import DeleteMessage, EndErasure
from hubbub.chat.errors import ChatError, NotFound
from hubbub.chat.ports import Intake, Place, Sent, Store

log = logging.getLogger("hubbub")

_LOOK_S = 2.0
_AT_ONCE = 50


class Erasing:
    """The eraser of a process that takes commands; of several processes, one erases at a time. ``settled`` waits until
    the store has everything that was accepted before. A user's requests that were admitted before the account was
    deleted have ended long before Store.users_to_erase returns the user.

    It looks through all messages: an index of each user's messages would cost every post. Users who wait at the same
    time share one pass.
    """

    def __init__(self, store: Store, intake: Intake, settled: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._intake = intake
        self._settled = settled
        self._name = secrets.token_urlsafe(9)

    async def run(self) -> None:
        """Runs until cancelled."""
        fault = ""
        while True:
            try:
                users = await self._store.users_to_erase(self._name)
                if users:
                    await self._settled()
                    await self._walk(users)
                fault = ""
            except ChatError as error:
                if error.sentence != fault:
                    fault = error.sentence
                    log.info("The messages of deleted accounts will be erased later: %s", fault)
            await asyncio.sleep(_LOOK_S)

    async def _walk(self, users: Sequence[int]) -> None:
        place: Place | None = ()
        while place is not None:
            place, found = await self._store.sent_by(users, place)
            for at in range(0, len(found), _AT_ONCE):
                await asyncio.gather(*map(self._delete, found[at : at + _AT_ONCE]))
            await self._store.users_to_erase(self._name)  # so no other process begins
        await self._intake.accept(EndErasure(tuple(users)))

    async def _delete(self, sent: Sent) -> None:
        try:
            await self._intake.accept(DeleteMessage(sent.chat, sent.number, sent.sender_id, any_sender=False))
        except NotFound:
            return  # it, or its chat, has been deleted since
