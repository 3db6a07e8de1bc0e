"""Password hashes: argon2id, on two threads of their own."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from hubbub.chat.errors import Unavailable

T = TypeVar("T")

_NICE = 5  # added to what the process has
_MOST_WAITING = 500  # ten seconds of work, or twenty on slow cores


def _give_way() -> None:
    """Let all else have the CPU first: a hash takes it for some ten milliseconds. It does not hold the interpreter's
    lock, so nothing waits for this thread.
    """
    if sys.platform == "linux":  # elsewhere it would be the whole process
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICE)


class Argon2Passwords:
    """Hashes passwords, see chat.ports.Passwords. 19 MiB and two passes: the minimum for argon2id in OWASP's Password
    Storage Cheat Sheet."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="argon2", initializer=_give_way)
        self._waiting = 0
        # What an unknown user's password is compared with, so that it takes as long as a known one's.
        self._nobody = self._hasher.hash(secrets.token_urlsafe(16))

    async def hash(self, password: str) -> str:
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, password: str, password_hash: str | None) -> bool:
        def matches() -> bool:
            try:
                self._hasher.verify(password_hash or self._nobody, password)
            except (VerificationError, InvalidHashError):
                return False
            return password_hash is not None

        return await self._run(matches)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= _MOST_WAITING:
            raise Unavailable("Too many logins at once. Try again a little later.", retry_after=5)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
