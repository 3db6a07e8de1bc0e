"""A fake service with what the load test needs, which shows what the load test creates and leaves."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class SmallService:
    """A fake service. ``accounts`` has passwords by email, ``applications`` the owner's email and the name by token.
    ``refuse`` has the status of requests to refuse, by method and end of the path, as ``POST /chats``. The answer to a
    request in ``lost`` is not sent. A registration takes ``register_wait_s``, as hashing a password does.
    """

    def __init__(self) -> None:
        self.accounts: dict[str, str] = {}
        self.passwords: set[str] = set()  # of all accounts that were ever registered
        self.applications: dict[str, str] = {}
        self.messages = 0
        self.refuse: dict[str, int] = {}
        self.lost: set[str] = set()
        self.register_wait_s = 0.0
        self.metrics: tuple[int, bytes] = (404, b"")
        self.metrics_wait_s = 0.0
        self.url = ""
        self.lock = threading.Lock()

    def answer(self, method: str, path: str, user: str | None, body: Any) -> tuple[int, Any, str | None]:
        """Return the status, the content, and the user to set a cookie for."""
        for what, status in self.refuse.items():
            refused, end = what.split()
            if method == refused and path.endswith(end):
                return status, {"error": "refused"}, None
        if path == "/auth/register":
            if body["email"] in self.accounts:
                return 422, {"error": "The email is taken."}, None
            self.accounts[body["email"]] = body["password"]
            self.passwords.add(body["password"])
            return 201, {"message": "Account created."}, body["email"]
        if path == "/auth/login":
            right = self.accounts.get(body["email"]) == body["password"]
            return (200, {"message": "Hello."}, body["email"]) if right else (401, {"error": "Wrong."}, None)
        if user not in self.accounts:
            return 401, {"error": "Who?"}, None
        if (method, path) == ("DELETE", "/auth/me"):
            if self.accounts[user] != body["currentPassword"]:
                return 403, {"error": "Wrong."}, None
            del self.accounts[user]
            return 204, None, None
        return (*self._of_applications(method, path, user, body), None)

    def _of_applications(self, method: str, path: str, user: str, body: Any) -> tuple[int, Any]:
        if path == "/applications":
            if method == "POST":
                token = f"token{time.monotonic_ns()}"
                self.applications[token] = f"{user} {body['name']}"
                return 201, {"token": token}
            own = [(token, each) for token, each in self.applications.items() if each.startswith(f"{user} ")]
            return 200, [{"token": token, "name": each.split(" ", 1)[1]} for token, each in own]
        token = path.split("/")[2]
        if method == "DELETE":
            return (204, None) if self.applications.pop(token, None) else (404, {"error": "?"})
        if path.endswith("/members"):
            return 201, {}
        if path.endswith("/chats"):
            return (201, {"chatNumber": 1}) if method == "POST" else (200, [{"chatNumber": 1}])
        if path.endswith("/messages"):
            if method == "POST":
                self.messages += 1
                return 200, {"messageNumber": self.messages}
            return 200, [{"messageNumber": self.messages + 1}]
        return 404, {"error": "?"}


def _handler(service: SmallService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == "/metrics":
                time.sleep(service.metrics_wait_s)
                self._send(*service.metrics, None)
                return
            path = self.path.split("?")[0].removeprefix("/api/v1")
            if path == "/auth/register":
                time.sleep(service.register_wait_s)
            cookie = re.search(r"auth_token=([^;]+)", self.headers.get("Cookie") or "")
            with service.lock:
                status, content, user = service.answer(
                    self.command, path, cookie[1] if cookie else None, json.loads(body) if body else None
                )
                if f"{self.command} {path}" in service.lost:
                    service.lost.clear()
                    self.close_connection = True
                    return
            self._send(status, b"" if content is None else json.dumps(content, separators=(",", ":")).encode(), user)

        def _send(self, status: int, body: bytes, user: str | None) -> None:
            self.send_response(status)
            if user is not None:
                self.send_header("Set-Cookie", f"auth_token={user}; HttpOnly")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - the library's names

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def small_service() -> Iterator[SmallService]:
    service = SmallService()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(service))
    server.daemon_threads = True
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
