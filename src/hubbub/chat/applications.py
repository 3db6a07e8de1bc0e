"""Applications and their members: who may do what."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from hubbub.chat.accounts import normalized_email
from hubbub.chat.commands import AddApplication, PutMember, RemoveMember, RenameApplication
from hubbub.chat.errors import Forbidden, Invalid, NotFound
from hubbub.chat.model import Application, Member, Role, User
from hubbub.chat.ports import Intake, Store, View

_NO_APPLICATION = "There is no such application, or you are not a member of it."


class Applications:
    def __init__(self, store: Store, intake: Intake, view: View, now: Callable[[], int]) -> None:
        self._store = store
        self._intake = intake
        self._view = view
        self._now = now

    async def role(self, user: User, token: str, seen: object = None) -> Role:
        """The user's role in the application.

        Raises:
            NotFound: no such application, or the user is a stranger to it: a stranger learns nothing.
        """
        role = await self._view.role(token, user.id, seen) if token.isascii() else None  # no token ever is not
        if role is None:
            raise NotFound(_NO_APPLICATION)
        return role

    async def must_manage(self, user: User, token: str) -> None:
        """Raises Forbidden unless the user is the owner or an admin, NotFound for a stranger."""
        if not (await self.role(user, token)).manages:
            raise Forbidden("Only the application's owner and its admins may do this.")

    async def add(self, user: User, name: str) -> str:
        """A new application owned by the user. Returns its token, 128 random bits."""
        token = secrets.token_urlsafe(16)
        await self._intake.accept(AddApplication(token, name, user.id, self._now()))
        return token

    async def rename(self, user: User, token: str, name: str) -> None:
        await self.must_manage(user, token)
        await self._intake.accept(RenameApplication(token, name))

    async def get(self, user: User, token: str) -> Application:
        await self.role(user, token)
        application = await self._store.application(token)
        if application is None:
            raise NotFound(_NO_APPLICATION)
        return application

    async def joined(self, user: User, *, offset: int, limit: int) -> list[Application]:
        return await self._store.applications_of(user.id, offset=offset, limit=limit)

    async def members(self, user: User, token: str) -> list[Member]:
        await self.role(user, token)
        return await self._store.members(token)

    async def put_member(self, user: User, token: str, email: str, role: Role) -> Member:
        await self.must_manage(user, token)
        found = await self._store.user_by_email(normalized_email(email))
        if found is None:
            raise Invalid(["email belongs to nobody here: the user must register first"])
        await self._intake.accept(PutMember(token, found[0].id, role))
        return Member(found[0].email, found[0].name, role)

    async def remove_member(self, user: User, token: str, email: str) -> None:
        await self.must_manage(user, token)
        found = await self._store.user_by_email(normalized_email(email))
        if found is None:
            raise NotFound("There is no such member in this application.")
        await self._intake.accept(RemoveMember(token, found[0].id))
