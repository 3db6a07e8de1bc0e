"""Phase 1: users, applications and chats for the workers; what an earlier run left is used again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from hubbub.loadtest.client import CallFailed, Client
from hubbub.loadtest.script import Seat

_AT_ONCE = 8
_PATIENCE = 70  # seconds, for a limit that is used up
_PASSWORD = "performance-test"  # noqa: S105 - of users that exist for this test alone
STRANGER = "perftest-stranger@example.com"

T = TypeVar("T")


class SetupFailed(Exception):
    """The service can't be reached, or did not answer as the contract says."""


async def prepare(url: str, workers: int, *, chats: int = 1, members: int = 1) -> list[Seat]:
    """A seat for each worker: ``members`` of them share an application, which has ``chats`` chats.

    Raises:
        SetupFailed
    """
    clients = await _each(range(workers), lambda number: _log_in(url, f"perftest{number}@example.com", number))
    try:

        async def application(first: int) -> tuple[str, tuple[int, ...]]:
            owner = clients[first]
            token = await _token(owner, f"Performance test {first}" + (f" of {members}" if members > 1 else ""))
            wanted = [f"perftest{member}@example.com" for member in range(first + 1, min(first + members, workers))]
            there = await _members(owner, token) if wanted else set()
            for email in wanted:
                if email not in there:
                    await _add(owner, token, email)
            return token, await _chats(owner, token, chats)

        owned = await _each(range(0, workers, members), application)
        return [Seat(client.cookie, *owned[number // members]) for number, client in enumerate(clients)]
    except CallFailed as error:
        raise SetupFailed(str(error)) from error
    finally:
        for client in clients:
            client.close()


async def stranger(url: str) -> str:
    """The cookie of a user who belongs to no application. Raises SetupFailed."""
    client = await _log_in(url, STRANGER, 0)
    client.close()
    return client.cookie


async def _each(numbers: range, work: Callable[[int], Awaitable[T]]) -> list[T]:
    """The results in order, some at a time; the first failure ends all."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> T:
        async with gate:
            return await work(number)

    tasks = [asyncio.ensure_future(one(number)) for number in numbers]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def _log_in(url: str, email: str, number: int) -> Client:
    client = Client(url)
    account = {"name": f"Perftest {number}", "email": email, "password": _PASSWORD}
    try:
        # New data is the common case, and one password is hashed for it instead of two. A taken email is a 422.
        status, answer = await _patiently(client, "/auth/register", account)
        if status == 422:
            status, answer = await _patiently(client, "/auth/login", {"email": email, "password": _PASSWORD})
    except CallFailed as error:
        raise SetupFailed(str(error)) from error
    if status not in (200, 201):
        client.close()
        raise SetupFailed(f"{email} could neither register nor log in (status {status}: {answer}).")
    return client


async def _patiently(client: Client, path: str, content: Any) -> tuple[int, Any]:
    """Thousands of users come from this one address: wait where the service says that they are too many at once."""
    for _ in range(_PATIENCE):
        status, answer = await client.call("POST", path, content)
        if status != 429:
            break
        await asyncio.sleep(1)
    return status, answer


async def _token(client: Client, name: str) -> str:
    """Of the application of that name; made when there is none."""
    status, found = await client.call("GET", "/applications?limit=100")
    own = [application["token"] for application in found if application["name"] == name] if status == 200 else []
    if own:
        return str(own[0])
    return str(await _make(client, "/applications", "token", {"name": name}))


async def _members(owner: Client, token: str) -> set[str]:
    """Those that an earlier run added: a user may add only so many in an hour."""
    status, found = await owner.call("GET", f"/applications/{token}/members")
    return {member["email"] for member in found} if status == 200 else set()


async def _add(owner: Client, token: str, email: str) -> None:
    path = f"/applications/{token}/members"
    status, answer = await owner.call("POST", path, {"email": email, "role": "member"})
    if status not in (200, 201, 409, 422):  # the last two: a member already
        raise SetupFailed(f"POST {path} answered {status}: {answer}.")


async def _chats(client: Client, token: str, wanted: int) -> tuple[int, ...]:
    path = f"/applications/{token}/chats"
    numbers: list[int] = []
    for page in range(1, -(-wanted // 100) + 1):
        status, found = await client.call("GET", f"{path}?limit=100&page={page}")
        if status != 200 or not found:
            break
        numbers += [chat["chatNumber"] for chat in found]
    while len(numbers) < wanted:
        numbers.append(await _make(client, path, "chatNumber", None))
    return tuple(sorted(numbers[:wanted]))


async def _make(client: Client, path: str, field: str, content: Any) -> Any:
    status, made = await client.call("POST", path, content)
    if status != 201:
        raise SetupFailed(f"POST {path} answered {status}: {made}.")
    return made[field]
