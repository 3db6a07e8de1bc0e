"""Sessions: a JWT in the cookie or as Bearer, verified once and then cached by the header that carried it.

A session that was ended, alone or with all sessions of its user, is invalid in every process once the request that
ended it is answered:

1. A token names its session and the user's era. The store knows which sessions were ended, and the user's current era;
   ending all of a user's sessions gives the user an era that was never used before. No clock decides either.
2. A token that is not remembered is checked against the store, after the gate was asked for the user's mark.
3. A remembered token is valid while the gate's mark is the same; the gate sends it with the answer that each request
   needs anyway.
4. Before the end is stored, the mark is made empty; an empty mark makes no session valid, so each request is checked.
   If the mark can't be made empty, the end is refused and not stored. Once the end is stored, the user gets another
   mark, which no session that was checked before has. If that fails, or it is not known whether the end is stored, the
   mark stays empty for an hour: that costs one look into the store per request, and no more.
5. Only marks are lost with memory or Redis. An unknown mark counts as a changed one.

An ended session never becomes valid again, so a process that has found one ended remembers that, and refuses its tokens
before the gate counts them: requests with a token of an ended session use up nothing of the user's rate. Before that,
each remembered token counts once, because the gate is asked first.

Clocks decide only when a token expires: after seven days without a refresh, and 90 days after the login. A host accepts
a token that another host issued slightly in its future. An ended session stays in the store long after it would have
expired (see chat.limits), so that a clock which was wrong for a while does not bring it back.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

import jwt
from starlette.requests import Request, cookie_parser

from hubbub.chat.accounts import Accounts
from hubbub.chat.caller import Caller, asking
from hubbub.chat.errors import ChatError, RateLimited, Unauthenticated, Unavailable
from hubbub.chat.model import User
from hubbub.chat.ports import Entry, Gate, Wants

T = TypeVar("T")

COOKIE = "auth_token"
LIFETIME_S = 7 * 24 * 3600  # of a token
LONGEST_S = 90 * 24 * 3600  # of a session, over all refreshes
_AHEAD_S = 60  # how far the clock of the host that issued a token may be ahead of ours
_ALGORITHM = "HS256"
_REMEMBERED = 20_000
_REMEMBERED_ENDED = 20_000  # some 7 MB at most
_LONGEST_HEADER = 4096


class Session(NamedTuple):
    """A verified token. A session keeps its ``id``, its ``era`` and ``begun_at`` through refreshes, so ending it ends
    all of its tokens.
    """

    id: str
    user: User
    era: str
    begun_at: int  # seconds since 1970
    expires_at: float
    bearer: bool
    mark: str  # the gate's, from before the session was verified

    def lives(self, mark: str) -> bool:
        """Whether it is valid still, by the gate's mark of now."""
        return mark == self.mark != ""


class Token(NamedTuple):
    value: str
    expires_at: int  # seconds since 1970
    lifetime_s: int


