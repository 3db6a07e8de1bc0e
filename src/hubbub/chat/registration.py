"""Registration: who may make an account."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Literal, TypeAlias

from hubbub.chat.accounts import Accounts, normalized_email
from hubbub.chat.codes import hash_of
from hubbub.chat.commands import AddInvitedUser, AddOperator
from hubbub.chat.errors import Forbidden, WrongCode
from hubbub.chat.model import Purpose, User
from hubbub.chat.ports import Intake, Store

Policy: TypeAlias = Literal["open", "invited", "closed"]


class Registration:
    """Makes accounts. ``reserved`` are the emails that make an account an operator's: nobody may register with one of
    them, because a registration does not prove who owns the email. Their accounts are made by a link, see ``set_up``;
    while there is such a link for an email, the store refuses to register it, whatever the setting names.
    """

    def __init__(
        self,
        store: Store,
        intake: Intake,
        accounts: Accounts,
        policy: Policy,
        reserved: Container[str],
        now: Callable[[], int],
    ) -> None:
        self._store = store
        self._intake = intake
        self._accounts = accounts
        self._policy = policy
        self._reserved = reserved
        self._now = now

    async def register(self, *, name: str, email: str, password: str, invite: str | None) -> User:
        """Make an account. With the code of an invite, it is a member of the invite's application from the start.

        Raises:
            Forbidden: the policy does not allow it, or the email makes an account an operator's.
            WrongCode: there is no such invite, or it is used up or expired.
            Invalid: the email is taken.
        """
        if self._policy == "closed":
            raise Forbidden("Registration is closed here: nobody can create an account.")
        if self._policy == "invited" and invite is None:
            raise Forbidden("Registration is by invitation here: send the code of an invite in the field `invite`.")
        token = None if invite is None else await self._store.invite_token(hash_of(invite))
        if invite is not None and token is None:  # before the email: only a user who is invited may learn of that
            raise wrong_invite()
        if normalized_email(email) in self._reserved:
            raise Forbidden(
                "This email is named in the setting `operators`. "
                "`hubbub operators add EMAIL` prints a link that creates its account."
            )
        if invite is None or token is None:
            return await self._accounts.register(name=name, email=email, password=password)
        account = await self._accounts.prepared(name=name, email=email, password=password)
        user: User = await self._intake.accept(AddInvitedUser(account, token, hash_of(invite)))
        return user

    async def set_up(self, code: str, *, name: str, email: str, password: str) -> User:
        """Make an operator's account, whatever the policy is. This uses up the code.

        Raises:
            WrongCode: there is no such link, or it is used up, expired or for another email. Invalid: the email is
            taken.
        """
        link = await self._store.link(Purpose.OPERATOR, hash_of(code), self._now())
        if link is None or link not in ("", normalized_email(email)):
            raise wrong_link()
        account = await self._accounts.prepared(name=name, email=email, password=password)
        user: User = await self._intake.accept(AddOperator(account, hash_of(code)))
        return user


def invited_operator() -> Forbidden:
    return Forbidden(
        "This email is reserved for an operator: the link that `hubbub operators add EMAIL` printed creates the "
        "account. `hubbub operators remove EMAIL` revokes the link."
    )


def wrong_invite() -> WrongCode:
    return WrongCode("This invite is wrong, used up or expired. Ask for a new one.")


def wrong_link() -> WrongCode:
    return WrongCode("This link is wrong, used up, expired, or for another email. Make a new one.")
