"""Applications and their members: who may do what. ``enter`` lets only members in, and gives a Membership."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable

from msgspec.structs import replace

from hubbub.chat.accounts import normalized_email
from hubbub.chat.caller import Caller
from hubbub.chat.codes import hash_of, new_code
from hubbub.chat.commands import (
    AcceptInvite,
    AddApplication,
    AddChat,
    AddInvite,
    DeleteApplication,
    HandOver,
    PutMember,
    RemoveInvite,
    RemoveMember,
    RenameApplication,
)
from hubbub.chat.encoding import encode_chats
from hubbub.chat.errors import ChatError, Forbidden, Invalid, NotFound
from hubbub.chat.model import Application, Invite, Joined, Member, Role, is_token
from hubbub.chat.ports import Ports
from hubbub.chat.quotas import Made
from hubbub.chat.registration import wrong_invite


def no_invite() -> NotFound:
    return NotFound("There is no such invite in this application.")


def no_application() -> NotFound:
    """What a stranger is told, and anyone who asks for an application that there isn't: a stranger learns nothing."""
    return NotFound("There is no such application, or you are not a member of it.")


def no_member() -> NotFound:
    return NotFound("There is no such member in this application.")


def must_own() -> Forbidden:
    """What is told to somebody who hands over or deletes what is another's."""
    return Forbidden("Only the application's owner may do this.")


def must_manage() -> Forbidden:
    """What is told to somebody who changes what the owner and admins change."""
    return Forbidden("Only the application's owner and its admins may do this.")


def refusal(role: Role | None, *, owner: bool = False) -> ChatError | None:
    """Why somebody with this role, or with none, may not do what those who manage may, or the ``owner`` alone."""
    if role is None:
        return no_application()
    if owner:
        return None if role is Role.OWNER else must_own()
    return None if role.manages else must_manage()


def handed_over(command: HandOver) -> list[tuple[Role, int]]:
    """The roles that the command gives, and to whom. The last counts: the owner may name themself."""
    return [(Role.ADMIN, command.owner_id), (Role.OWNER, command.new_owner_id)]


class Applications:
    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def enter(self, caller: Caller, token: str) -> Membership:
        """Raises NotFound for a stranger, and where there is no such application."""
        role = await self._ports.view.role(caller, token) if is_token(token) else None
        if role is None:
            raise no_application()
        return Membership(self._ports, caller, token, role)

    async def add(self, caller: Caller, name: str) -> str:
        """A new application owned by the caller. Returns its token, 128 random bits. Raises RateLimited."""
        await self._ports.quotas.take(caller.user.id, Made.APPLICATIONS)
        token = secrets.token_urlsafe(16)
        await self._ports.intake.accept(AddApplication(token, name, caller.user.id, self._ports.now()))
        return token

    async def accept(self, caller: Caller, code: str) -> Joined:
        """Join by an invite; a role that the caller has already is never lowered. Raises WrongCode."""
        token = await self._ports.store.invite_token(hash_of(code))
        if token is None:
            raise wrong_invite()
        command = AcceptInvite(token, hash_of(code), caller.user.id, self._ports.now())
        joined: Joined = await self._ports.intake.accept(command)
        return joined

    async def joined(self, caller: Caller, *, offset: int, limit: int) -> list[Application]:
        """Those that the caller is a member of, newest first."""
        async with self._ports.deep_pages.turn(caller.user.id, offset):
            return await self._ports.store.applications_of(caller.user.id, offset=offset, limit=limit)