class Sessions:
    """Verifies, issues and ends sessions. Invariants: a remembered session was verified, and is valid only while the
    gate's mark is what it was before that. ``_ended`` has ids and eras of sessions that were found ended, the one that
    was asked for longest ago first.
    """

    def __init__(self, accounts: Accounts, secret: bytes, gate: Gate) -> None:
        self._accounts = accounts
        self._secret = secret
        self._gate = gate
        self._remembered: OrderedDict[bytes, Session] = OrderedDict()
        self._ended: OrderedDict[tuple[str, str], None] = OrderedDict()

    def begin(self, user: User) -> Token:
        """A signed token of a new session."""
        return self._issue(user.ref, secrets.token_urlsafe(16), user.era, int(time.time()))

    def refresh(self, session: Session) -> Token:
        """Another signed token of the session, which lasts longer."""
        return self._issue(session.user.ref, session.id, session.era, session.begun_at)

    def _issue(self, ref: str, session: str, era: str, begun_at: int) -> Token:
        now = int(time.time())
        expires_at = min(now + LIFETIME_S, begun_at + LONGEST_S)
        claims = {
            "sub": ref,
            "sid": session,
            "era": era,
            "jti": secrets.token_urlsafe(8),
            "auth_time": begun_at,
            "iat": now,
            "exp": expires_at,
        }
        return Token(jwt.encode(claims, self._secret, algorithm=_ALGORITHM), expires_at, max(expires_at - now, 0))

    async def of(self, cookie: bytes | None, authorization: bytes | None) -> Session:
        """The session of a request with these headers; Authorization counts before the cookie, unless it is empty.

        Raises:
            Unauthenticated: no token, or one that is forged, expired or ended.
            RateLimited: the user has used up what one user may send.
        """
        session = self.known(credentials_of(cookie, authorization))
        mark = ""
        if session is not None:
            asking.set(session.user.ref)
            mark, _ = await self._gate.enter(session.user.id, session.mark)
            if session.lives(mark):
                return session
        return await self._verified(cookie, authorization, mark, counted=session is not None)

    async def of_request(self, request: Request) -> Session:
        """As ``of``, for a request that came by ASGI."""
        return await self.of(*_given(request))

    async def again_of_request(self, request: Request) -> Session:
        """As ``of_request``, for a request that was let in before: it may continue if its user has sent too many others
        since (then the store is asked at each call), but not if its session has ended.
        """
        try:
            return await self.of_request(request)
        except RateLimited:
            return await self._verify(*_given(request), "", counted=True)

    async def enter(
        self,
        cookie: bytes | None,
        authorization: bytes | None,
        wants: Wants,
        trace: str = "",
        entered: Entry | None = None,
    ) -> Caller:
        """The caller of a request with these headers, as ``of``, and what the gate brings of what the request wants.
        ``entered`` is what the gate has said of this request, if it was asked before."""
        session = self.known(credentials_of(cookie, authorization))
        if session is not None:
            asking.set(session.user.ref)
            if entered is None:
                entered = await self._gate.enter(session.user.id, session.mark, wants)
            if session.lives(entered.mark):
                return Caller(session.user, entered.brought, trace)
        mark = "" if entered is None else entered.mark
        session = await self._verified(cookie, authorization, mark, counted=entered is not None)
        return Caller(session.user, None, trace)

    def user_of(self, cookie: bytes | None, authorization: bytes | None) -> str:
        """The public id of the user whose session these headers name, if it is remembered; else the empty string."""
        session = self.known(credentials_of(cookie, authorization))
        return session.user.ref if session is not None else ""

    def known(self, credentials: bytes | None) -> Session | None:
        """The remembered session of these, see ``credentials_of``, unless it has expired. It is valid only for who asks
        the gate."""
        session = self._remembered.get(credentials) if credentials is not None else None
        return session if session is not None and session.expires_at > time.time() else None

    async def _verified(
        self, cookie: bytes | None, authorization: bytes | None, mark: str, *, counted: bool
    ) -> Session:
        """The session, verified and remembered from now on. A header that is refused is forgotten."""
        credentials = credentials_of(cookie, authorization)
        try:
            session = await self._verify(cookie, authorization, mark, counted=counted)
        except Unauthenticated:
            if credentials is not None:
                self._remembered.pop(credentials, None)
            raise
        if credentials is not None and len(credentials) <= _LONGEST_HEADER:
            self._remembered[credentials] = session
            if len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        return session

    async def _verify(self, cookie: bytes | None, authorization: bytes | None, mark: str, *, counted: bool) -> Session:
        """``mark`` is the gate's, if the user has entered already. A ``counted`` request does not enter again."""
        if authorization:
            scheme, _, token = authorization.decode("latin-1").partition(" ")
            if scheme.lower() != "bearer":
                raise Unauthenticated("The Authorization header must be: Bearer TOKEN.")
        else:
            token = cookie_parser(cookie.decode("latin-1")).get(COOKIE, "") if cookie is not None else ""
        token = token.strip()
        if not token:
            raise Unauthenticated("Log in first: send the auth_token cookie or Authorization: Bearer TOKEN.")
        ended = Unauthenticated("This token is not valid, or its session has ended. Log in again.")
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                leeway=_AHEAD_S,
                options={"require": ["sub", "sid", "iat", "exp"]},
            )
        except (jwt.InvalidTokenError, UnicodeError):
            raise ended from None
        # Version 0.1.0 issued tokens without an era, and without the time of the login.
        session, era, begun_at = str(claims["sid"]), str(claims.get("era", "")), claims.get("auth_time", claims["iat"])
        if claims["exp"] <= time.time():  # the leeway is not for this
            raise ended
        if (session, era) in self._ended:
            self._ended.move_to_end((session, era))
            raise ended
        asking.set(str(claims["sub"]))
        user = await self._accounts.user(str(claims["sub"]))
        if user is None:
            raise ended
        if not counted:
            mark = (await self._gate.enter(user.id)).mark  # before the store is asked, see step 2
            user = await self._accounts.user(user.ref)  # another process may have changed it since
        if user is None or not await self._accounts.session_lives(user, era, session):
            self._ended[session, era] = None
            if len(self._ended) > _REMEMBERED_ENDED:
                self._ended.popitem(last=False)
            raise ended
        return Session(session, user, era, int(begun_at), float(claims["exp"]), bool(authorization), mark)

    async def end(self, session: Session) -> None:
        """End the session: all of its tokens are invalid once this returns."""
        over_at = int(time.time() + LIFETIME_S) * 1000  # when its last token expires
        await self.change(session.user, lambda user: self._accounts.end_session(user, session.id, over_at))

    async def end_all(self, user: User) -> None:
        """End all sessions of the user: all tokens that were issued before are invalid once this returns."""
        await self.change(user, self._accounts.end_sessions)

    async def change(self, user: User, change: Callable[[User], Awaitable[T]]) -> T:
        """Change the user's account by calling ``change``. Once this returns, every process checks the user's sessions
        again, so they are invalid if the user has another era.
        """
        over = await self._gate.sessions_change(user.id)
        try:
            result = await change(user)
        except ChatError as error:
            if not isinstance(error, Unavailable):  # then nothing was changed
                await over()
            raise
        await over()
        self._forget(user)
        return result

    def _forget(self, user: User) -> None:
        """Forget the user's sessions: they would have to be checked again anyway."""
        for each in [each for each, known in self._remembered.items() if known.user.id == user.id]:
            del self._remembered[each]


def credentials_of(cookie: bytes | None, authorization: bytes | None) -> bytes | None:
    """What the session of a request with these headers is remembered by: the header that counts, with its name. What is
    a token in one of them is none in the other.
    """
    if authorization:
        return b"authorization: " + authorization
    return None if cookie is None else b"cookie: " + cookie


def _given(request: Request) -> tuple[bytes | None, bytes | None]:
    """The headers Cookie and Authorization, as HTTP/1.1 sends them."""
    given = (request.headers.get(name) for name in ("cookie", "authorization"))
    cookie, authorization = (value.encode("latin-1") if value is not None else None for value in given)
    return cookie, authorization
