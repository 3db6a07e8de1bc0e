"""Every route of the API in one table, and what the ones do that need no haste."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import email_validator
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from hubbub.chat.accounts import Accounts
from hubbub.chat.applications import Applications
from hubbub.chat.chats import Chats
from hubbub.chat.encoding import ChatItem, MessageItem, encode_chat, encode_message
from hubbub.chat.errors import Invalid, NotFound
from hubbub.chat.feed import Feed
from hubbub.chat.model import ChatKey, Role, User, timestamp
from hubbub.chat.ports import Logins
from hubbub.chat.ticket import Ticket
from hubbub.http import schemas
from hubbub.http.fields import convert, number, query
from hubbub.http.hot import Call, Handler, HotRoutes
from hubbub.http.metrics import Reading, exposition
from hubbub.http.openapi import document
from hubbub.http.reply import EVENT_STREAM, Reply
from hubbub.http.routing import Endpoint, Route, body_fields, json_response, response
from hubbub.http.sessions import COOKIE, LIFETIME_S, Sessions, Token
from hubbub.http.stream import Stream
from hubbub.measures import Histogram

# Domains kept for private use and for tests are welcome: many a Hubbub runs where no mail goes.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()

_READ = (401, 404, 429, 503)
_WRITE = (400, 401, 403, 404, 413, 415, 422, 429, 503)
_MANAGE = (400, 401, 403, 404, 413, 415, 422, 429, 503)
_LOGIN = (400, 401, 403, 413, 415, 422, 429, 503)


def _token(request: Request) -> str:
    return str(request.path_params["token"])


def _chat(request: Request) -> ChatKey:
    """Raises NotFound for what can't be a chat's number."""
    value = number(request.path_params["number"])
    if value is None:
        raise NotFound("There is no such chat in this application.")
    return ChatKey(_token(request), value)


def _message_number(request: Request) -> int:
    value = number(request.path_params["message"])
    if value is None:
        raise NotFound("There is no such message in this chat.")
    return value


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


class Api:
    """``ready`` answers for every part whether it can serve: its name, and what is wrong with it or None. ``more``
    are the routes of others, for the document.
    """

    def __init__(
        self,
        accounts: Accounts,
        applications: Applications,
        chats: Chats,
        sessions: Sessions,
        hot: HotRoutes,
        logins: Logins,
        ready: Callable[[], Awaitable[dict[str, str | None]]],
        readings: Callable[[], Awaitable[list[Reading | Histogram]]],
        feed: Feed,
        is_operator: Callable[[User], bool],
        more: Sequence[Route],
    ) -> None:
        self._feed = feed
        self._more = more
        self._is_operator = is_operator
        self._accounts = accounts
        self._applications = applications
        self._chats = chats
        self._sessions = sessions
        self._hot = hot
        self._ready = ready
        self._readings = readings
        self._logins = logins

    async def _user(self, request: Request) -> User:
        return (await self._sessions.of_request(request)).user

    # Accounts --------------------------------------------------------------------------------------------------------

    @staticmethod
    def _with_cookie(answer: Response, token: Token, request: Request) -> Response:
        secure = request.url.scheme == "https"
        answer.set_cookie(
            COOKIE, token.value, max_age=LIFETIME_S, path="/", httponly=True, samesite="lax", secure=secure
        )
        return answer

    async def register(self, request: Request) -> Response:
        await self._logins.came(_address(request))
        form = await body_fields(request, schemas.Registration)
        errors = []
        try:
            email_validator.validate_email(form.email.strip(), check_deliverability=False, globally_deliverable=False)
        except email_validator.EmailNotValidError:
            errors.append("email must be an email address")
        if form.password_confirmation is not None and form.password_confirmation != form.password:
            errors.append("password_confirmation must equal password")
        if not form.name.strip():
            errors.append("name must not be blank")
        if errors:
            raise Invalid(errors)
        user = await self._accounts.register(name=form.name, email=form.email, password=form.password)
        answer = json_response(schemas.Done("Account created."), 201)
        return self._with_cookie(answer, self._sessions.issue(user), request)

    async def _authenticate(self, request: Request) -> User:
        address = _address(request)
        await self._logins.came(address)
        form = await body_fields(request, schemas.Credentials)
        async with self._logins.attempt(address, form.email.strip().lower()):
            return await self._accounts.authenticate(email=form.email, password=form.password)

    async def login(self, request: Request) -> Response:
        user = await self._authenticate(request)
        return self._with_cookie(json_response(schemas.Done("Logged in.")), self._sessions.issue(user), request)

    async def add_token(self, request: Request) -> Response:
        token = self._sessions.issue(await self._authenticate(request))
        return json_response(schemas.NewToken(token.value, timestamp(token.expires_at * 1000)), 201)

    async def refresh(self, request: Request) -> Response:
        session = await self._sessions.of_request(request)
        token = self._sessions.issue(session.user, session.id)
        content = schemas.Refreshed("Session extended.")
        if session.bearer:  # a program keeps its token itself; a browser's stays out of reach of its scripts
            content = schemas.Refreshed(content.message, token.value, timestamp(token.expires_at * 1000))
        return self._with_cookie(json_response(content), token, request)

    async def logout(self, request: Request) -> Response:
        await self._sessions.end(await self._sessions.of_request(request))
        answer = json_response(schemas.Done("Logged out."))
        answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax", secure=request.url.scheme == "https")
        return answer

    async def me(self, request: Request) -> Response:
        user = await self._user(request)
        me = schemas.Me(user.email, user.name, timestamp(user.created_at), self._is_operator(user))
        return json_response(schemas.MeReply(me))

    # Applications and members ----------------------------------------------------------------------------------------

    async def add_application(self, request: Request) -> Response:
        user = await self._user(request)
        form = await body_fields(request, schemas.NewApplication)
        return json_response(schemas.ApplicationToken(await self._applications.add(user, form.name)), 201)

    async def _rename(self, user: User, token: str, name: str) -> Response:
        await self._applications.rename(user, token, name)
        return await self._application(user, token)

    async def _application(self, user: User, token: str) -> Response:
        application = await self._applications.get(user, token)
        return json_response(schemas.ApplicationItem(application.token, application.name, application.chats_count))

    async def rename_named_application(self, request: Request) -> Response:
        user = await self._user(request)
        form = await body_fields(request, schemas.NamedApplication)
        return await self._rename(user, form.token, form.name)

    async def rename_application(self, request: Request) -> Response:
        user = await self._user(request)
        await self._applications.role(user, _token(request))
        form = await body_fields(request, schemas.NewApplication)
        return await self._rename(user, _token(request), form.name)

    async def list_applications(self, request: Request) -> Response:
        user = await self._user(request)
        paging = query(schemas.Paging, request.scope["query_string"])
        found = await self._applications.joined(user, offset=paging.offset, limit=paging.limit)
        return json_response([schemas.ApplicationItem(item.token, item.name, item.chats_count) for item in found])

    async def get_application(self, request: Request) -> Response:
        return await self._application(await self._user(request), _token(request))

    async def list_members(self, request: Request) -> Response:
        members = await self._applications.members(await self._user(request), _token(request))
        return json_response([schemas.MemberItem(member.email, member.name, member.role) for member in members])

    async def put_member(self, request: Request) -> Response:
        user, token = await self._user(request), _token(request)
        await self._applications.must_manage(user, token)
        form = await body_fields(request, schemas.NewMember)
        member = await self._applications.put_member(user, token, form.email, Role(form.role))
        return json_response(schemas.MemberItem(member.email, member.name, member.role), 201)

    async def remove_member(self, request: Request) -> Response:
        user, token = await self._user(request), _token(request)
        await self._applications.must_manage(user, token)
        if await request.body():
            form = await body_fields(request, schemas.FormerMember)
        else:  # not every client can send a body with DELETE
            form = convert(schemas.FormerMember, dict(request.query_params))
        await self._applications.remove_member(user, token, form.email)
        return Response(status_code=204)

    # Chats -----------------------------------------------------------------------------------------------------------

    async def add_chat(self, request: Request) -> Response:
        user, token = await self._user(request), _token(request)
        await self._applications.role(user, token)
        form = await body_fields(request, schemas.NewChat)
        return json_response(schemas.ChatNumber(await self._chats.add(user, token, form.title)), 201)

    async def get_chat(self, request: Request) -> Response:
        chat = await self._chats.get(await self._user(request), _chat(request))
        return response(Reply(200, encode_chat(chat.number, chat.title, chat.messages_count)))

    async def rename_chat(self, request: Request) -> Response:
        user, key = await self._user(request), _chat(request)
        await self._chats.must_exist(user, key)
        form = await body_fields(request, schemas.Title)
        await self._chats.rename(user, key, form.title)
        return await self.get_chat(request)

    # Messages --------------------------------------------------------------------------------------------------------

    async def _edited(self, user: User, key: ChatKey, message: int, body: str) -> Response:
        await self._chats.edit(user, key, message, body)
        return response(Reply(200, encode_message(await self._chats.message(user, key, message))))

    async def edit_numbered_message(self, request: Request) -> Response:
        user, key = await self._user(request), _chat(request)
        await self._chats.must_exist(user, key)
        form = await body_fields(request, schemas.NumberedMessage)
        return await self._edited(user, key, form.message_number, form.body)

    async def edit_message(self, request: Request) -> Response:
        user, key, message = await self._user(request), _chat(request), _message_number(request)
        await self._chats.message(user, key, message)
        form = await body_fields(request, schemas.NewMessage)
        return await self._edited(user, key, message, form.body)

    async def search_messages(self, request: Request) -> Response:
        user, key = await self._user(request), _chat(request)
        await self._chats.must_exist(user, key)
        wanted = query(schemas.Search, request.scope["query_string"])
        page = await self._chats.search(user, key, wanted.q, offset=wanted.offset, limit=wanted.limit)
        return response(Reply(200, page.body))

    async def stream_messages(self, request: Request) -> Response:
        user, key = await self._user(request), _chat(request)
        await self._chats.must_exist(user, key)
        wanted = query(schemas.Streaming, request.scope["query_string"])
        if request.method == "HEAD":
            return Response(media_type=EVENT_STREAM.decode())
        resumed = request.headers.get("last-event-id", "")
        after = int(resumed) if resumed.isdecimal() and len(resumed) < 17 else wanted.after
        if after is None:
            after = await self._chats.newest_number(user, key)
        stream = Stream(self._chats, self._feed, lambda: self._user(request), user, key, after)
        # A proxy in between must hand on each event as it comes.
        return StreamingResponse(stream.events(), media_type=EVENT_STREAM.decode(), headers={"x-accel-buffering": "no"})

    async def get_message(self, request: Request) -> Response:
        user, key = await self._user(request), _chat(request)
        return response(Reply(200, encode_message(await self._chats.message(user, key, _message_number(request)))))

    async def delete_message(self, request: Request) -> Response:
        await self._chats.delete(await self._user(request), _chat(request), _message_number(request))
        return Response(status_code=204)

    # The service itself ----------------------------------------------------------------------------------------------

    async def healthz(self, request: Request) -> Response:
        return json_response(schemas.Health("ok"))

    async def readyz(self, request: Request) -> Response:
        faults = await self._ready()
        parts = {
            name: schemas.Part("ok") if fault is None else schemas.Part("failing", fault)
            for name, fault in faults.items()
        }
        if all(fault is None for fault in faults.values()):
            return json_response(schemas.Health("ok", parts))
        answer = json_response(schemas.Health("failing", parts), 503)
        answer.headers["retry-after"] = "5"
        return answer

    async def metrics(self, request: Request) -> Response:
        return Response(exposition(await self._readings()), media_type=CONTENT_TYPE_LATEST)

    async def openapi(self, request: Request) -> Response:
        return json_response(document([*self.routes(), *self._more]))

    def _hot_endpoint(self, handler: Handler) -> Endpoint:
        """A hot route for requests that come by ASGI: HEAD, or a path in an unusual spelling."""

        async def endpoint(request: Request) -> Response:
            value: int | None = 0
            if "number" in request.path_params:
                # Credentials come before what the path says, here as everywhere.
                value = number(request.path_params["number"])
                if value is None:
                    await self._user(request)
                    raise NotFound("There is no such chat in this application.")
            headers = dict(request.scope["headers"])
            call = Call(_token(request), value or 0, request.scope["query_string"], headers, await request.body())
            result = await handler(call)
            return response(self._hot.posted(await result) if isinstance(result, Ticket) else result)

        return endpoint

    def routes(self) -> list[Route]:
        """Every operation there is."""
        auth = "/api/v1/auth"
        apps = "/api/v1/applications"
        app = apps + "/{token}"
        chats = app + "/chats"
        chat = chats + "/{number}"
        messages = chat + "/messages"
        message = messages + "/{message}"
        return [
            Route(
                method="POST",
                path=auth + "/register",
                name="register",
                summary="Create an account and log in",
                endpoint=self.register,
                request=schemas.Registration,
                response=schemas.Done,
                status=201,
                errors=(400, 403, 413, 415, 422, 429, 503),
                guarded=False,
            ),
            Route(
                method="POST",
                path=auth + "/login",
                name="login",
                summary="Log in: sets the cookie",
                endpoint=self.login,
                request=schemas.Credentials,
                response=schemas.Done,
                errors=_LOGIN,
                guarded=False,
            ),
            Route(
                method="POST",
                path=auth + "/tokens",
                name="addToken",
                summary="A Bearer token for a program",
                endpoint=self.add_token,
                request=schemas.Credentials,
                response=schemas.NewToken,
                status=201,
                errors=_LOGIN,
                guarded=False,
            ),
            Route(
                method="POST",
                path=auth + "/refresh",
                name="refresh",
                summary="A new token for the same session",
                endpoint=self.refresh,
                response=schemas.Refreshed,
                errors=(401, 403, 429, 503),
            ),
            Route(
                method="DELETE",
                path=auth + "/logout",
                name="logout",
                summary="End the session and all of its tokens",
                endpoint=self.logout,
                response=schemas.Done,
                errors=(401, 403, 429, 503),
            ),
            Route(
                method="GET",
                path=auth + "/me",
                name="me",
                summary="Who is logged in",
                endpoint=self.me,
                response=schemas.MeReply,
                errors=(401, 429, 503),
            ),
            Route(
                method="POST",
                path=apps,
                name="addApplication",
                summary="Create an application",
                endpoint=self.add_application,
                request=schemas.NewApplication,
                response=schemas.ApplicationToken,
                status=201,
                errors=(400, 401, 403, 413, 415, 422, 429, 503),
            ),
            Route(
                method="PUT",
                path=apps,
                name="renameNamedApplication",
                summary="Rename the application named in the body",
                endpoint=self.rename_named_application,
                request=schemas.NamedApplication,
                response=schemas.ApplicationItem,
                errors=_MANAGE,
            ),
            Route(
                method="GET",
                path=apps,
                name="listApplications",
                summary="My applications, newest first",
                endpoint=self.list_applications,
                query=schemas.Paging,
                response=list[schemas.ApplicationItem],
                errors=(401, 422, 429, 503),
            ),
            Route(
                method="GET",
                path=app,
                name="getApplication",
                summary="One application",
                endpoint=self.get_application,
                response=schemas.ApplicationItem,
                errors=_READ,
            ),
            Route(
                method="PATCH",
                path=app,
                name="renameApplication",
                summary="Rename an application",
                endpoint=self.rename_application,
                request=schemas.NewApplication,
                response=schemas.ApplicationItem,
                errors=_MANAGE,
            ),
            Route(
                method="GET",
                path=app + "/members",
                name="listMembers",
                summary="The application's members",
                endpoint=self.list_members,
                response=list[schemas.MemberItem],
                errors=_READ,
            ),
            Route(
                method="POST",
                path=app + "/members",
                name="putMember",
                summary="Add a member, or change a member's role",
                endpoint=self.put_member,
                request=schemas.NewMember,
                response=schemas.MemberItem,
                status=201,
                errors=_MANAGE,
            ),
            Route(
                method="DELETE",
                path=app + "/members",
                name="removeMember",
                summary="Remove a member, named in the body or by ?email=",
                endpoint=self.remove_member,
                request=schemas.FormerMember,
                body_required=False,
                status=204,
                errors=_MANAGE,
            ),
            Route(
                method="POST",
                path=chats,
                name="addChat",
                summary="Open a chat",
                endpoint=self.add_chat,
                request=schemas.NewChat,
                body_required=False,
                response=schemas.ChatNumber,
                status=201,
                errors=_WRITE,
            ),
            Route(
                method="GET",
                path=chats,
                name="listChats",
                summary="The application's chats, newest first",
                endpoint=self._hot_endpoint(self._hot.list_chats),
                query=schemas.Paging,
                response=list[ChatItem],
                errors=(401, 404, 422, 429, 503),
            ),
            Route(
                method="GET",
                path=chat,
                name="getChat",
                summary="One chat",
                endpoint=self.get_chat,
                response=ChatItem,
                errors=_READ,
            ),
            Route(
                method="PATCH",
                path=chat,
                name="renameChat",
                summary="Set a chat's title",
                endpoint=self.rename_chat,
                request=schemas.Title,
                response=ChatItem,
                errors=_WRITE,
            ),
            Route(
                method="POST",
                path=messages,
                name="postMessage",
                summary="Send a message; durable once answered",
                endpoint=self._hot_endpoint(self._hot.post_message),
                request=schemas.NewMessage,
                response=schemas.MessageNumber,
                errors=(400, 401, 403, 404, 409, 413, 415, 422, 429, 503),
                idempotent=True,
            ),
            Route(
                method="PUT",
                path=messages,
                name="editNumberedMessage",
                summary="Edit the message numbered in the body; its sender only",
                endpoint=self.edit_numbered_message,
                request=schemas.NumberedMessage,
                response=MessageItem,
                errors=_MANAGE,
            ),
            Route(
                method="GET",
                path=messages,
                name="listMessages",
                summary="Messages, newest first, by page or before/after a number",
                endpoint=self._hot_endpoint(self._hot.list_messages),
                query=schemas.MessagePaging,
                response=list[MessageItem],
                errors=(401, 404, 422, 429, 503),
            ),
            Route(
                method="GET",
                path=messages + "/search",
                name="searchMessages",
                summary="Messages that match, best first, then newest",
                endpoint=self.search_messages,
                query=schemas.Search,
                response=list[MessageItem],
                errors=(401, 404, 422, 429, 503),
            ),
            Route(
                method="GET",
                path=messages + "/stream",
                name="streamMessages",
                summary="Messages as they arrive (Server-Sent Events), resuming from Last-Event-ID",
                endpoint=self.stream_messages,
                query=schemas.Streaming,
                streams=True,
                errors=(401, 404, 422, 429, 503),
            ),
            Route(
                method="GET",
                path=message,
                name="getMessage",
                summary="One message",
                endpoint=self.get_message,
                response=MessageItem,
                errors=_READ,
            ),
            Route(
                method="PATCH",
                path=message,
                name="editMessage",
                summary="Edit a message; its sender only",
                endpoint=self.edit_message,
                request=schemas.NewMessage,
                response=MessageItem,
                errors=_MANAGE,
            ),
            Route(
                method="DELETE",
                path=message,
                name="deleteMessage",
                summary="Delete a message; its sender, the owner and admins",
                endpoint=self.delete_message,
                status=204,
                errors=(401, 403, 404, 429, 503),
            ),
            Route(
                method="GET",
                path="/healthz",
                name="healthz",
                summary="Alive",
                endpoint=self.healthz,
                response=schemas.Health,
                guarded=False,
            ),
            Route(
                method="GET",
                path="/readyz",
                name="readyz",
                summary="Able to serve, part by part",
                endpoint=self.readyz,
                response=schemas.Health,
                guarded=False,
            ),
            Route(
                method="GET",
                path="/metrics",
                name="metrics",
                summary="What an operator watches, in Prometheus' text format",
                endpoint=self.metrics,
                guarded=False,
            ),
            Route(
                method="GET",
                path="/openapi.json",
                name="openapi",
                summary="This document",
                endpoint=self.openapi,
                response=dict[str, Any],
                guarded=False,
            ),
        ]