class Membership:
    """What a member may do in an application. For one request: the role is that of when it came in. Another may be
    stored when a command comes to the store, which looks at it again.
    """

    __slots__ = ("_caller", "_ports", "_token", "role")

    def __init__(self, ports: Ports, caller: Caller, token: str, role: Role) -> None:
        self._ports = ports
        self._caller = caller
        self._token = token
        self.role = role

    def must_manage(self) -> None:
        """Raises Forbidden unless the caller is the owner or an admin."""
        if not self.role.manages:
            raise must_manage()

    async def get(self) -> Application:
        application = await self._ports.store.application(self._token)
        if application is None:
            raise no_application()
        return application

    async def rename(self, name: str) -> None:
        self.must_manage()
        await self._ports.intake.accept(RenameApplication(self._token, name, self._caller.user.id))

    async def delete(self) -> None:
        """The application and all that is in it. Raises Forbidden unless the caller is the owner."""
        if self.role is not Role.OWNER:
            raise must_own()
        await self._ports.intake.accept(DeleteApplication(self._token, self._caller.user.id))

    async def members(self, *, offset: int, limit: int) -> list[Member]:
        """The oldest accounts first. Emails are for the owner and admins alone."""
        async with self._ports.deep_pages.turn(self._caller.user.id, offset):
            members = await self._ports.store.members(self._token, offset=offset, limit=limit)
        return members if self.role.manages else [replace(member, email=None) for member in members]

    async def put_member(self, email: str, role: Role) -> Member:
        """Add a member, or change one's role. Raises RateLimited."""
        self.must_manage()
        await self._ports.quotas.take(self._caller.user.id, Made.MEMBERS)
        found = await self._ports.store.user_by_email(normalized_email(email))
        if found is None:
            raise Invalid(["email has no account here: the user must register first"])
        await self._ports.intake.accept(PutMember(self._token, found[0].id, role, self._caller.user.id))
        return Member(found[0].ref, found[0].email, found[0].name, role)

    async def remove_member(self, email: str) -> None:
        """Remove a member; everybody may remove themself, but the owner."""
        user = self._caller.user
        if normalized_email(email) == user.email:
            if self.role is Role.OWNER:
                raise Forbidden("The owner can't leave the application. Hand it over first, or delete it.")
            await self._ports.intake.accept(RemoveMember(self._token, user.id, user.id))
            return
        self.must_manage()
        await self._ports.intake.accept(RemoveMember(self._token, await self._other(email), user.id))

    async def hand_over(self, email: str) -> None:
        """Make another member the owner; who was is an admin from then on. Raises Forbidden unless the caller is."""
        if self.role is not Role.OWNER:
            raise must_own()
        await self._ports.intake.accept(HandOver(self._token, self._caller.user.id, await self._other(email)))

    async def _other(self, email: str) -> int:
        """A member, looked for among the application's alone: whether an account that is none of these has the email is
        told by neither the answer nor its time.
        """
        found = await self._ports.store.member(self._token, normalized_email(email))
        if found is None:
            raise no_member()
        return found

    async def add_invite(self, role: Role, *, lifetime_s: int, uses: int) -> tuple[Invite, str]:
        """An invite to the application, and its code, which nobody is told again. Raises RateLimited."""
        self.must_manage()
        await self._ports.quotas.take(self._caller.user.id, Made.INVITES)
        code, now = new_code(), self._ports.now()
        invite = Invite(secrets.token_urlsafe(9), role, uses, 0, now, now + lifetime_s * 1000)
        await self._ports.intake.accept(AddInvite(self._token, invite, code.hash, self._caller.user.id))
        return invite, code.text

    async def invites(self, *, offset: int, limit: int) -> list[Invite]:
        """Those that have not expired, newest first."""
        self.must_manage()
        async with self._ports.deep_pages.turn(self._caller.user.id, offset):
            return await self._ports.store.invites(self._token, self._ports.now(), offset=offset, limit=limit)

    async def remove_invite(self, ref: str) -> None:
        """Who has joined by it stays. Raises NotFound."""
        self.must_manage()
        if not is_token(ref):  # a database need not take any text
            raise no_invite()
        await self._ports.intake.accept(RemoveInvite(self._token, ref, self._caller.user.id))

    async def add_chat(self, title: str | None) -> int:
        """A new chat's number. Raises RateLimited."""
        await self._ports.quotas.take(self._caller.user.id, Made.CHATS)
        number: int = await self._ports.intake.accept(AddChat(self._token, title, self._ports.now()))
        return number

    def chats(self, *, offset: int = 0, limit: int = 10) -> Awaitable[bytes]:
        """The application's chats as JSON, newest first."""
        return self._older_chats(offset, limit) if offset else self._ports.view.chats(self._caller, self._token, limit)

    async def _older_chats(self, offset: int, limit: int) -> bytes:
        async with self._ports.deep_pages.turn(self._caller.user.id, offset):
            return encode_chats(await self._ports.store.chats(self._token, offset=offset, limit=limit))
