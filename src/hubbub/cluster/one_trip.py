"""The most frequent requests, answered by the trip to Redis that each request makes: plain calls, and no coroutine.

An answer is the same as by the other ports: it comes from the same caches, by the same code. Who is not known there as
a member is not refused here.
"""

from __future__ import annotations

from hubbub.chat.model import ChatKey, KeptPage, User
from hubbub.chat.ticket import Ticket
from hubbub.cluster.intake import QueuedIntake
from hubbub.cluster.redis.gate import RedisGate, Seen
from hubbub.cluster.redis.messages import RedisView


class RedisTrip:
    """See chat.ports.OneTrip."""

    def __init__(self, gate: RedisGate, view: RedisView, intake: QueuedIntake) -> None:
        self.ask = gate.ask
        self._view = view
        self._intake = intake

    def newest(self, user: User, brought: object, key: ChatKey, limit: int) -> KeptPage | None:
        if not isinstance(brought, Seen) or brought.application.role(user.id) is None:
            return None
        return self._view.current(brought, key, limit)

    def chats(self, user: User, brought: object, token: str, limit: int) -> bytes | None:
        if not isinstance(brought, Seen) or brought.application.role(user.id) is None:
            return None
        return brought.application.chats(limit)

    def post(self, user: User, brought: object, key: ChatKey, body: str, trace: str) -> Ticket | None:
        if not isinstance(brought, Seen) or brought.application.role(user.id) is None or brought.reserved is None:
            return None
        return self._intake.post_numbered(user, key, body, brought.reserved, trace)
