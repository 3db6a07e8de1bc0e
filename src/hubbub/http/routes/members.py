"""The members of an application."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from hubbub.chat.model import Member, Role
from hubbub.http import schemas
from hubbub.http.fields import query
from hubbub.http.resolver import Resolver
from hubbub.http.routing import BASE, body_fields, json_response, route

_PATH = "/applications/{token}/members"


class MemberRoutes:
    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    @route("GET", _PATH, query=schemas.MemberPaging, response=list[schemas.MemberItem])
    async def list_members(self, request: Request) -> Response:
        """The application's members, the oldest accounts first; with emails for the owner and admins."""
        member = await self._resolver.member(request)
        paging = query(schemas.MemberPaging, request.scope["query_string"])
        members = await member.members(offset=paging.offset, limit=paging.limit + 1)
        answer = json_response([_item(each) for each in members[: paging.limit]])
        if len(members) > paging.limit:
            base = BASE + _PATH.format(token=request.path_params["token"])
            answer.headers["link"] = f'<{base}?page={paging.page + 1}&limit={paging.limit}>; rel="next"'
        return answer

    @route("POST", _PATH, request=schemas.NewMember, response=schemas.MemberItem, status=201, roles=True)
    async def put_member(self, request: Request) -> Response:
        """Add a member, or change a member's role."""
        manager = await self._resolver.member(request)
        manager.must_manage()
        form = await body_fields(request, schemas.NewMember)
        return json_response(_item(await manager.put_member(form.email, Role(form.role))), 201)

    @route(
        "DELETE",
        _PATH,
        request=schemas.FormerMember,
        body_required=False,
        query=schemas.NamedMember,
        status=204,
        roles=True,
    )
    async def remove_member(self, request: Request) -> Response:
        """Remove a member, named in the body or by ?email=; all but the owner may remove themself."""
        member = await self._resolver.member(request)
        if await request.body():
            form = await body_fields(request, schemas.FormerMember)
        else:  # not every client can send a body with DELETE
            form = query(schemas.FormerMember, request.scope["query_string"])
        await member.remove_member(form.email)
        return Response(status_code=204)

    @route("PUT", "/applications/{token}/owner", request=schemas.NewOwner, status=204, roles=True)
    async def hand_over(self, request: Request) -> Response:
        """Make another member the owner; the previous owner becomes an admin."""
        owner = await self._resolver.member(request)
        await owner.hand_over((await body_fields(request, schemas.NewOwner)).email)
        return Response(status_code=204)


def _item(member: Member) -> schemas.MemberItem:
    return schemas.MemberItem(member.ref, member.name, member.role, member.email)
