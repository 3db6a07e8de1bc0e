"""Limits how often an address may try to log in, register or use a code, and how often a user may change their name."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from hubbub.chat.accounts import normalized_email
from hubbub.chat.errors import ChatError, Unauthenticated, UsedUp, WrongCode
from hubbub.chat.limits import (
    AT_ONCE_OF_ADDRESS,
    FAILURES_HERE,
    FAILURES_OF_ACCOUNT,
    FAILURES_OF_ADDRESS,
    FAILURES_OF_SESSIONS,
    REGISTRATIONS_OF_ADDRESS,
    RENAMES_OF_USER,
    REQUESTS_OF_ADDRESS,
    RESETS_OF_ACCOUNT,
    RESETS_OF_ADDRESS,
    WRONG_CODES_OF_ADDRESS,
)
from hubbub.chat.ports import Counts


def _account(email: str) -> str:
    """The key for the account with this email, whether there is one or not."""
    return hashlib.sha256(normalized_email(email).encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Logins:
    """Counts tries, and refuses those above the limits. Invariant: a login counts as failed from before its password is
    checked until it has succeeded. So sending many at once gains nothing.
    """

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._under_way: Counter[str] = Counter()

    @asynccontextmanager
    async def registration(self, address: str) -> AsyncIterator[None]:
        """Around one registration, which counts whether it succeeds or not.

        Raises:
            UsedUp: the address has sent too many.
        """
        await self._counts.take([(REQUESTS_OF_ADDRESS, address), (REGISTRATIONS_OF_ADDRESS, address)])
        with self._place(address):
            yield

    @asynccontextmanager
    async def attempt(self, address: str, email: str, *, proven: bool = False) -> AsyncIterator[None]:
        """Around one login, which fails by raising Unauthenticated. ``proven`` says that it comes with a session of the
        same account: then failures of clients without one don't block it.

        Raises:
            UsedUp: too many have failed; nothing was tried.
        """
        account = _account(email)
        give_back = await self._counts.take(
            [
                (FAILURES_HERE, f"{address}/{account}"),
                (FAILURES_OF_ADDRESS, address),
                (FAILURES_OF_SESSIONS if proven else FAILURES_OF_ACCOUNT, account),
                (REQUESTS_OF_ADDRESS, address),
            ]
        )
        try:
            with self._place(address):
                yield
        except Unauthenticated:
            raise
        except ChatError:  # it was not tried
            await give_back()
            raise
        await give_back()

    @asynccontextmanager
    async def new_password(self, address: str) -> AsyncIterator[None]:
        """Around the hash of a password that is set, which costs as much as a login.

        Raises:
            UsedUp: the address has sent too many.
        """
        await self._counts.take([(REQUESTS_OF_ADDRESS, address)])
        with self._place(address):
            yield

    async def rename(self, user_id: int) -> None:
        """Count one change of the user's name. Raises UsedUp."""
        await self._counts.take([(RENAMES_OF_USER, str(user_id))])

    @asynccontextmanager
    async def code(self, address: str) -> AsyncIterator[None]:
        """Around one try of a code, which fails by raising WrongCode.

        Raises:
            UsedUp: too many have failed; nothing was tried.
        """
        give_back = await self._counts.take([(WRONG_CODES_OF_ADDRESS, address)])
        try:
            yield
        except WrongCode:
            raise
        except ChatError:
            await give_back()
            raise
        await give_back()

    async def reset(self, address: str, email: str) -> None:
        """Count one request for a new password, whether the account exists or not.

        Raises:
            UsedUp: too many were sent from the address or for the email.
        """
        await self._counts.take([(RESETS_OF_ADDRESS, address), (RESETS_OF_ACCOUNT, _account(email))])

    @contextmanager
    def _place(self, address: str) -> Iterator[None]:
        """Take one of the address's places in this process for the time of the block. Raises UsedUp."""
        if self._under_way[address] >= AT_ONCE_OF_ADDRESS:
            raise UsedUp(
                "Too many registrations, logins and new passwords from your address are under way. "
                "Wait before you try again.",
                what=f"at once:{address}",
                limit=AT_ONCE_OF_ADDRESS,
                retry_after=1,
            )
        self._under_way[address] += 1
        try:
            yield
        finally:
            self._under_way[address] -= 1
            if not self._under_way[address]:
                del self._under_way[address]
