"""Sessions: how long they live, how they end, and what an unknown user costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any, cast

import jwt
import msgspec
import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from hubbub.chat.accounts import Accounts
from hubbub.chat.applications import Applications
from hubbub.chat.chats import Chats
from hubbub.chat.commands import EndSession
from hubbub.chat.errors import Forbidden, RateLimited, Unauthenticated, Unavailable
from hubbub.chat.feed import Event, Feed
from hubbub.chat.model import ChatKey, User
from hubbub.chat.ports import Entry, Wants
from hubbub.http import sessions
from hubbub.http.limits import LocalGate
from hubbub.http.resolver import Resolver
from hubbub.http.routes.stream import StreamRoutes
from hubbub.http.sessions import LIFETIME_S, Sessions
from hubbub.http.stream_limiter import StreamLimiter
from hubbub.http.turns import Turns
from tests.conftest import eventually_async
from tests.unit.fakes import CHAT, Fakes

ANN = User(1, "ann", "ann@example.com", "Ann", 0)


class Known:
    async def user(self, _ref: str) -> User:
        return ANN

    async def session_lives(self, _user: User, _era: str, _session: str) -> bool:
        return True


SECRET = b"k" * 64
DAY_S = 24 * 3600


def made(accounts: Known | None = None) -> Sessions:
    return Sessions(cast(Accounts, accounts or Known()), SECRET, LocalGate(1000))


def bearer(**changed: float) -> bytes:
    """Return a token as version 0.1.0 issued it. ``changed`` sets claims, in seconds from now."""
    now = time.time()
    claims = {"sub": ANN.ref, "sid": "s", "jti": "j", "iat": int(now), "exp": int(now) + LIFETIME_S}
    claims |= {name: int(now + seconds) for name, seconds in changed.items()}
    return f"Bearer {jwt.encode(claims, SECRET)}".encode()


async def test_a_token_of_a_host_whose_clock_is_ahead_a_little_counts() -> None:
    assert (await made().of(None, bearer(iat=50))).user == ANN
    with pytest.raises(Unauthenticated):
        await made().of(None, bearer(iat=75))


async def test_an_expired_token_has_no_grace() -> None:
    with pytest.raises(Unauthenticated):
        await made().of(None, bearer(exp=-1))


@pytest.mark.parametrize("begun", ["auth_time", "iat"])
async def test_refreshing_makes_no_session_longer_than_90_days(begun: str) -> None:
    """A session of version 0.1.0 is included; its 90 days count from the latest refresh there."""
    sessions = made()
    session = await sessions.of(None, bearer(**{begun: -88 * DAY_S}, exp=DAY_S))
    for _ in range(3):
        token = sessions.refresh(session)
        assert 2 * DAY_S - 60 < token.lifetime_s <= 2 * DAY_S
        assert abs(token.expires_at - time.time() - token.lifetime_s) < 60
        session = await sessions.of(None, f"Bearer {token.value}".encode())


async def test_a_new_session_may_be_refreshed_for_seven_days() -> None:
    sessions = made()
    token = sessions.begin(ANN)
    assert token.lifetime_s == LIFETIME_S == 7 * DAY_S
    assert sessions.refresh(await sessions.of(None, f"Bearer {token.value}".encode())).lifetime_s == LIFETIME_S


async def test_a_session_keeps_its_era_through_refreshes() -> None:
    """Otherwise an ended session would count again, or a living one would end."""
    sessions = made()
    of_later = msgspec.structs.replace(ANN, era="later")
    session = await sessions.of(None, f"Bearer {sessions.begin(of_later).value}".encode())
    again = await sessions.of(None, f"Bearer {sessions.refresh(session).value}".encode())
    assert (session.era, again.era, again.id) == ("later", "later", session.id)


async def test_the_end_of_a_session_says_whose_it_was() -> None:
    fakes = Fakes()
    accounts = Accounts(cast(Any, fakes.store), fakes.intake, cast(Any, None), lambda: 1)
    session = await made().of(None, bearer())
    await Sessions(accounts, SECRET, LocalGate(1000)).end(session)
    (ended,) = fakes.intake.accepted
    assert isinstance(ended, EndSession)
    assert (ended.session, ended.user_id) == (session.id, ANN.id)


class Ending(Known):
    """A slow store: ``meanwhile`` happens before it has stored the end of a session."""

    def __init__(self) -> None:
        self.living = True
        self.asked = 0
        self.meanwhile: Callable[[], Awaitable[object]] = self.nothing

    async def nothing(self) -> None: ...

    async def session_lives(self, _user: User, _era: str, _session: str) -> bool:
        self.asked += 1
        return self.living

    async def end_sessions(self, _user: User) -> None:
        await self.meanwhile()
        self.living = False

    async def end_session(self, _user: User, _session: str, _expires_at: int) -> None:
        await self.end_sessions(ANN)


@pytest.mark.parametrize("all_of_them", [True, False])
async def test_no_process_goes_on_with_a_session_that_it_checked_while_the_session_was_ended(all_of_them: bool) -> None:
    store, gate = Ending(), LocalGate(1000)
    one, other = (Sessions(cast(Accounts, store), SECRET, gate) for _ in range(2))
    token = bearer()
    session = await one.of(None, token)
    assert await other.of(None, token)
    store.meanwhile = lambda: other.of(None, token)
    await (one.end_all(ANN) if all_of_them else one.end(session))
    for process in (one, other):
        with pytest.raises(Unauthenticated):
            await process.of(None, token)


@pytest.mark.parametrize("all_of_them", [True, False])
async def test_an_end_that_cannot_be_announced_is_refused(all_of_them: bool) -> None:
    """It is not stored either, because the client must be let in to ask again."""

    class Away(LocalGate):
        async def sessions_change(self, user_id: int) -> Callable[[], Awaitable[None]]:
            raise Unavailable("Redis is away.")

    store = Ending()
    sessions = Sessions(cast(Accounts, store), SECRET, Away(1000))
    session = await sessions.of(None, bearer())
    with pytest.raises(Unavailable):
        await (sessions.end_all(ANN) if all_of_them else sessions.end(session))
    assert store.living


async def lost() -> None:
    raise Unavailable("The store does not answer.")


async def unheard() -> None:
    """Do nothing, like a gate that can't be told that a change is over."""


