"""Accounts: who a caller is."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from msgspec.structs import replace

from hubbub.chat.commands import AddUser, DeleteUser, EndSession, EndSessions, RenameUser, SetPassword
from hubbub.chat.errors import Invalid, NotFound, Unauthenticated
from hubbub.chat.model import User
from hubbub.chat.ports import Intake, Passwords, Store


def normalized_email(email: str) -> str:
    """The form in which emails are stored and compared: case does not matter."""
    return email.strip().lower()


def must_hand_over(owned: int) -> Invalid:
    """The refusal for a user who owns this many applications and would be deleted."""
    them = "the application that you own" if owned == 1 else f"the {owned} applications that you own"
    return Invalid([f"hand over or delete {them} first: an application can't be without an owner"])


def session_over() -> Unauthenticated:
    """The refusal of a command whose session ended while it was under way."""
    return Unauthenticated("This session has ended. Log in again.")


def account_gone() -> Unauthenticated:
    """The refusal of a command of a user who was deleted a moment ago: their sessions have ended too."""
    return Unauthenticated("This account has been deleted.")


def no_account() -> NotFound:
    """The refusal of a command about another user, who was deleted a moment ago."""
    return NotFound("There is no such account.")


async def existing(store: Store, email: str) -> User:
    """The user with this email. Raises NotFound."""
    found = await store.user_by_email(normalized_email(email))
    if found is None:
        raise NotFound(f"There is no account with the email {email}.")
    return found[0]


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
        """The command that makes an account, with the password's hash."""
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
            Unauthenticated: wrong password or unknown email. Neither text nor time shows which.
        """
        found = await self._store.user_by_email(normalized_email(email))
        matches = await self._passwords.verify(password, found[1] if found else None)
        if found is None or not matches:
            raise Unauthenticated("The email or the password is wrong.")
        return found[0]

    async def user(self, ref: str) -> User | None:
        return await self._store.user_by_ref(ref)

    async def end_session(self, user: User, session: str, expires_at: int) -> None:
        """End the user's session: its tokens are invalid once this returns. ``expires_at`` (ms) is when they would
        expire anyway.
        """
        await self._intake.accept(EndSession(session, expires_at, user.id))

    async def end_sessions(self, user: User) -> None:
        """End all of the user's sessions: their tokens are invalid once this returns."""
        await self._intake.accept(EndSessions(user.id, secrets.token_urlsafe(9)))

    async def must_know_password(self, user: User, password: str) -> None:
        """Raises Unauthenticated when the password is not the user's."""
        found = await self._store.user_by_email(user.email)
        if not await self._passwords.verify(password, found[1] if found else None):
            raise Unauthenticated("The current password is wrong.")

    async def rename(self, user: User, name: str) -> User:
        """Change the user's name. Returns the user with the new name."""
        await self._intake.accept(RenameUser(user.id, name))
        return replace(user, name=name)

    async def set_password(self, user: User, password: str) -> User:
        """Set the user's password. All earlier sessions are invalid once this returns. Returns the user with the new
        era.
        """
        era = secrets.token_urlsafe(9)
        hashed = await self._passwords.hash(password)
        await self._intake.accept(SetPassword(user.id, hashed, era, asked_in=user.era))
        return replace(user, era=era)

    async def delete(self, user: User, *, erase: bool) -> None:
        """Delete the account: it is gone once this returns, and none of its tokens works. Its messages stay under
        another name, or are erased a little later (``erase``).

        Raises:
            Invalid: the user owns applications.
        """
        await self._intake.accept(DeleteUser(user.id, secrets.token_urlsafe(9), erase, asked_in=user.era))

    async def session_lives(self, user: User, era: str, session: str) -> bool:
        return await self._store.session_lives(user.id, era, session)
