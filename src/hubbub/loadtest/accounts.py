"""The accounts that a test makes in a service, and their removal with everything that they made.

They share a random password that this process makes and nobody else knows. The address of each is
``NAME@example.com``, or ``NAME-RUN@example.com`` where that is taken. An account is noted before it is asked for: where
the answer is lost, the removal finds out by a login whether it is there.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

import msgspec

from hubbub.loadtest.client import CallFailed, Client, NotConnected

_AT_ONCE = 8
_PATIENCE_S = 70.0  # for a limit that is used up
_UNREACHABLE_S = 5.0  # a service that is away for so long is not waited for, where only the removal is left
_AGAIN_S = 0.5
_ANSWER_S = 10.0
_NUMBERED = re.compile(r"(\D+)(\d+)(\D.*)", re.DOTALL)

T = TypeVar("T")
K = TypeVar("K")


class SetupFailed(Exception):
    """The service can't be reached, or did not answer as the contract says."""


class Account(msgspec.Struct):
    """``cookie`` is empty while it is not known whether the service has the account."""

    email: str
    cookie: str = ""


class _NotRemoved(Exception):
    """An account was not removed; the text says what the service answered."""


class Accounts:
    """The accounts of one run in the service at ``url``. ``run`` is in the names of its applications, and
    in addresses whose short form was taken."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.run = secrets.token_hex(4)
        self.password = secrets.token_urlsafe(18)
        self._there: dict[str, Account] = {}
        self._away = False

    async def add(self, name: str) -> tuple[Account, Client]:
        """Register an account; the caller closes its client. Raises SetupFailed."""
        client = Client(self.url)
        try:
            for email in (f"{name}@example.com", f"{name}-{self.run}@example.com"):
                status, answer = await self._register(client, name, email)
                if status in (200, 201):
                    self._there[email].cookie = client.cookie
                    return self._there[email], client
                del self._there[email]
                if status != 422:  # what a taken address gets
                    break
        except CallFailed as error:
            client.close()
            raise SetupFailed(str(error)) from error
        except BaseException:
            client.close()
            raise
        client.close()
        raise SetupFailed(f"{email} could not register (status {status}: {answer}).")

    async def _register(self, client: Client, name: str, email: str) -> tuple[int, Any]:
        """Noted in ``_there``, unless it was certainly never sent. Raises CallFailed."""
        self._there[email] = Account(email)
        try:
            content = {"name": name, "email": email, "password": self.password}
            return await _patiently(client, "/auth/register", content)
        except BaseException as error:
            if isinstance(error, NotConnected) or (not client.connected and not isinstance(error, CallFailed)):
                del self._there[email]
            raise

    def title(self, number: int) -> str:
        """The name of the application of worker ``number``."""
        return f"Performance test {number} (run {self.run})"

    @property
    def described(self) -> str:
        """The addresses of those that are there, or may be; empty when none is."""
        return ranges(list(self._there))

    async def remove(self) -> str | None:
        """Delete every account and its applications; returns why not all are gone, if so."""
        self._away = False
        outcomes = await each(list(self._there.values()), self._removed)
        return next((why for why in outcomes if why is not None), None)

    async def _removed(self, account: Account) -> str | None:
        client = Client(self.url, account.cookie)
        try:
            await self._remove(client, account)
        except (_NotRemoved, CallFailed) as error:
            return str(error).rstrip(".")
        finally:
            client.close()
        del self._there[account.email]
        return None

    async def _remove(self, client: Client, account: Account) -> None:
        """Raises _NotRemoved, CallFailed."""
        status, listed = 401, None
        if account.cookie:
            status, listed = await self._call(client, "GET", "/applications?limit=100")
        if status == 401:
            client.cookie = ""
            credentials = {"email": account.email, "password": self.password}
            status, _ = await self._call(client, "POST", "/auth/login", credentials)
            if status == 401:
                return  # it was never made, or is gone
            _expect(status, (200,), "POST /auth/login")
            status, listed = await self._call(client, "GET", "/applications?limit=100")
        _expect(status, (200,), "GET /applications")
        for application in listed or []:
            # Only what this run made: another user may have added the account to an application.
            if str(application.get("name", "")).endswith(f"(run {self.run})"):
                status, _ = await self._call(client, "DELETE", f"/applications/{application['token']}")
                # That of another account of the run is a 403; it goes with its owner, and is a 404 from then on.
                if status != 403:
                    _expect(status, (200, 202, 204, 404), "DELETE /applications/:token")
        status, _ = await self._call(client, "DELETE", "/auth/me", {"currentPassword": self.password})
        _expect(status, (200, 202, 204), "DELETE /auth/me")

    async def _call(self, client: Client, method: str, path: str, content: Any = None) -> tuple[int, Any]:
        """Waits a little for a service that is coming back, once for all accounts. Raises CallFailed."""
        until = time.monotonic() + _UNREACHABLE_S
        while True:
            try:
                status, answer = await client.call(method, path, content)
                if status not in (429, 503) or time.monotonic() > until + _PATIENCE_S:
                    return status, answer
            except CallFailed:
                self._away = self._away or time.monotonic() > until
                if self._away:
                    raise
            await asyncio.sleep(_AGAIN_S)


def _expect(status: int, good: tuple[int, ...], what: str) -> None:
    if status not in good:
        raise _NotRemoved(f"{what} answered {status}{' (it has no such route)' if status in (404, 405) else ''}")


async def _patiently(client: Client, path: str, content: Any) -> tuple[int, Any]:
    """Thousands of users come from this one address: wait where the service says that they are too many at once."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        status, answer = await _answered(client.call("POST", path, content))
        if status != 429 or time.monotonic() > until:
            return status, answer
        await asyncio.sleep(1)


async def _answered(call: Coroutine[Any, Any, T]) -> T:
    """Wait for the answer, also after a first cancellation: the service may still be hashing the password, and would
    make the account after the removal has looked for it.
    """
    task = asyncio.ensure_future(call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        try:
            await asyncio.wait([task], timeout=_ANSWER_S)
        finally:
            if not task.cancel() and not task.cancelled():
                task.exception()  # or the event loop would print it
        raise


async def each(things: Iterable[K], work: Callable[[K], Awaitable[T]]) -> list[T]:
    """The results in order, some at a time; the first failure ends all."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(thing: K) -> T:
        async with gate:
            return await work(thing)

    tasks = [asyncio.ensure_future(one(thing)) for thing in things]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            if not task.cancelling():  # a second one would be a second Ctrl-C
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def ranges(emails: list[str]) -> str:
    """The addresses, with neighbours by number as one range: ``a0@x to a4@x, b@x``."""
    found: list[tuple[str, int, str] | str] = []
    for email in emails:
        match = _NUMBERED.fullmatch(email)
        found.append((match[1], int(match[2]), match[3]) if match else email)
    shown: list[str] = []
    parts = sorted((part for part in found if isinstance(part, tuple)), key=lambda part: (part[0], part[2], part[1]))
    place = 0
    while place < len(parts):
        name, first, rest = parts[place]
        last = first
        while place + 1 < len(parts) and parts[place + 1] == (name, last + 1, rest):
            place, last = place + 1, last + 1
        shown.append(f"{name}{first}{rest}" + (f" to {name}{last}{rest}" if last > first else ""))
        place += 1
    return ", ".join([*shown, *(part for part in found if isinstance(part, str))])
