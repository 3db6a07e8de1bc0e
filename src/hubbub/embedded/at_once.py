"""The most frequent requests, answered from memory without waiting: no coroutine, one call for each step.

An answer is the same as by the other ports: it comes from the same cache, by the same code. Only what the cache holds
already counts: a member's role, the chat, its messages. Who is not known there is not refused here.
"""

from __future__ import annotations

from collections.abc import Callable

from hubbub.chat.model import ChatKey, KeptPage, User
from hubbub.chat.ticket import Ticket
from hubbub.embedded.intake import DirectIntake
from hubbub.embedded.view import MemoryCache
from hubbub.http.limits import LocalGate


class FromMemory:
    """See chat.ports.AtOnce. ``catch_up`` comes first: it makes the cache and the gate as new as every answer given
    before, by any process. The gate comes last, as it counts.
    """

    def __init__(self, cache: MemoryCache, intake: DirectIntake, gate: LocalGate, catch_up: Callable[[], None]) -> None:
        self._cache = cache
        self._intake = intake
        self._gate = gate
        self._catch_up = catch_up

    def newest(self, user: User, mark: str, key: ChatKey, limit: int) -> KeptPage | None:
        self._catch_up()
        page = self._cache.newest_at_once(user.id, key, limit)
        if page is None or not self._gate.let_in(user.id, mark):
            return None
        self._cache.hits += 1
        return page

    def chats(self, user: User, mark: str, token: str, limit: int) -> bytes | None:
        self._catch_up()
        page = self._cache.chats_at_once(user.id, token, limit)
        return page if page is not None and self._gate.let_in(user.id, mark) else None

    def post(self, user: User, mark: str, key: ChatKey, body: str, trace: str) -> Ticket | None:
        self._catch_up()
        if self._cache.holds(user.id, key) and self._gate.let_in(user.id, mark):
            return self._intake.post_at_once(user, key, body, trace)
        return None
