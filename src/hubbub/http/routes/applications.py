"""Applications."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from hubbub.chat.applications import Applications, Membership
from hubbub.http import schemas
from hubbub.http.fields import query
from hubbub.http.resolver import Resolver
from hubbub.http.routing import body_fields, json_response, route


class ApplicationRoutes:
    def __init__(self, resolver: Resolver, applications: Applications) -> None:
        self._resolver = resolver
        self._applications = applications

    @route("POST", "/applications", request=schemas.NewApplication, response=schemas.ApplicationToken, status=201)
    async def add_application(self, request: Request) -> Response:
        """Create an application."""
        caller = await self._resolver.caller(request)
        form = await body_fields(request, schemas.NewApplication)
        return json_response(schemas.ApplicationToken(await self._applications.add(caller, form.name)), 201)

    # It may be a 404, because the token is in the body.
    @route(
        "PUT",
        "/applications",
        request=schemas.NamedApplication,
        response=schemas.ApplicationItem,
        roles=True,
        refuses=(404,),
    )
    async def rename_named_application(self, request: Request) -> Response:
        """Rename the application named in the body."""
        caller = await self._resolver.caller(request)
        form = await body_fields(request, schemas.NamedApplication)
        manager = await self._applications.enter(caller, form.token)
        await manager.rename(form.name)
        return await _shown(manager)

    @route("GET", "/applications", query=schemas.Paging, response=list[schemas.ApplicationItem])
    async def list_applications(self, request: Request) -> Response:
        """My applications, newest first."""
        caller = await self._resolver.caller(request)
        paging = query(schemas.Paging, request.scope["query_string"])
        found = await self._applications.joined(caller, offset=paging.offset, limit=paging.limit)
        return json_response([schemas.ApplicationItem(item.token, item.name, item.chats_count) for item in found])

    @route("GET", "/applications/{token}", response=schemas.ApplicationItem)
    async def get_application(self, request: Request) -> Response:
        """One application."""
        return await _shown(await self._resolver.member(request))

    @route(
        "PATCH",
        "/applications/{token}",
        request=schemas.NewApplication,
        response=schemas.ApplicationItem,
        roles=True,
    )
    async def rename_application(self, request: Request) -> Response:
        """Rename an application."""
        manager = await self._resolver.member(request)
        manager.must_manage()
        form = await body_fields(request, schemas.NewApplication)
        await manager.rename(form.name)
        return await _shown(manager)

    @route("DELETE", "/applications/{token}", status=204, roles=True)
    async def delete_application(self, request: Request) -> Response:
        """Delete an application and everything in it; its owner only."""
        await (await self._resolver.member(request)).delete()
        return Response(status_code=204)


async def _shown(member: Membership) -> Response:
    application = await member.get()
    return json_response(schemas.ApplicationItem(application.token, application.name, application.chats_count))