@pytest.mark.parametrize("stored", [True, False])
async def test_an_end_counts_at_once_though_its_completion_cannot_be_announced(stored: bool) -> None:
    """This also holds if it is unknown whether the end is stored, and it is stored later."""

    class AwayLater(LocalGate):
        async def sessions_change(self, user_id: int) -> Callable[[], Awaitable[None]]:
            await super().sessions_change(user_id)
            return unheard

    store, gate = Ending(), AwayLater(1000)
    one, other = (Sessions(cast(Accounts, store), SECRET, gate) for _ in range(2))
    token = bearer()
    await other.of(None, token)
    store.meanwhile = (lambda: other.of(None, token)) if stored else lost
    with nullcontext() if stored else pytest.raises(Unavailable):
        await one.end_all(ANN)
    if not stored:
        await other.of(None, token)
    store.living = False
    for process in (one, other):
        with pytest.raises(Unauthenticated):
            await process.of(None, token)


async def test_a_refused_change_forgets_no_session() -> None:
    async def refuse(_user: User) -> None:
        raise Forbidden("No.")

    store = Ending()
    sessions = Sessions(cast(Accounts, store), SECRET, LocalGate(1000))
    with pytest.raises(Forbidden):
        await sessions.change(ANN, refuse)
    token = bearer()
    await sessions.of(None, token)
    store.asked = 0
    await sessions.of(None, token)
    assert store.asked == 0


class Counting(LocalGate):
    """A gate that admits a user ``left`` more times."""

    def __init__(self) -> None:
        super().__init__(1000)
        self.left = 10

    async def enter(self, user_id: int, mark: str = "", wants: Wants | None = None) -> Entry:
        if not self.left:
            raise RateLimited("Slow down.", limit=1, retry_after=1)
        self.left -= 1
        return await super().enter(user_id, mark, wants)


