"""Accounts: registering, logging in and out, and changing one's account."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial

import email_validator
from starlette.requests import Request
from starlette.responses import Response

from hubbub.chat.accounts import Accounts, normalized_email
from hubbub.chat.errors import Forbidden, Invalid, Unauthenticated, UsedUp, WrongCode
from hubbub.chat.logins import Logins
from hubbub.chat.model import User, timestamp
from hubbub.chat.operators import Operators
from hubbub.chat.registration import Registration
from hubbub.http import schemas
from hubbub.http.address import network_of
from hubbub.http.fields import query
from hubbub.http.login_log import LoginLog
from hubbub.http.routing import body_fields, json_response, route
from hubbub.http.sessions import COOKIE, Session, Sessions, Token

# Domains reserved for private use and for tests are allowed: Hubbub often runs in networks without mail.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()

# Requests without credentials: they are counted by address, and may have to wait for a password's hash.
_REGISTRATION = {"guarded": False, "roles": True, "refuses": (429, 503)}
_LOGIN = {"guarded": False, "refuses": (401, 429, 503)}


_BLANK = "name must not be blank"
_NOT_EQUAL = "password_confirmation must equal password"


class AccountRoutes:
    def __init__(
        self,
        accounts: Accounts,
        registration: Registration,
        sessions: Sessions,
        logins: Logins,
        log: LoginLog,
        operators: Operators,
    ) -> None:
        self._accounts = accounts
        self._registration = registration
        self._sessions = sessions
        self._logins = logins
        self._operators = operators
        self._log = log

    @route("POST", "/auth/register", request=schemas.Registration, response=schemas.Done, status=201, **_REGISTRATION)
    async def register(self, request: Request) -> Response:
        """Create an account and log in."""
        address = address_of(request)
        try:
            async with self._logins.registration(address):
                user = await self._registered(request, address)
        except UsedUp as refusal:
            await self._log.locked(refusal, address, None)
            raise
        except WrongCode as wrong:  # a 404 would say that there is no such path
            raise Forbidden(wrong.sentence) from wrong
        answer = json_response(schemas.Done("Account created."), 201)
        return with_cookie(answer, self._sessions.begin(user), request)

    async def _registered(self, request: Request, address: str) -> User:
        form = await body_fields(request, schemas.Registration)
        errors = wrong_in(form)
        if form.password_confirmation is not None and form.password_confirmation != form.password:
            errors.append(_NOT_EQUAL)
        if errors:
            raise Invalid(errors)
        async with self._logins.code(address) if form.invite is not None else nullcontext():
            return await self._registration.register(
                name=form.name, email=form.email, password=form.password, invite=form.invite
            )

    async def _authenticate(self, request: Request) -> User:
        form = await body_fields(request, schemas.Credentials)
        email = normalized_email(form.email)
        async with self._tried(request, email, proven=await self._has_session(request, email)):
            return await self._accounts.authenticate(email=email, password=form.password)

    @asynccontextmanager
    async def _tried(self, request: Request, email: str, *, proven: bool) -> AsyncIterator[None]:
        """Around one try of a password, see Logins.attempt; a failure and a lock-out are logged."""
        address = address_of(request)
        try:
            async with self._logins.attempt(address, email, proven=proven):
                yield
        except UsedUp as refusal:
            await self._log.locked(refusal, address, email)
            raise
        except Unauthenticated:
            self._log.failed(address, email)
            raise

    async def _has_session(self, request: Request, email: str) -> bool:
        """Whether the request comes with a session of the account that it logs in to, whose rate may be used up."""
        try:
            session = await self._sessions.again_of_request(request)
        except Unauthenticated:
            return False
        return session.user.email == email

    @route("POST", "/auth/login", request=schemas.Credentials, response=schemas.Done, **_LOGIN)
    async def login(self, request: Request) -> Response:
        """Log in: sets the cookie."""
        user = await self._authenticate(request)
        return with_cookie(json_response(schemas.Done("Logged in.")), self._sessions.begin(user), request)

    @route("POST", "/auth/tokens", request=schemas.Credentials, response=schemas.NewToken, status=201, **_LOGIN)
    async def add_token(self, request: Request) -> Response:
        """A Bearer token for a program."""
        token = self._sessions.begin(await self._authenticate(request))
        return json_response(schemas.NewToken(token.value, timestamp(token.expires_at * 1000)), 201)

    @route("POST", "/auth/refresh", response=schemas.Refreshed)
    async def refresh(self, request: Request) -> Response:
        """A new token for the same session."""
        session = await self._sessions.of_request(request)
        token = self._sessions.refresh(session)
        return _renewed("Session extended.", session, token, request)

    @route("DELETE", "/auth/logout", response=schemas.Done)
    async def logout(self, request: Request) -> Response:
        """End the session and all of its tokens."""
        await self._sessions.end(await self._sessions.of_request(request))
        return _without_cookie(json_response(schemas.Done("Logged out.")), request)

    @route("DELETE", "/auth/sessions", status=204)
    async def end_sessions(self, request: Request) -> Response:
        """End all sessions of the user, this one and those on other devices."""
        await self._sessions.end_all((await self._sessions.of_request(request)).user)
        return _without_cookie(Response(status_code=204), request)

    @route("GET", "/auth/me", response=schemas.MeReply)
    async def me(self, request: Request) -> Response:
        """Who is logged in."""
        return await self._shown((await self._sessions.of_request(request)).user)

    async def _shown(self, user: User) -> Response:
        operates = await self._operators.has(user)
        me = schemas.Me(user.ref, user.email, user.name, timestamp(user.created_at), operates)
        return json_response(schemas.MeReply(me))

    @route("PATCH", "/auth/me", request=schemas.UserName, response=schemas.MeReply)
    async def rename_me(self, request: Request) -> Response:
        """Change your name, on earlier messages too."""
        user = (await self._sessions.of_request(request)).user
        form = await body_fields(request, schemas.UserName)
        if not form.name.strip():
            raise Invalid([_BLANK])
        await self._logins.rename(user.id)
        return await self._shown(await self._sessions.change(user, partial(self._accounts.rename, name=form.name)))

    # It may be a 403, because the current password may be wrong.
    @route("PUT", "/auth/me/password", request=schemas.NewPassword, response=schemas.Refreshed, roles=True)
    async def set_password(self, request: Request) -> Response:
        """Change the password: ends all other sessions, and gives this one a new token."""
        session = await self._sessions.of_request(request)
        form = await body_fields(request, schemas.NewPassword)
        if form.password_confirmation is not None and form.password_confirmation != form.password:
            raise Invalid([_NOT_EQUAL])
        await self._must_know_password(request, session.user, form.current_password)
        change = partial(self._accounts.set_password, password=form.password)
        address = address_of(request)
        try:
            async with self._logins.new_password(address):
                user = await self._sessions.change(session.user, change)
        except UsedUp as refusal:
            await self._log.locked(refusal, address, None, "New passwords")
            raise
        token = self._sessions.begin(user)
        return _renewed("Password changed.", session, token, request)

    # As above.
    @route(
        "DELETE",
        "/auth/me",
        query=schemas.WhatOfMessages,
        request=schemas.Leaving,
        status=204,
        roles=True,
    )
    async def delete_me(self, request: Request) -> Response:
        """Delete the account. Its messages stay under "Deleted user", or are erased."""
        user = (await self._sessions.of_request(request)).user
        wanted = query(schemas.WhatOfMessages, request.scope["query_string"])
        form = await body_fields(request, schemas.Leaving)
        await self._must_know_password(request, user, form.current_password)
        await self._sessions.change(user, partial(self._accounts.delete, erase=wanted.messages == "erase"))
        return _without_cookie(Response(status_code=204), request)

    async def _must_know_password(self, request: Request, user: User, password: str) -> None:
        """Check the current password; a wrong one counts as a failed login. Raises Forbidden, UsedUp."""
        try:
            async with self._tried(request, user.email, proven=True):
                await self._accounts.must_know_password(user, password)
        except Unauthenticated as error:
            raise Forbidden(error.sentence) from error


def wrong_in(form: schemas.Registration | schemas.OperatorAccount) -> list[str]:
    """A sentence for each field that no account may have."""
    errors = []
    try:
        email_validator.validate_email(form.email.strip(), check_deliverability=False, globally_deliverable=False)
    except email_validator.EmailNotValidError:
        errors.append("email must be an email address")
    if not form.name.strip():
        errors.append(_BLANK)
    return errors


def address_of(request: Request) -> str:
    """The address under which the request's sender is counted."""
    return network_of(request.client.host if request.client else "")


def _is_secure(request: Request) -> bool:
    return request.url.scheme == "https"


def _renewed(message: str, session: Session, token: Token, request: Request) -> Response:
    """A new token for a session."""
    content = schemas.Refreshed(message)
    if session.bearer:  # a program keeps its token itself; a browser's stays out of reach of its scripts
        content = schemas.Refreshed(message, token.value, timestamp(token.expires_at * 1000))
    return with_cookie(json_response(content), token, request)


def with_cookie(answer: Response, token: Token, request: Request) -> Response:
    answer.set_cookie(
        COOKIE,
        token.value,
        max_age=token.lifetime_s,
        path="/",
        httponly=True,
        samesite="lax",
        secure=_is_secure(request),
    )
    return answer


def _without_cookie(answer: Response, request: Request) -> Response:
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax", secure=_is_secure(request))
    return answer
