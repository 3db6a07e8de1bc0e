"""Erases the messages of deleted accounts, one after another, through the way in that every delete takes."""

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
    """One for each process that takes commands; of several, one is at it. ``settled`` waits until the store has all
    that was accepted before; a user's requests that were let in before the account was deleted are over long before
    Store.users_to_erase names the user.

    All messages that there are, are walked through: no index has those of one user, and it would cost every post.
    Users who wait share a walk.
    """

    def __init__(self, store: Store, intake: Intake, settled: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._intake = intake
        self._settled = settled
        self._name = secrets.token_urlsafe(9)

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                users = await self._store.users_to_erase(self._name)
                if users:
                    await self._settled()
                    await self._walk(users)
            except ChatError as error:
                log.info("The messages of deleted accounts are erased later: %s", error.sentence)
            await asyncio.sleep(_LOOK_S)

    async def _walk(self, users: Sequence[int]) -> None:
        place: Place | None = ()
        while place is not None:
            place, found = await self._store.sent_by(users, place)
            for at in range(0, len(found), _AT_ONCE):
                await asyncio.gather(*map(self._delete, found[at : at + _AT_ONCE]))
            await self._store.users_to_erase(self._name)  # nobody else begins meanwhile
        await self._intake.accept(EndErasure(tuple(users)))

    async def _delete(self, sent: Sent) -> None:
        try:
            await self._intake.accept(DeleteMessage(sent.chat, sent.number, sent.sender_id, any_sender=False))
        except NotFound:
            return  # it, or its chat, was deleted meanwhile
