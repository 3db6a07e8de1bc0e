"""Settings in, a running system out. The only file that knows every adapter."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hubbub.caches.memory import MemoryCache
from hubbub.chat.accounts import Accounts
from hubbub.chat.applications import Applications
from hubbub.chat.chats import Chats
from hubbub.chat.errors import ChatError
from hubbub.chat.intake import Intake
from hubbub.data_folder import DataFolder
from hubbub.http.api import Api
from hubbub.http.connection import Edge
from hubbub.http.hot import HotRoutes
from hubbub.http.limits import UserLimit
from hubbub.http.passwords import Argon2Passwords
from hubbub.http.routing import application
from hubbub.http.sessions import Sessions
from hubbub.queues.embedded import EmbeddedQueue
from hubbub.settings import Settings
from hubbub.stores.sqlite import SqliteStore
from hubbub.writer.writer import Writer


def _now() -> int:
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def embedded(settings: Settings, folder: DataFolder) -> AsyncIterator[Edge]:
    """Everything in this process. Leaving it finishes what was accepted."""
    store = SqliteStore(folder.database)
    store.forget_expired_sessions(_now())
    queue = EmbeddedQueue(Writer(store), max_commands=settings.queue_commands)
    passwords = Argon2Passwords()
    cache = MemoryCache(store)
    intake = Intake(queue, cache)
    accounts = Accounts(store, intake, passwords, _now)
    applications = Applications(store, intake, cache, _now)
    chats = Chats(applications, store, intake, cache, _now)
    sessions = Sessions(accounts, folder.secret, UserLimit(settings.user_rate))
    hot = HotRoutes(sessions, chats)

    async def ready() -> dict[str, str | None]:
        try:
            await store.application("")
            unreadable = None
        except ChatError as error:
            unreadable = error.sentence
        return {"queue": queue.fault, "store": unreadable}

    edge = Edge(hot, application(Api(accounts, applications, chats, sessions, hot, ready).routes()))
    edge.tick()
    sweeping = asyncio.create_task(edge.sweep())
    try:
        yield edge
    finally:
        sweeping.cancel()
        await queue.close()
        passwords.close()
        store.close()
