"""A process's cache of applications and of chats' newest pages. Each is used only while its version is current.

The gate reads the current version in the round trip that each request makes anyway (scripts/enter.lua), so processes
need not send each other invalidations.
"""

from __future__ import annotations

import time
from collections import OrderedDict

from hubbub.chat.encoding import page_of
from hubbub.chat.model import ChatKey, KeptPage, Role

_APPLICATIONS = 50_000
_BYTES = 64 * 1024 * 1024
_UNKNOWN = (0.0, None)
_OVERHEAD = 1200  # bytes a page costs beside its messages, with the fields of its answer


class Application:
    """What is remembered of an application while its version stays the same. ``page`` is the list of newest chats that
    was read last: its limit, the time until which its counts may be used, and the list. ``kept`` says that the lifetime
    of the version in Redis was extended, because the application exists."""

    __slots__ = ("kept", "page", "roles", "version")

    def __init__(self, version: bytes) -> None:
        self.version = version
        self.kept = False
        self.roles: dict[int, tuple[float, Role]] = {}
        self.page: tuple[int, float, bytes] = (0, 0.0, b"")

    def role(self, user_id: int) -> Role | None:
        """The member's role, if it was read lately."""
        until, role = self.roles.get(user_id, _UNKNOWN)
        return role if time.monotonic() < until else None

    def chats(self, limit: int) -> bytes | None:
        """The list of this many chats, if its counts may still be used."""
        listed, until, page = self.page
        return page if listed == limit and time.monotonic() < until else None


class Applications:
    """The remembered applications. When there are too many, the one that was added first is removed."""

    def __init__(self) -> None:
        self._known: dict[str, Application] = {}

    def get(self, token: str) -> Application | None:
        return self._known.get(token)

    def at(self, token: str, version: bytes) -> Application:
        """What is remembered at this version; an empty Application when the version is new."""
        application = self._known.get(token)
        if application is None or application.version != version:
            if application is None and len(self._known) >= _APPLICATIONS:
                del self._known[next(iter(self._known))]
            application = self._known[token] = Application(version)
        return application


class NewestPage:
    """The newest messages of a chat, ``limit`` and one more where there are more: ``items`` are numbers and JSON,
    newest first. ``size`` is what it costs in bytes. Invariant: it is what a reader gets at ``version``."""

    __slots__ = ("_kept", "items", "limit", "size", "version")

    def __init__(self, version: bytes, limit: int, items: list[tuple[int, bytes]]) -> None:
        self.version = version
        self.limit = limit
        self.items = items
        self.size = _OVERHEAD + sum(len(item) for _, item in items)
        self._kept: KeptPage | None = None

    @property
    def kept(self) -> KeptPage:
        """The page; it is encoded when it is first asked for."""
        if self._kept is None:
            self._kept = KeptPage(self.limit, page_of(self.items[: self.limit], more=len(self.items) > self.limit))
        return self._kept

    def add(self, version: bytes, number: int, item: bytes) -> None:
        """Add a message that was shown, which made ``version`` the current one."""
        items = self.items
        at = 0
        while at < len(items) and items[at][0] > number:
            at += 1
        if at <= self.limit:
            items.insert(at, (number, item))
            self.size += len(item)
            if len(items) > self.limit + 1:
                self.size -= len(items.pop()[1])
            self._kept = None
        self.version = version


class Pages:
    """The newest pages of chats, for one limit. Their bytes are bounded; the least recently used page is removed first.

    ``hits`` and ``misses`` count the requests for pages that were here, and those that were not.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._known: OrderedDict[ChatKey, NewestPage] = OrderedDict()
        self._bytes = 0
        self.hits = 0
        self.misses = 0

    def version(self, key: ChatKey) -> bytes:
        """The version of the chat's page in this cache; empty when there is none."""
        page = self._known.get(key)
        return b"" if page is None else page.version

    def get(self, key: ChatKey, version: bytes) -> NewestPage | None:
        page = self._known.get(key)
        if page is None or page.version != version:
            return None
        self.hits += 1
        self._known.move_to_end(key)
        return page

    def put(self, key: ChatKey, page: NewestPage) -> None:
        self.misses += 1
        before = self._known.pop(key, None)
        self._known[key] = page
        self._bytes += page.size - (0 if before is None else before.size)
        while self._bytes > _BYTES:
            _, gone = self._known.popitem(last=False)
            self._bytes -= gone.size

    def shown(self, key: ChatKey, version: bytes, number: int, item: bytes) -> None:
        """Add a message that this process has shown, which made ``version`` the chat's current one. The page is updated
        only if it has the version before that."""
        page = self._known.get(key)
        if page is None:
            return
        epoch, _, count = version.rpartition(b".")
        if page.version == b"%b.%d" % (epoch, int(count) - 1):
            size = page.size
            page.add(version, number, item)
            self._bytes += page.size - size


def soon(seconds: float) -> float:
    """The time on the monotonic clock in ``seconds`` seconds."""
    return time.monotonic() + seconds
