"""Invites: links by which people join an application."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from hubbub.chat.applications import Applications
from hubbub.chat.errors import UsedUp
from hubbub.chat.logins import Logins
from hubbub.chat.model import Role, timestamp
from hubbub.http import schemas
from hubbub.http.fields import query
from hubbub.http.login_log import LoginLog
from hubbub.http.resolver import Resolver
from hubbub.http.routes.accounts import address_of
from hubbub.http.routing import body_fields, json_response, route

_PATH = "/applications/{token}/invites"


class InviteRoutes:
    """Links begin with ``public_url`` or, if it is empty, with the address that the request was sent to."""

    def __init__(
        self, resolver: Resolver, applications: Applications, logins: Logins, log: LoginLog, public_url: str
    ) -> None:
        self._resolver = resolver
        self._applications = applications
        self._logins = logins
        self._log = log
        self._public_url = public_url

    @route("POST", _PATH, request=schemas.NewInvite, response=schemas.AddedInvite, status=201, roles=True)
    async def add_invite(self, request: Request) -> Response:
        """Make a link by which people join the application."""
        manager = await self._resolver.member(request)
        manager.must_manage()
        form = await body_fields(request, schemas.NewInvite)
        invite, code = await manager.add_invite(Role(form.role), lifetime_s=form.expires_in, uses=form.uses)
        base = self._public_url or f"{request.url.scheme}://{request.url.netloc}"
        link = f"{base.rstrip('/')}/invite#{code}"
        expires_at = timestamp(invite.expires_at)
        return json_response(schemas.AddedInvite(invite.ref, link, code, invite.role, invite.uses, expires_at), 201)

    @route("GET", _PATH, query=schemas.Paging, response=list[schemas.InviteItem], roles=True)
    async def list_invites(self, request: Request) -> Response:
        """The application's invites that have not expired, newest first."""
        manager = await self._resolver.member(request)
        manager.must_manage()
        paging = query(schemas.Paging, request.scope["query_string"])
        found = await manager.invites(offset=paging.offset, limit=paging.limit)
        return json_response(
            [
                schemas.InviteItem(
                    each.ref, each.role, each.uses, each.used, timestamp(each.created_at), timestamp(each.expires_at)
                )
                for each in found
            ]
        )

    @route("DELETE", _PATH + "/{invite}", status=204, roles=True)
    async def remove_invite(self, request: Request) -> Response:
        """Revoke an invite; members who joined by it stay."""
        manager = await self._resolver.member(request)
        await manager.remove_invite(request.path_params["invite"])
        return Response(status_code=204)

    # It may be a 404, because the code is in the body.
    @route(
        "POST",
        "/invites/accept",
        request=schemas.AcceptedInvite,
        response=schemas.JoinedApplication,
        refuses=(404,),
    )
    async def accept_invite(self, request: Request) -> Response:
        """Join the application that an invite is for."""
        caller = await self._resolver.caller(request)
        form = await body_fields(request, schemas.AcceptedInvite)
        address = address_of(request)
        try:
            async with self._logins.code(address):
                joined = await self._applications.accept(caller, form.code)
        except UsedUp as refusal:
            await self._log.locked(refusal, address, None, "Codes")
            raise
        return json_response(schemas.JoinedApplication(joined.token, joined.role))
