"""An SMTP server for tests, which keeps the mails that it gets."""

from __future__ import annotations

import socketserver
import threading
from email import message_from_bytes, policy
from email.message import EmailMessage
from types import TracebackType
from typing import ClassVar


class _Session(socketserver.StreamRequestHandler):
    server: _Server

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def handle(self) -> None:
        self.say("220 ready")
        while line := self.rfile.readline().decode().strip():
            self.server.box.heard.append(line)
            word = line.partition(" ")[0].upper()
            if word == "QUIT":
                self.say("221 bye")
                return
            if word == "EHLO":
                self.wfile.write(b"250-tests\r\n250 AUTH PLAIN\r\n")
            elif word == "AUTH":
                self.say("235 welcome")
            elif word == "RCPT" and "refused" in line:
                self.say("550 nobody here")
            elif word == "DATA":
                self.say("354 go on")
                self._take()
                self.say("250 taken")
            else:
                self.say("250 well")

    def _take(self) -> None:
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            lines.append(line.removeprefix(b"."))
        message = message_from_bytes(b"".join(lines), policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.server.box.keep(message)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    box: Mailbox


class Mailbox:
    """The server. ``heard`` has the lines that clients sent. It refuses recipients whose address contains "refused"."""

    url: ClassVar[str] = "https://chat.example.com"

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Session)
        self._server.box = self
        self._mails: list[EmailMessage] = []
        self._came = threading.Condition()
        self.heard: list[str] = []

    def __enter__(self) -> Mailbox:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def settings(self) -> dict[str, str]:
        """Settings with which a service sends its mails here."""
        port = self._server.server_address[1]
        return {
            "HUBBUB_SMTP_URL": f"smtp://hubbub:pass%20word@127.0.0.1:{port}",
            "HUBBUB_MAIL_FROM": "Hubbub <chat@example.com>",
            "HUBBUB_PUBLIC_URL": self.url,
        }

    def keep(self, message: EmailMessage) -> None:
        with self._came:
            self._mails.append(message)
            self._came.notify_all()

    def to(self, email: str) -> list[EmailMessage]:
        return [mail for mail in self._mails if mail["To"] == email]

    def wait_for(self, email: str, count: int = 1) -> EmailMessage:
        """Wait until the address has this many mails, and return the mail with this number."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.to(email)) >= count, 30)
        return self.to(email)[count - 1]
