"""Resets lost passwords: by a link that is sent to the account's email."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from hubbub.chat.accounts import normalized_email
from hubbub.chat.codes import hash_of, new_code
from hubbub.chat.commands import AddLink, ResetPassword
from hubbub.chat.model import Purpose, User
from hubbub.chat.ports import Intake, Passwords, Store
from hubbub.chat.registration import wrong_link

_LIFETIME_MS = 3600 * 1000


class Recovery:
    def __init__(self, store: Store, intake: Intake, passwords: Passwords, now: Callable[[], int]) -> None:
        self._store = store
        self._intake = intake
        self._passwords = passwords
        self._now = now

    async def begin(self, email: str) -> tuple[str, str] | None:
        """Make a link for the account, which replaces an earlier one. Returns the account's email and the link's code;
        None if there is no account.
        """
        found = await self._store.user_by_email(normalized_email(email))
        if found is None:
            return None
        code = new_code()
        await self._intake.accept(AddLink(Purpose.RESET, found[0].email, code.hash, self._now() + _LIFETIME_MS))
        return found[0].email, code.text

    async def user(self, code: str) -> User:
        """The user whose password the code sets. Raises WrongCode."""
        email = await self._store.link(Purpose.RESET, hash_of(code), self._now())
        found = None if email is None else await self._store.user_by_email(email)
        if found is None:
            raise wrong_link()
        return found[0]

    async def finish(self, user: User, code: str, password: str) -> None:
        """Set the password, and end all sessions of the user. Raises WrongCode."""
        password_hash = await self._passwords.hash(password)
        era = secrets.token_urlsafe(9)
        await self._intake.accept(ResetPassword(hash_of(code), password_hash, era, self._now(), user.id))
