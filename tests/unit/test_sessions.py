"""Sessions against the clock, and the price of an unknown user."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from hubbub.chat.accounts import Accounts
from hubbub.chat.errors import Unauthenticated
from hubbub.chat.model import User
from hubbub.http import sessions
from hubbub.http.limits import LocalGate
from hubbub.http.sessions import Sessions

ANN = User(1, "ann", "ann@example.com", "Ann", 0)


class Known:
    async def user(self, _ref: str) -> User:
        return ANN

    async def session_ended(self, _session: str) -> bool:
        return False


async def test_a_remembered_session_ends_with_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "LIFETIME_S", 2)
    known = Sessions(cast(Accounts, Known()), b"k" * 64, LocalGate(1000))
    cookie = f"auth_token={known.issue(ANN).value}".encode()
    assert (await known.of(cookie, None)).user == ANN

    async def until_refused() -> None:
        while True:
            await known.of(cookie, None)
            await asyncio.sleep(0.1)

    with pytest.raises(Unauthenticated):
        await asyncio.wait_for(until_refused(), 10)


async def test_an_unknown_user_costs_a_whole_password_check() -> None:
    checked: list[str | None] = []

    class Passwords:
        async def hash(self, password: str) -> str:
            return password

        async def verify(self, _password: str, password_hash: str | None) -> bool:
            checked.append(password_hash)
            return False

    class Store:
        async def user_by_email(self, email: str) -> tuple[User, str] | None:
            return (ANN, "hash") if email == ANN.email else None

    accounts = Accounts(cast(Any, Store()), cast(Any, None), Passwords(), lambda: 0)
    for email in (ANN.email, "nobody@example.com"):
        with pytest.raises(Unauthenticated):
            await accounts.authenticate(email=email, password="wrong")
    assert checked == ["hash", None]


async def test_checking_no_hash_does_the_work_of_checking_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from argon2 import PasswordHasher

    from hubbub.http.passwords import Argon2Passwords

    passwords = Argon2Passwords()
    hashed = await passwords.hash("right")
    parameters: list[str] = []
    real = PasswordHasher.verify

    def verify(self: PasswordHasher, hash: str, password: str) -> bool:
        parameters.append(hash.rsplit("$", 2)[0])
        return bool(real(self, hash, password))

    monkeypatch.setattr(PasswordHasher, "verify", verify)
    try:
        assert not await passwords.verify("wrong", hashed)
        assert not await passwords.verify("wrong", None)
    finally:
        passwords.close()
    assert parameters[0] == parameters[1]
