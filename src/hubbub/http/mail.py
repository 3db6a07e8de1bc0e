"""Mail by SMTP."""

from __future__ import annotations

import asyncio
import logging
import smtplib
import ssl
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from typing import Any
from urllib.parse import unquote, urlsplit

from hubbub.chat.errors import ChatError, Unavailable
from hubbub.http.login_log import masked

log = logging.getLogger("hubbub.mail")

_MOST_WAITING = 200
_THREADS = 2
_ANSWER_S = 10.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Mail:
    """Sends mails after the requests that ask for them were answered, so that the time of an answer does not reveal
    whether a mail is sent. A mail that can't be sent is logged and not retried.

    ``url`` is smtp://USER:PASSWORD@HOST:PORT, where TLS begins with STARTTLS, or smtps:, where it begins at once. To
    this machine smtp: has none.
    """

    def __init__(self, url: str, sender: str) -> None:
        self._url = urlsplit(url)
        self._sender = sender
        self._threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="mail")
        self._under_way: set[asyncio.Task[None]] = set()

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Send a mail after the answer, by calling this. Raises Unavailable: too many mails wait."""
        if len(self._under_way) >= _MOST_WAITING:
            work.close()
            raise Unavailable("Too many mails wait to be sent. Try again a little later.", retry_after=30)
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, ChatError):
            log.error("A mail was not sent: %s", error.sentence)
        elif error is not None:
            log.error("A mail was not sent.", exc_info=error)

    async def send(self, to: str, subject: str, text: str) -> None:
        """Send the mail; a failure is logged, and not raised."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._send, to, subject, text)
        except (smtplib.SMTPException, OSError) as error:
            log.error("A mail to %s was not sent: %s", masked(to), _said(error))

    def _send(self, to: str, subject: str, text: str) -> None:
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = self._sender, to, subject
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        with self._connected() as server:
            if self._url.username:
                server.login(unquote(self._url.username), unquote(self._url.password or ""))
            server.send_message(message)

    def _connected(self) -> smtplib.SMTP:
        host = self._url.hostname or ""
        if self._url.scheme == "smtps":
            return smtplib.SMTP_SSL(
                host, self._url.port or 465, timeout=_ANSWER_S, context=ssl.create_default_context()
            )
        server = smtplib.SMTP(host, self._url.port or 587, timeout=_ANSWER_S)
        try:
            if host not in _LOOPBACK:
                self._begin_tls(server)
        except BaseException:
            server.close()
            raise
        return server

    def _begin_tls(self, server: smtplib.SMTP) -> None:
        server.ehlo()
        if server.has_extn("starttls"):
            server.starttls(context=ssl.create_default_context())
        elif self._url.username:
            raise smtplib.SMTPNotSupportedError("no STARTTLS, and a password must not be sent unencrypted")

    async def close(self) -> None:
        """Finish the mails under way; give up those whose server does not answer."""
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=_ANSWER_S)
            for task in late:
                task.cancel()
            if late:
                log.error("%d mails were not sent before the stop.", len(late))
        self._threads.shutdown(wait=False, cancel_futures=True)


def _said(error: Exception) -> str:
    """The error's text, without what a server may repeat of the mail."""
    if isinstance(error, smtplib.SMTPResponseException):
        return f"the server answered {error.smtp_code}."
    if isinstance(error, smtplib.SMTPNotSupportedError | OSError) and not isinstance(
        error, smtplib.SMTPRecipientsRefused
    ):
        return f"{error}."
    return f"{type(error).__name__}."
