"""Makes the operator's account, also where nobody may register and before anyone could send an invite."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from hubbub.chat.errors import Invalid, UsedUp
from hubbub.chat.logins import Logins
from hubbub.chat.registration import Registration
from hubbub.http import schemas
from hubbub.http.login_log import LoginLog
from hubbub.http.routes.accounts import address_of, with_cookie, wrong_in
from hubbub.http.routing import body_fields, json_response, route
from hubbub.http.sessions import Sessions


class SetupRoutes:
    def __init__(self, registration: Registration, sessions: Sessions, logins: Logins, log: LoginLog) -> None:
        self._registration = registration
        self._sessions = sessions
        self._logins = logins
        self._log = log

    # It may be a 404, because the code is in the body.
    @route(
        "POST",
        "/auth/setup",
        request=schemas.OperatorAccount,
        response=schemas.Done,
        status=201,
        guarded=False,
        refuses=(404, 429, 503),
    )
    async def set_up(self, request: Request) -> Response:
        """Make an operator's account by a set-up link, and log in."""
        form = await body_fields(request, schemas.OperatorAccount)
        if errors := wrong_in(form):
            raise Invalid(errors)
        address = address_of(request)
        try:
            async with self._logins.code(address), self._logins.new_password(address):
                user = await self._registration.set_up(
                    form.code, name=form.name, email=form.email, password=form.password
                )
        except UsedUp as refusal:
            await self._log.locked(refusal, address, None, "Codes")
            raise
        answer = json_response(schemas.Done("The operator's account was created."), 201)
        return with_cookie(answer, self._sessions.begin(user), request)
