"""Resetting a lost password."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from hubbub.chat.errors import NotFound, UsedUp
from hubbub.chat.logins import Logins
from hubbub.chat.model import User
from hubbub.chat.recovery import Recovery
from hubbub.http import schemas
from hubbub.http.login_log import LoginLog
from hubbub.http.mail import Mail
from hubbub.http.routes.accounts import address_of
from hubbub.http.routing import body_fields, json_response, route
from hubbub.http.sessions import Sessions

_TEXT = """\
Somebody, hopefully you, asked for a new password for your account at {url}.

This link sets it, once and within an hour:

{link}

If it was not you, do nothing: your password stays as it is.
"""
# It may be a 404, because mail may not be set up, and the code is in the body.
_OPEN = {"guarded": False, "refuses": (404, 429, 503)}


class RecoveryRoutes:
    """``mail`` is None if none is set up. Links begin with ``public_url``, never with the host that a request names:
    the link goes to the account's owner, who may not be the sender of the request.
    """

    def __init__(
        self,
        recovery: Recovery,
        sessions: Sessions,
        logins: Logins,
        log: LoginLog,
        mail: Mail | None,
        public_url: str,
    ) -> None:
        self._recovery = recovery
        self._sessions = sessions
        self._logins = logins
        self._log = log
        self._mail = mail
        self._url = public_url.rstrip("/")

    @route("POST", "/auth/password-reset", request=schemas.LostPassword, response=schemas.Done, status=202, **_OPEN)
    async def request_password_reset(self, request: Request) -> Response:
        """Mail a link that sets a new password, if there is an account; the answer doesn't say whether there is."""
        if self._mail is None:
            raise NotFound(
                "Mail is not set up here (setting smtp_url). An operator can run "
                "`hubbub users reset-password EMAIL` for you."
            )
        form = await body_fields(request, schemas.LostPassword)
        address = address_of(request)
        try:
            await self._logins.reset(address, form.email)
        except UsedUp as refusal:
            await self._log.locked(refusal, address, None, "Password resets")
            raise
        self._mail.later(self._send(self._mail, form.email))
        return json_response(schemas.Done("If there is an account with this email, a mail is on its way."), 202)

    async def _send(self, mail: Mail, email: str) -> None:
        begun = await self._recovery.begin(email)
        if begun is not None:
            to, code = begun
            text = _TEXT.format(url=self._url, link=f"{self._url}/reset#{code}")
            await mail.send(to, "A new password for Hubbub", text)

    @route("POST", "/auth/password-reset/confirm", request=schemas.PasswordByLink, response=schemas.Done, **_OPEN)
    async def confirm_password_reset(self, request: Request) -> Response:
        """Set a new password by a mailed link; all sessions of the user end."""
        form = await body_fields(request, schemas.PasswordByLink)
        address = address_of(request)
        try:
            async with self._logins.code(address):
                user = await self._recovery.user(form.code)
                async with self._logins.new_password(address):
                    await self._sessions.change(user, partial(self._finish, form))
        except UsedUp as refusal:
            await self._log.locked(refusal, address, None, "Codes")
            raise
        return json_response(schemas.Done("The password is set. Log in with it."))

    async def _finish(self, form: schemas.PasswordByLink, user: User) -> None:
        await self._recovery.finish(user, form.code, form.password)
