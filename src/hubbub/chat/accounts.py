"""Who a caller is."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from hubbub.chat.commands import AddUser, EndSession, EndSessions
from hubbub.chat.errors import Unauthenticated
from hubbub.chat.model import User
from hubbub.chat.ports import Intake, Passwords, Store


def normalized_email(email: str) -> str:
    """The form in which emails are stored and compared: case does not matter."""
    return email.strip().lower()


class Accounts:
    def __init__(self, store: Store, intake: Intake, passwords: Passwords, now: Callable[[], int]) -> None:
        self._store = store
        self._intake = intake
        self._passwords = passwords
        self._now = now

    async def register(self, *, name: str, email: str, password: str) -> User:
        """A new account.

        Raises:
            Invalid: the email is taken.
        """
        user: User = await self._intake.accept(await self.prepared(name=name, email=email, password=password))
        return user

    async def prepared(self, *, name: str, email: str, password: str) -> AddUser:
        """What makes an account, with the password's hash."""
        return AddUser(
            ref=secrets.token_urlsafe(12),
            email=normalized_email(email),
            name=name,
            password_hash=await self._passwords.hash(password),
            created_at=self._now(),
        )

    async def authenticate(self, *, email: str, password: str) -> User:
        """The user with these credentials.

        Raises:
            Unauthenticated: wrong password or unknown email, told apart by neither text nor time.
        """
        found = await self._store.user_by_email(normalized_email(email))
        matches = await self._passwords.verify(password, found[1] if found else None)
        if found is None or not matches:
            raise Unauthenticated("The email or the password is wrong.")
        return found[0]

    async def user(self, ref: str) -> User | None:
        return await self._store.user_by_ref(ref)

    async def end_session(self, session: str, expires_at: int) -> None:
        """The session's tokens are dead once this returns; ``expires_at`` (ms) is when they would have died anyway."""
        await self._intake.accept(EndSession(session, expires_at))

    async def end_sessions(self, user: User) -> None:
        """The tokens of all sessions that the user has begun are dead once this returns."""
        await self._intake.accept(EndSessions(user.id, secrets.token_urlsafe(9)))

    async def session_lives(self, user: User, era: str, session: str) -> bool:
        return await self._store.session_lives(user.id, era, session)
