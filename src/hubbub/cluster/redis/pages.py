"""What a process remembers of applications and of chats' newest pages, each used only while its version is current.

The version comes with what a request pays anyway (scripts/enter.lua), so nothing has to be told to other processes.
"""

from __future__ import annotations

import time
from collections import OrderedDict

from hubbub.chat.model import ChatKey, Page, Role

_APPLICATIONS = 50_000
_BYTES = 64 * 1024 * 1024
_OVERHEAD = 400  # bytes a page costs beside its messages


class Application:
    """What is remembered of an application while its version stays the same. ``page`` is its list of newest
    chats that was read last: the limit, the moment until which its counts are good, and the list. ``kept``: Redis was
    told that there is such an application, so that it keeps the version."""

    __slots__ = ("kept", "page", "roles", "version")

    def __init__(self, version: bytes) -> None:
        self.version = version
        self.kept = False
        self.roles: dict[int, tuple[float, Role]] = {}
        self.page: tuple[int, float, bytes] = (0, 0.0, b"")


class Applications:
    """Bounded: when there are too many, the one that is held longest goes."""

    def __init__(self) -> None:
        self._known: dict[str, Application] = {}

    def get(self, token: str) -> Application | None:
        return self._known.get(token)

    def at(self, token: str, version: bytes) -> Application:
        """What is remembered at this version; nothing yet when it is new."""
        application = self._known.get(token)
        if application is None or application.version != version:
            if application is None and len(self._known) >= _APPLICATIONS:
                del self._known[next(iter(self._known))]
            application = self._known[token] = Application(version)
        return application


class NewestPage:
    """The newest messages of a chat, ``limit`` and one more where there are more: ``items`` are numbers and JSON,
    newest first. ``size`` is what it costs in bytes. Invariant: it is what a reader gets at ``version``."""

    __slots__ = ("_page", "items", "limit", "size", "version")

    def __init__(self, version: bytes, limit: int, items: list[tuple[int, bytes]]) -> None:
        self.version = version
        self.limit = limit
        self.items = items
        self.size = _OVERHEAD + sum(len(item) for _, item in items)
        self._page: Page | None = None

    @property
    def page(self) -> Page:
        """Encoded when it is first asked for."""
        if self._page is None:
            shown = self.items[: self.limit]
            self._page = Page(
                body=b"[" + b",".join([item for _, item in shown]) + b"]",
                oldest=shown[-1][0] if shown else None,
                newest=shown[0][0] if shown else None,
                more=len(self.items) > self.limit,
            )
        return self._page

    def add(self, version: bytes, number: int, item: bytes) -> None:
        """A message was shown, and the version is the next."""
        items = self.items
        at = 0
        while at < len(items) and items[at][0] > number:
            at += 1
        if at <= self.limit:
            items.insert(at, (number, item))
            self.size += len(item)
            if len(items) > self.limit + 1:
                self.size -= len(items.pop()[1])
            self._page = None
        self.version = version


class Pages:
    """The newest pages of chats, for one limit. Bounded by their bytes, least recently used out.

    ``hits`` and ``misses`` count the lists that were here, and those that were not.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._known: OrderedDict[ChatKey, NewestPage] = OrderedDict()
        self._bytes = 0
        self.hits = 0
        self.misses = 0

    def version(self, key: ChatKey) -> bytes:
        """Of the page that is here; empty when there is none."""
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
        """This process has had a message shown, which made the chat's version what it is: so the page follows, where it
        was at the version before."""
        page = self._known.get(key)
        if page is None:
            return
        epoch, _, count = version.rpartition(b".")
        if page.version == b"%b.%d" % (epoch, int(count) - 1):
            size = page.size
            page.add(version, number, item)
            self._bytes += page.size - size


def soon(seconds: float) -> float:
    """The moment in so many seconds, for what is remembered no longer than that."""
    return time.monotonic() + seconds
