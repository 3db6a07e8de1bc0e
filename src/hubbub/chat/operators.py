"""Operators: who is one, and making and removing them."""

from __future__ import annotations

from collections.abc import Collection

from hubbub.chat.accounts import normalized_email
from hubbub.chat.codes import new_code
from hubbub.chat.commands import AddLink, SetOperator
from hubbub.chat.errors import ChatError, NotFound
from hubbub.chat.model import Purpose, User
from hubbub.chat.ports import Store

LINK_LIFETIME_MS = 24 * 3600 * 1000


class Operators:
    """The operators: users whose account is marked in the store, and users whose email the setting names. The store is
    asked each time, so a change by a command takes effect at once in every process.
    """

    def __init__(self, store: Store, named: Collection[str]) -> None:
        self._store = store
        self.named = frozenset(normalized_email(email) for email in named)

    async def has(self, user: User) -> bool:
        return user.email in self.named or await self._store.is_operator(user.id)

    async def all(self) -> list[User]:
        """All operators, the oldest accounts first."""
        named = [await self._store.user_by_email(email) for email in self.named]
        found = [*await self._store.operators(), *(each[0] for each in named if each is not None)]
        return sorted({user.id: user for user in found}.values(), key=lambda user: user.id)

    async def add(self, email: str, now: int) -> User | str:
        """Make the account with this email an operator's. Returns its user or, if there is no account, the code of a
        link that makes it. Blocks.
        """
        try:
            self._apply(SetOperator(normalized_email(email), operator=True))
        except NotFound:
            return self.invite(email, now)
        found = await self._store.user_by_email(normalized_email(email))
        return found[0] if found is not None else self.invite(email, now)

    def invite(self, email: str, now: int) -> str:
        """Make a link that makes an operator's account with this email, or with any if it is empty. Returns its code.
        An earlier link for the email no longer works. Blocks.
        """
        code = new_code()
        self._apply(AddLink(Purpose.OPERATOR, normalized_email(email), code.hash, now + LINK_LIFETIME_MS))
        return code.text

    def remove(self, email: str) -> None:
        """Make the account with this email an ordinary one, and invalidate a link that would make an operator's account
        with it. Blocks. Raises NotFound when there is neither.
        """
        self._apply(SetOperator(normalized_email(email), operator=False))

    def _apply(self, command: AddLink | SetOperator) -> None:
        (outcome,) = self._store.apply([command])
        if isinstance(outcome, ChatError):
            raise outcome
