"""A client for programs: ``Client``, and ``AsyncClient`` with the same methods as coroutines.

    with Client("http://127.0.0.1:3000") as hubbub:
        hubbub.log_in("ann@example.com", "a password")
        application = hubbub.add_application("Ours")
        chat = hubbub.add_chat(application, title="General")
        message = hubbub.send(application, chat, "Hello")

Requests that failed on the way (no answer, 429, 502, 503, 504) are retried where that is safe, after the time that the
service asks for or a growing one: reads, edits, deletes, and messages, since each message has its own Idempotency-Key.
Creating an application, a chat or an account is not retried, since it might exist already.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, TypeVar

import httpx
import httpx_sse
from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception, stop_after_attempt

T = TypeVar("T")

_PASSING = (429, 502, 503, 504)
_MEMBERS = 100  # in a page
_ATTEMPTS = 8  # some twenty seconds, enough for a process that is started again
_STREAM_QUIET_S = 20.0  # Hubbub sends something every five seconds


class HubbubError(Exception):
    """A request that was refused or failed. ``status`` is 0 when there was no answer; ``errors`` has a sentence for
    each wrong field."""

    def __init__(
        self, status: int, sentence: str, errors: tuple[str, ...] = (), retry_after: float | None = None
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.errors = errors
        self.retry_after = retry_after


@dataclass(frozen=True)
class Me:
    id: str
    email: str
    name: str


@dataclass(frozen=True)
class Application:
    token: str
    name: str
    chats_count: int


@dataclass(frozen=True)
class Member:
    """A member of an application. ``email`` is None unless the owner or an admin asks."""

    id: str
    email: str | None
    name: str
    role: str


@dataclass(frozen=True)
class Invite:
    """An invite. ``used`` of ``uses`` are used up."""

    id: str
    role: str
    uses: int
    used: int
    expires_at: datetime


@dataclass(frozen=True)
class NewInvite:
    """A new invite. Its ``link``, and the ``code`` in it, are returned only this once."""

    id: str
    link: str
    code: str
    expires_at: datetime


@dataclass(frozen=True)
class Chat:
    number: int
    title: str | None
    messages_count: int


@dataclass(frozen=True)
class Message:
    """A message. ``sender_id`` identifies the sender; several users may have the same name."""

    number: int
    sender_id: str
    sender_name: str
    body: str
    created_at: datetime
    edited_at: datetime | None = None


class Found(list[Message]):
    """The result of a search, best first. ``truncated``: a complete search would have taken too much work."""

    truncated = False


@dataclass(frozen=True)
class Event:
    """An event of a chat. ``kind`` is message, edited or deleted; of a deleted message only the number is known."""

    kind: str
    number: int
    message: Message | None
    id: str


@dataclass(frozen=True)
class _Call(Generic[T]):
    method: str
    path: str
    read: Callable[[Any], T]
    content: Any = None
    query: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    again: bool = True

    def options(self, token: str | None) -> dict[str, Any]:
        """What httpx is asked to send."""
        return {
            "method": self.method,
            "url": self.path,
            "json": self.content,
            "params": self.query,
            "headers": self.headers | _bearer(token),
        }


def _bearer(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _me(content: Any) -> Me:
    user = content["user"]
    return Me(user["id"], user["email"], user["name"])


def _application(content: Any) -> Application:
    return Application(content["token"], content["name"], content["chatsCount"])


def _member(content: Any) -> Member:
    return Member(content["id"], content.get("email"), content["name"], content["role"])


def _invite(content: Any) -> Invite:
    expires_at = datetime.fromisoformat(content["expiresAt"])
    return Invite(content["id"], content["role"], content["uses"], content["used"], expires_at)


def _new_invite(content: Any) -> NewInvite:
    return NewInvite(content["id"], content["link"], content["code"], datetime.fromisoformat(content["expiresAt"]))


def _chat(content: Any) -> Chat:
    return Chat(content["chatNumber"], content["title"], content["messagesCount"])


def _message(content: Any) -> Message:
    edited = content.get("editedAt")
    return Message(
        content["messageNumber"],
        content["senderId"],
        content["senderName"],
        content["body"],
        datetime.fromisoformat(content["createdAt"]),
        datetime.fromisoformat(edited) if edited else None,
    )


def _nothing(_: Any) -> None:
    return None


def _each(read: Callable[[Any], T]) -> Callable[[Any], list[T]]:
    return lambda content: [read(each) for each in content]


def _event(sent: httpx_sse.ServerSentEvent) -> Event | None:
    """The event; None for anything else in the stream. Raises HubbubError when the service has ended the stream."""
    if not sent.data:  # such as one that only says how soon to come back
        return None
    if sent.event == "end":
        reason = sent.json()
        raise HubbubError(reason["status"], reason["error"])
    if sent.event not in ("message", "edited", "deleted"):
        return None
    content = sent.json()
    message = None if sent.event == "deleted" else _message(content)
    return Event(sent.event, content["messageNumber"], message, sent.id)


def _answer(call: _Call[T], response: httpx.Response) -> T:
    if response.is_success:
        result = call.read(response.json() if response.content else None)
        if isinstance(result, Found):
            result.truncated = "hubbub-truncated" in response.headers
        return result
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    wait = response.headers.get("retry-after", "")
    raise HubbubError(
        response.status_code,
        problem.get("error") or response.reason_phrase,
        tuple(problem.get("errors", ())),
        float(wait) if wait.isdigit() else None,
    )


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.retry_after if isinstance(error, HubbubError) else None
    growing = 0.1 * 2 ** min(state.attempt_number, 6)
    return float(asked if asked is not None else growing) + secrets.randbelow(100) / 1000


def _policy(again: bool) -> dict[str, Any]:
    def passing(error: BaseException) -> bool:
        return again and isinstance(error, HubbubError) and (error.status == 0 or error.status in _PASSING)

    return {
        "retry": retry_if_exception(passing),
        "stop": stop_after_attempt(_ATTEMPTS),
        "wait": _wait,
        "reraise": True,
    }


class _Calls:
    """The requests of all operations."""

    @staticmethod
    def register(name: str, email: str, password: str, invite: str | None) -> _Call[None]:
        fields = {"name": name, "email": email, "password": password}
        if invite is not None:
            fields["invite"] = invite
        return _Call("POST", "/auth/register", _nothing, fields, again=False)

    @staticmethod
    def token(email: str, password: str) -> _Call[str]:
        return _Call(
            "POST", "/auth/tokens", lambda content: str(content["token"]), {"email": email, "password": password}
        )

    @staticmethod
    def me() -> _Call[Me]:
        return _Call("GET", "/auth/me", _me)

    @staticmethod
    def log_out() -> _Call[None]:
        return _Call("DELETE", "/auth/logout", _nothing)

    @staticmethod
    def end_sessions() -> _Call[None]:
        return _Call("DELETE", "/auth/sessions", _nothing)

    @staticmethod
    def rename(name: str) -> _Call[None]:
        return _Call("PATCH", "/auth/me", _nothing, {"name": name})

    @staticmethod
    def set_password(current: str, new: str) -> _Call[str | None]:
        fields = {"currentPassword": current, "password": new}
        return _Call("PUT", "/auth/me/password", lambda content: content.get("token"), fields, again=False)

    @staticmethod
    def delete_account(password: str, messages: str) -> _Call[None]:
        fields = {"currentPassword": password}
        return _Call("DELETE", "/auth/me", _nothing, fields, query={"messages": messages}, again=False)

    @staticmethod
    def add_application(name: str) -> _Call[str]:
        return _Call("POST", "/applications", lambda content: str(content["token"]), {"name": name}, again=False)

    @staticmethod
    def delete_application(token: str) -> _Call[None]:
        return _Call("DELETE", f"/applications/{token}", _nothing)

    @staticmethod
    def applications(page: int, limit: int) -> _Call[list[Application]]:
        return _Call("GET", "/applications", _each(_application), query={"page": page, "limit": limit})

    @staticmethod
    def add_member(token: str, email: str, role: str) -> _Call[Member]:
        return _Call("POST", f"/applications/{token}/members", _member, {"email": email, "role": role})

    @staticmethod
    def remove_member(token: str, email: str) -> _Call[None]:
        return _Call("DELETE", f"/applications/{token}/members", _nothing, {"email": email})

    @staticmethod
    def hand_over(token: str, email: str) -> _Call[None]:
        return _Call("PUT", f"/applications/{token}/owner", _nothing, {"email": email}, again=False)

    @staticmethod
    def members(token: str, page: int) -> _Call[list[Member]]:
        query = {"page": page, "limit": _MEMBERS}
        return _Call("GET", f"/applications/{token}/members", _each(_member), query=query)

    @staticmethod
    def invite(token: str, role: str, expires_in: int, uses: int) -> _Call[NewInvite]:
        fields = {"role": role, "expiresIn": expires_in, "uses": uses}
        return _Call("POST", f"/applications/{token}/invites", _new_invite, fields, again=False)

    @staticmethod
    def invites(token: str, page: int, limit: int) -> _Call[list[Invite]]:
        query = {"page": page, "limit": limit}
        return _Call("GET", f"/applications/{token}/invites", _each(_invite), query=query)

    @staticmethod
    def revoke_invite(token: str, invite: str) -> _Call[None]:
        return _Call("DELETE", f"/applications/{token}/invites/{invite}", _nothing)

    @staticmethod
    def accept_invite(code: str) -> _Call[str]:
        return _Call("POST", "/invites/accept", lambda content: str(content["token"]), {"code": code})

    @staticmethod
    def add_chat(token: str, title: str | None) -> _Call[int]:
        path = f"/applications/{token}/chats"
        return _Call("POST", path, lambda content: int(content["chatNumber"]), {"title": title}, again=False)

    @staticmethod
    def delete_chat(token: str, chat: int) -> _Call[None]:
        return _Call("DELETE", f"/applications/{token}/chats/{chat}", _nothing)

    @staticmethod
    def chats(token: str, page: int, limit: int) -> _Call[list[Chat]]:
        return _Call("GET", f"/applications/{token}/chats", _each(_chat), query={"page": page, "limit": limit})

    @staticmethod
    def send(token: str, chat: int, body: str, key: str | None) -> _Call[int]:
        headers = {"Idempotency-Key": key or secrets.token_urlsafe(18)}
        return _Call(
            "POST",
            _messages(token, chat),
            lambda content: int(content["messageNumber"]),
            {"body": body},
            headers=headers,
        )

    @staticmethod
    def edit(token: str, chat: int, number: int, body: str) -> _Call[Message]:
        return _Call("PATCH", f"{_messages(token, chat)}/{number}", _message, {"body": body})

    @staticmethod
    def delete(token: str, chat: int, number: int) -> _Call[None]:
        return _Call("DELETE", f"{_messages(token, chat)}/{number}", _nothing)

    @staticmethod
    def messages(token: str, chat: int, limit: int, before: int | None, after: int | None) -> _Call[list[Message]]:
        query = {"limit": limit, "before": before, "after": after}
        given = {name: value for name, value in query.items() if value is not None}
        return _Call("GET", _messages(token, chat), _each(_message), query=given)

    @staticmethod
    def search(token: str, chat: int, q: str, limit: int) -> _Call[Found]:
        def read(content: Any) -> Found:
            return Found(_each(_message)(content))

        return _Call("GET", f"{_messages(token, chat)}/search", read, query={"q": q, "limit": limit})


def _messages(token: str, chat: int) -> str:
    return f"/applications/{token}/chats/{chat}/messages"


class Client:
    """A client that blocks. Methods raise HubbubError. Lists are newest first."""

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = 30.0) -> None:
        """``token`` is one that ``log_in`` returned earlier."""
        self._http = httpx.Client(base_url=url.rstrip("/") + "/api/v1", timeout=timeout_s)
        self.token = token

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def _run(self, call: _Call[T]) -> T:
        for attempt in Retrying(**_policy(call.again)):
            with attempt:
                return self._once(call)
        raise AssertionError("tenacity raises the last error itself")

    def _once(self, call: _Call[T]) -> T:
        try:
            response = self._http.request(**call.options(self.token))
        except httpx.TransportError as error:
            raise HubbubError(0, f"Hubbub gave no answer: {error!r}.") from error
        return _answer(call, response)

    def register(self, name: str, email: str, password: str, *, invite: str | None = None) -> None:
        """Create an account, and log in. ``invite`` is the code of an invite, which joins its application."""
        self._run(_Calls.register(name, email, password, invite))
        self.log_in(email, password)

    def log_in(self, email: str, password: str) -> str:
        """Log in. Returns the token that later calls use; it is valid for seven days."""
        self.token = self._run(_Calls.token(email, password))
        return self.token

    def sign_in(self, name: str, email: str, password: str) -> None:
        """Log in, or create the account if there is none, so that a program can be started again."""
        try:
            self.log_in(email, password)
        except HubbubError as error:
            if error.status != 401:
                raise
            self.register(name, email, password)

    def me(self) -> Me:
        """The user who is logged in. A message is the user's own if its ``sender_id`` is this ``id``."""
        return self._run(_Calls.me())

    def log_out(self) -> None:
        self._run(_Calls.log_out())
        self.token = None

    def end_sessions(self) -> None:
        """Log out everywhere: all tokens of the user become invalid, copied ones too."""
        self._run(_Calls.end_sessions())
        self.token = None

    def rename(self, name: str) -> None:
        """Change the user's name, on earlier messages too."""
        self._run(_Calls.rename(name))

    def set_password(self, current: str, new: str) -> None:
        """Change the password. All other sessions of the user end; this one continues with another token."""
        self.token = self._run(_Calls.set_password(current, new))

    def delete_account(self, password: str, *, messages: str = "keep") -> None:
        """Delete the account permanently. ``messages``: keep them under the name "Deleted user", or erase them."""
        self._run(_Calls.delete_account(password, messages))
        self.token = None

    def add_application(self, name: str) -> str:
        """Create an application. Returns its token."""
        return self._run(_Calls.add_application(name))

    def delete_application(self, application: str) -> None:
        """Delete the application and everything in it."""
        self._run(_Calls.delete_application(application))

    def applications(self, *, page: int = 1, limit: int = 100) -> list[Application]:
        return self._run(_Calls.applications(page, limit))

    def add_member(self, application: str, email: str, role: str = "member") -> Member:
        return self._run(_Calls.add_member(application, email, role))

    def remove_member(self, application: str, email: str) -> None:
        """Remove a member; with one's own email, leave the application."""
        self._run(_Calls.remove_member(application, email))

    def hand_over(self, application: str, email: str) -> None:
        """Make another member the owner; the user becomes an admin."""
        self._run(_Calls.hand_over(application, email))

    def members(self, application: str) -> list[Member]:
        """All members, fetched page by page."""
        found: list[Member] = []
        while True:
            page = self._run(_Calls.members(application, 1 + len(found) // _MEMBERS))
            found += page
            if len(page) < _MEMBERS:
                return found

    def invite(
        self, application: str, role: str = "member", *, expires_in: int = 7 * 86400, uses: int = 1
    ) -> NewInvite:
        """Create a link by which ``uses`` people may join, for ``expires_in`` seconds."""
        return self._run(_Calls.invite(application, role, expires_in, uses))

    def invites(self, application: str, *, page: int = 1, limit: int = 100) -> list[Invite]:
        return self._run(_Calls.invites(application, page, limit))

    def revoke_invite(self, application: str, invite: str) -> None:
        """Revoke the invite with the id ``invite``. People who have joined with it stay members."""
        self._run(_Calls.revoke_invite(application, invite))

    def accept_invite(self, code: str) -> str:
        """Join an application. Returns its token."""
        return self._run(_Calls.accept_invite(code))

    def add_chat(self, application: str, title: str | None = None) -> int:
        """Create a chat. Returns its number."""
        return self._run(_Calls.add_chat(application, title))

    def delete_chat(self, application: str, chat: int) -> None:
        """Delete the chat and everything in it. Its number is never given again."""
        self._run(_Calls.delete_chat(application, chat))

    def chats(self, application: str, *, page: int = 1, limit: int = 100) -> list[Chat]:
        return self._run(_Calls.chats(application, page, limit))

    def send(self, application: str, chat: int, body: str, *, key: str | None = None) -> int:
        """The new message's number, on disk when this returns. With a ``key`` of your own, a program that starts again
        can send the same once more and adds nothing.
        """
        return self._run(_Calls.send(application, chat, body, key))

    def edit(self, application: str, chat: int, number: int, body: str) -> Message:
        return self._run(_Calls.edit(application, chat, number, body))

    def delete(self, application: str, chat: int, number: int) -> None:
        self._run(_Calls.delete(application, chat, number))

    def messages(
        self, application: str, chat: int, *, limit: int = 100, before: int | None = None, after: int | None = None
    ) -> list[Message]:
        return self._run(_Calls.messages(application, chat, limit, before, after))

    def history(self, application: str, chat: int, *, after: int = 0) -> Iterator[Message]:
        """All messages above a number, oldest first, fetched page by page."""
        while page := self.messages(application, chat, after=after):
            yield from reversed(page)
            after = page[0].number

    def search(self, application: str, chat: int, q: str, *, limit: int = 100) -> Found:
        return self._run(_Calls.search(application, chat, q, limit))

    def listen(self, application: str, chat: int, *, after: int | None = None) -> Iterator[Event]:
        """Events as they happen, for ever; a lost connection goes on where it was. Starts behind the message ``after``,
        or now. A message may come twice after a lost connection.
        """
        last = str(after) if after is not None else ""

        def connect() -> Iterator[Event]:
            headers = _bearer(self.token) | ({"Last-Event-ID": last} if last else {})
            path = f"{_messages(application, chat)}/stream"
            try:
                with httpx_sse.connect_sse(self._http, "GET", path, headers=headers, timeout=_STREAM_QUIET_S) as source:
                    if not source.response.is_success:
                        source.response.read()
                        _answer(_Call("GET", path, _nothing), source.response)
                    for sent in source.iter_sse():
                        event = _event(sent)
                        if event is not None:
                            yield event
            except httpx.TransportError as error:
                raise HubbubError(0, f"The stream broke off: {error!r}.") from error
            raise HubbubError(0, "The stream ended.")

        while True:
            for attempt in Retrying(**_policy(again=True)):
                with attempt:
                    for event in connect():
                        last = event.id or last
                        attempt.retry_state.attempt_number = 1
                        yield event


class AsyncClient:
    """As Client, with coroutines; use ``async for`` with ``history`` and ``listen``."""

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = 30.0) -> None:
        self._http = httpx.AsyncClient(base_url=url.rstrip("/") + "/api/v1", timeout=timeout_s)
        self._listening: dict[object, AsyncGenerator[Event, None]] = {}
        self.token = token

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        # A loop that was left by break is still open. Left to the end of asyncio.run, it would be closed from two
        # places at once, and say so in a traceback.
        for events in list(self._listening.values()):
            with suppress(RuntimeError):  # another task waits in it: it is told when the connection is closed below
                await events.aclose()
        await self._http.aclose()

    async def _run(self, call: _Call[T]) -> T:
        async for attempt in AsyncRetrying(**_policy(call.again)):
            with attempt:
                return await self._once(call)
        raise AssertionError("tenacity raises the last error itself")

    async def _once(self, call: _Call[T]) -> T:
        try:
            response = await self._http.request(**call.options(self.token))
        except httpx.TransportError as error:
            raise HubbubError(0, f"Hubbub gave no answer: {error!r}.") from error
        return _answer(call, response)

    async def register(self, name: str, email: str, password: str, *, invite: str | None = None) -> None:
        await self._run(_Calls.register(name, email, password, invite))
        await self.log_in(email, password)

    async def log_in(self, email: str, password: str) -> str:
        self.token = await self._run(_Calls.token(email, password))
        return self.token

    async def sign_in(self, name: str, email: str, password: str) -> None:
        try:
            await self.log_in(email, password)
        except HubbubError as error:
            if error.status != 401:
                raise
            await self.register(name, email, password)

    async def me(self) -> Me:
        return await self._run(_Calls.me())

    async def log_out(self) -> None:
        await self._run(_Calls.log_out())
        self.token = None

    async def end_sessions(self) -> None:
        await self._run(_Calls.end_sessions())
        self.token = None

    async def rename(self, name: str) -> None:
        await self._run(_Calls.rename(name))

    async def set_password(self, current: str, new: str) -> None:
        self.token = await self._run(_Calls.set_password(current, new))

    async def delete_account(self, password: str, *, messages: str = "keep") -> None:
        await self._run(_Calls.delete_account(password, messages))
        self.token = None

    async def add_application(self, name: str) -> str:
        return await self._run(_Calls.add_application(name))

    async def delete_application(self, application: str) -> None:
        await self._run(_Calls.delete_application(application))

    async def applications(self, *, page: int = 1, limit: int = 100) -> list[Application]:
        return await self._run(_Calls.applications(page, limit))

    async def add_member(self, application: str, email: str, role: str = "member") -> Member:
        return await self._run(_Calls.add_member(application, email, role))

    async def remove_member(self, application: str, email: str) -> None:
        await self._run(_Calls.remove_member(application, email))

    async def hand_over(self, application: str, email: str) -> None:
        await self._run(_Calls.hand_over(application, email))

    async def members(self, application: str) -> list[Member]:
        found: list[Member] = []
        while True:
            page = await self._run(_Calls.members(application, 1 + len(found) // _MEMBERS))
            found += page
            if len(page) < _MEMBERS:
                return found

    async def invite(
        self, application: str, role: str = "member", *, expires_in: int = 7 * 86400, uses: int = 1
    ) -> NewInvite:
        return await self._run(_Calls.invite(application, role, expires_in, uses))

    async def invites(self, application: str, *, page: int = 1, limit: int = 100) -> list[Invite]:
        return await self._run(_Calls.invites(application, page, limit))

    async def revoke_invite(self, application: str, invite: str) -> None:
        await self._run(_Calls.revoke_invite(application, invite))

    async def accept_invite(self, code: str) -> str:
        return await self._run(_Calls.accept_invite(code))

    async def add_chat(self, application: str, title: str | None = None) -> int:
        return await self._run(_Calls.add_chat(application, title))

    async def delete_chat(self, application: str, chat: int) -> None:
        await self._run(_Calls.delete_chat(application, chat))

    async def chats(self, application: str, *, page: int = 1, limit: int = 100) -> list[Chat]:
        return await self._run(_Calls.chats(application, page, limit))

    async def send(self, application: str, chat: int, body: str, *, key: str | None = None) -> int:
        return await self._run(_Calls.send(application, chat, body, key))

    async def edit(self, application: str, chat: int, number: int, body: str) -> Message:
        return await self._run(_Calls.edit(application, chat, number, body))

    async def delete(self, application: str, chat: int, number: int) -> None:
        await self._run(_Calls.delete(application, chat, number))

    async def messages(
        self, application: str, chat: int, *, limit: int = 100, before: int | None = None, after: int | None = None
    ) -> list[Message]:
        return await self._run(_Calls.messages(application, chat, limit, before, after))

    async def history(self, application: str, chat: int, *, after: int = 0) -> AsyncIterator[Message]:
        while page := await self.messages(application, chat, after=after):
            for message in reversed(page):
                yield message
            after = page[0].number

    async def search(self, application: str, chat: int, q: str, *, limit: int = 100) -> Found:
        return await self._run(_Calls.search(application, chat, q, limit))

    def listen(self, application: str, chat: int, *, after: int | None = None) -> AsyncGenerator[Event, None]:
        """See Client.listen. The connection is kept until the client is closed, or this (``contextlib.aclosing``)."""
        me = object()
        events = self._listening[me] = self._events(me, application, chat, after)
        return events

    async def _events(self, me: object, application: str, chat: int, after: int | None) -> AsyncGenerator[Event, None]:
        last = str(after) if after is not None else ""

        async def connect() -> AsyncGenerator[Event, None]:
            headers = _bearer(self.token) | ({"Last-Event-ID": last} if last else {})
            path = f"{_messages(application, chat)}/stream"
            try:
                async with httpx_sse.aconnect_sse(
                    self._http, "GET", path, headers=headers, timeout=_STREAM_QUIET_S
                ) as source:
                    if not source.response.is_success:
                        await source.response.aread()
                        _answer(_Call("GET", path, _nothing), source.response)
                    async for sent in source.aiter_sse():
                        event = _event(sent)
                        if event is not None:
                            yield event
            except httpx.TransportError as error:
                raise HubbubError(0, f"The stream broke off: {error!r}.") from error
            raise HubbubError(0, "The stream ended.")

        try:
            while True:
                async for attempt in AsyncRetrying(**_policy(again=True)):
                    with attempt:
                        async with aclosing(connect()) as heard:
                            async for event in heard:
                                last = event.id or last
                                attempt.retry_state.attempt_number = 1
                                yield event
        finally:
            self._listening.pop(me, None)