@pytest.mark.parametrize("hot", [True, False])
@pytest.mark.parametrize("remembered", [True, False])
async def test_a_token_of_an_ended_session_uses_up_nothing_of_its_user(remembered: bool, hot: bool) -> None:
    store, gate = Ending(), Counting()
    known = Sessions(cast(Accounts, store), SECRET, gate)
    token = bearer()
    if remembered:
        await known.of(None, token)
    store.living = False  # another process has ended it
    await (await gate.sessions_change(ANN.id))()
    gate.left, store.asked = 5, 0
    for _ in range(100):
        with pytest.raises(Unauthenticated):
            await (known.enter(None, token, Wants(ChatKey("token", 1))) if hot else known.of(None, token))
    assert gate.left == 4
    assert store.asked == 1


async def test_ended_sessions_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_REMEMBERED_ENDED", 3)
    store = Ending()
    known = Sessions(cast(Accounts, store), SECRET, LocalGate(1000))
    store.living = False
    tokens = [f"Bearer {known.begin(ANN).value}".encode() for _ in range(4)]

    async def refused(token: bytes) -> int:
        """Return how often the store was asked before the token was refused."""
        before = store.asked
        with pytest.raises(Unauthenticated):
            await known.of(None, token)
        return store.asked - before

    assert [await refused(token) for token in tokens[:3]] == [1, 1, 1]
    assert await refused(tokens[0]) == 0
    assert await refused(tokens[3]) == 1
    assert [await refused(token) for token in tokens] == [0, 1, 1, 1]


async def test_a_running_request_passes_while_its_session_lives_though_its_user_sends_too_much() -> None:
    store, gate = Ending(), Counting()
    known = Sessions(cast(Accounts, store), SECRET, gate)
    request = Request({"type": "http", "headers": [(b"authorization", bearer())]})
    assert await known.of_request(request)
    gate.left = 0
    with pytest.raises(RateLimited):
        await known.of_request(request)
    assert (await known.again_of_request(request)).user == ANN
    store.living = False
    with pytest.raises(Unauthenticated):
        await known.again_of_request(request)


async def test_a_remembered_session_ends_with_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "LIFETIME_S", 2)
    known = made()
    cookie = f"auth_token={known.begin(ANN).value}".encode()
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


async def test_a_stream_continues_while_its_session_lives_though_its_user_sends_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hubbub.http.stream.CHECK_S", 0.0)
    store, gate, ports, feed = Ending(), Counting(), Fakes().ports, Feed()
    chats = Chats(ports)
    resolver = Resolver(Sessions(cast(Accounts, store), SECRET, gate), Applications(ports), chats)
    scope = {
        "type": "http",
        "method": "GET",
        "query_string": b"",
        "headers": [(b"authorization", bearer())],
        "path_params": {"token": CHAT.token, "number": str(CHAT.number)},
    }
    answer = await StreamRoutes(resolver, chats, feed, StreamLimiter(1), Turns()).stream_messages(Request(scope))
    assert isinstance(answer, StreamingResponse)
    received: list[bytes] = []

    async def listen() -> None:
        async for piece in answer.body_iterator:
            assert isinstance(piece, bytes)
            received.append(piece)

    gate.left = 0
    task = asyncio.create_task(listen())
    await asyncio.sleep(0)
    feed.publish(CHAT, Event(6, b"{}"))
    await eventually_async(lambda: b"event: message" in b"".join(received))
    assert store.asked > 1
    store.living = False
    await eventually_async(task.done)
    assert received[-1].startswith(b'event: end\ndata: {"status":401,')


async def test_a_session_that_is_verified_while_its_user_is_renamed_has_the_new_name() -> None:
    """Another process renames the user just before the gate is asked, which is as new as that."""

    class Renamed(Known):
        name = "Ann"

        async def user(self, _ref: str) -> User:
            return msgspec.structs.replace(ANN, name=self.name)

    accounts = Renamed()

    def catch_up() -> None:
        accounts.name = "Anna"

    sessions = Sessions(cast(Accounts, accounts), SECRET, LocalGate(1000, catch_up=catch_up))
    assert (await sessions.of(None, bearer())).user.name == "Anna"
    assert (await sessions.of(None, bearer())).user.name == "Anna"
