"""Phase 1: users, applications and chats for the workers."""

from __future__ import annotations

from typing import Any

from hubbub.loadtest.accounts import Account, Accounts, SetupFailed, each
from hubbub.loadtest.client import CallFailed, Client
from hubbub.loadtest.scenario import VirtualUser


async def prepare(accounts: Accounts, workers: int, *, chats: int = 1, members: int = 1) -> list[VirtualUser]:
    """A user for each worker: ``members`` of them share an application, which has ``chats`` chats.

    Raises:
        SetupFailed
    """
    clients: list[Client] = []

    async def user(number: int) -> tuple[Account, Client]:
        account, client = await accounts.add(f"perftest{number}")
        clients.append(client)
        return account, client

    async def application(first: int) -> tuple[str, tuple[int, ...]]:
        owner = users[first][1]
        token = str(await _make(owner, "/applications", "token", {"name": accounts.title(first)}))
        for member in range(first + 1, min(first + members, workers)):
            await _add(owner, token, users[member][0].email)
        path = f"/applications/{token}/chats"
        return token, tuple([await _make(owner, path, "chatNumber", None) for _ in range(chats)])

    try:
        users = await each(range(workers), user)
        owned = await each(range(0, workers, members), application)
        return [VirtualUser(account.cookie, *owned[number // members]) for number, (account, _) in enumerate(users)]
    except CallFailed as error:
        raise SetupFailed(str(error)) from error
    finally:
        for client in clients:
            client.close()


async def stranger(accounts: Accounts) -> str:
    """The cookie of a user who belongs to no application. Raises SetupFailed."""
    account, client = await accounts.add("perftest-stranger")
    client.close()
    return account.cookie


async def _add(owner: Client, token: str, email: str) -> None:
    path = f"/applications/{token}/members"
    status, answer = await owner.call("POST", path, {"email": email, "role": "member"})
    if status not in (200, 201):
        raise SetupFailed(f"POST {path} answered {status}: {answer}.")


async def _make(client: Client, path: str, field: str, content: Any) -> Any:
    status, made = await client.call("POST", path, content)
    if status != 201:
        raise SetupFailed(f"POST {path} answered {status}: {made}.")
    return made[field]
