"""Sessions: a JWT in the cookie or as Bearer, verified once and then remembered by the header that carried it."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from typing import NamedTuple

import jwt
from starlette.requests import Request, cookie_parser

from hubbub.chat.accounts import Accounts
from hubbub.chat.errors import Unauthenticated
from hubbub.chat.model import User
from hubbub.chat.ports import Gate, Wants

COOKIE = "auth_token"
LIFETIME_S = 7 * 24 * 3600
_ALGORITHM = "HS256"
_REMEMBERED = 20_000
_LONGEST_HEADER = 4096


class Session(NamedTuple):
    """A verified token. A session keeps its ``id`` through refreshes, so ending it ends all of its tokens."""

    id: str
    user: User
    expires_at: float  # seconds since 1970
    bearer: bool
    mark: str  # the gate's, from before the session was verified


class Token(NamedTuple):
    value: str
    expires_at: int  # seconds since 1970


class Sessions:
    """Invariant: what is remembered was verified, and counts only while the gate's mark is what it was before that."""

    def __init__(self, accounts: Accounts, secret: bytes, gate: Gate) -> None:
        self._accounts = accounts
        self._secret = secret
        self._gate = gate
        self._remembered: OrderedDict[bytes, Session] = OrderedDict()

    def issue(self, user: User, session: str | None = None) -> Token:
        """A signed token for the user, in a new session or in the given one."""
        now = int(time.time())
        expires_at = now + LIFETIME_S
        claims = {
            "sub": user.ref,
            "sid": session or secrets.token_urlsafe(16),
            "jti": secrets.token_urlsafe(8),
            "iat": now,
            "exp": expires_at,
        }
        return Token(jwt.encode(claims, self._secret, algorithm=_ALGORITHM), expires_at)

    async def of(self, cookie: bytes | None, authorization: bytes | None) -> Session:
        """The session of a request with these headers; Authorization counts before the cookie.

        Raises:
            Unauthenticated: no token, or one that is forged, expired or ended.
            RateLimited: the user has used up what one user may send.
        """
        return (await self.enter(cookie, authorization, None))[0]

    async def of_request(self, request: Request) -> Session:
        """As ``of``, for a request that came by ASGI."""
        given = (request.headers.get(name) for name in ("cookie", "authorization"))
        cookie, authorization = (value.encode("latin-1") if value is not None else None for value in given)
        return await self.of(cookie, authorization)

    async def enter(
        self, cookie: bytes | None, authorization: bytes | None, wants: Wants | None
    ) -> tuple[Session, object]:
        """The session, as ``of``, and what the gate has seen of what the request wants."""
        header = authorization or cookie
        session = self._remembered.get(header) if header is not None else None
        if session is not None and session.expires_at > time.time():
            mark, seen = await self._gate.enter(session.user.id, session.mark, wants)
            if mark == session.mark != "":
                return session, seen
        session = await self._verify(cookie, authorization)
        if header is not None and len(header) <= _LONGEST_HEADER:
            self._remembered[header] = session
            if len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        return session, None

    async def _verify(self, cookie: bytes | None, authorization: bytes | None) -> Session:
        if authorization is not None:
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
                options={"require": ["sub", "sid", "exp"]},
            )
        except (jwt.InvalidTokenError, UnicodeError):
            raise ended from None
        session = str(claims["sid"])
        user = await self._accounts.user(str(claims["sub"]))
        if user is None:
            raise ended
        mark = (await self._gate.enter(user.id)).mark  # before the store is asked: an end that comes between changes it
        if await self._accounts.session_ended(session):
            raise ended
        return Session(session, user, float(claims["exp"]), authorization is not None, mark)

    async def end(self, session: Session) -> None:
        """End the session for good: no token of it works once this returns."""
        forget_at = int(time.time() + LIFETIME_S + 60) * 1000  # no token of the session can outlive this
        await self._gate.sessions_changed(session.user.id)
        await self._accounts.end_session(session.id, forget_at)
        await self._gate.sessions_changed(session.user.id)
        for header in [header for header, known in self._remembered.items() if known.id == session.id]:
            del self._remembered[header]
