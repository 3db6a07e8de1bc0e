"""Changes an account from outside the cluster's processes, which may be running."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hubbub.chat.accounts import existing
from hubbub.chat.commands import Command
from hubbub.chat.errors import ChatError, Unavailable
from hubbub.cluster.generations import follow
from hubbub.cluster.processes import Processes
from hubbub.cluster.redis.gate import sessions_change
from hubbub.cluster.redis.servers import Servers
from hubbub.cluster.service import database_of
from hubbub.cluster.store import MySqlStore
from hubbub.settings import Settings

_REACHED_WITHIN_S = 10.0


async def change_account(settings: Settings, email: str, command: Callable[[int], Command]) -> None:
    """Apply the command that ``command`` makes for the id of the account with this email. It is in effect in all
    processes when this returns.

    Raises:
        ChatError: a server can't be reached, there is no such account, or the command is refused.
        SchemaTooNew: a newer version wrote the database.
    """
    database = await asyncio.to_thread(database_of, settings, pool_size=2)
    store, servers = MySqlStore(database), Servers(settings.redis_urls)
    following = asyncio.create_task(follow(Processes(database), servers.clients))
    try:
        if not await servers.in_use(_REACHED_WITHIN_S):
            raise Unavailable("Redis can't be reached, or no API process was ever started on it. Nothing was changed.")
        user = await existing(store, email)
        over = await sessions_change(servers, user.id)  # see http.sessions
        (outcome,) = await asyncio.to_thread(store.apply, [command(user.id)])
        await over()
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await servers.close()
        database.close()
    if isinstance(outcome, ChatError):
        raise outcome
