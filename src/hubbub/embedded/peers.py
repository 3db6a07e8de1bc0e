"""What processes that serve ask each other: each beside the first has a socket to it.

One has forked the other, so what they send is pickled. Nobody waits for ever: a question is refused when the other
process is too slow to answer it, or when one of the two stops. A process that ends without a word ends this one too.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import pickle
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from hubbub.chat.errors import ChatError, Unavailable
from hubbub.embedded.child import Channel
from hubbub.http import eager

log = logging.getLogger("hubbub")

Handlers: TypeAlias = Mapping[str, Callable[..., Awaitable[Any]]]

_LIMIT_S = 5.0
_MOST_UNANSWERED = 10_000  # questions: some megabytes, which wait in memory for a process that takes nothing
_STOPPING = "The service is shutting down."
_SILENT = "Another process of the service does not answer. Try again in a moment."
_FAILED = "Another process of the service failed. If it happens again, the service's log says why."


class _Question(NamedTuple):
    id: int
    name: str
    args: tuple[Any, ...]


class _Answer(NamedTuple):
    id: int
    result: Any
    refusal: ChatError | None = None


class _Leaving(NamedTuple):
    """The process asks and answers nothing any more, and its end of the socket will be closed."""


class Peer:
    """The process ``name`` as another one sees it, on the event loop: it is asked, and it asks."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._handlers: Handlers = {}
        self._channel = Channel(name, self._take)
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._unanswered = 0  # also those that nobody waits for any more
        self._answering: set[asyncio.Task[None]] = set()
        self._closing = False

    async def connect(self, channel: socket.socket, handlers: Handlers) -> None:
        """Use this end of the socket, and answer each question with the handler of its name."""
        self._handlers = handlers
        await self._channel.connect(channel)

    async def ask(self, name: str, *args: Any) -> Any:
        """The result of the other process's handler of this name.

        Raises:
            ChatError: the handler raised it.
            Unavailable: the handler failed, there is no answer within some seconds, or the service stops. The handler
                may have run.
        """
        if self._closing:
            raise Unavailable(_STOPPING)
        if self._unanswered >= _MOST_UNANSWERED:
            raise Unavailable(_SILENT)
        question = _Question(next(self._ids), name, args)
        self._channel.send(pickle.dumps(question))
        self._unanswered += 1
        answer = self._asked[question.id] = self._loop.create_future()
        # Not asyncio.timeout, which needs a task: see http.eager.
        late = self._loop.call_later(_LIMIT_S, _refuse, answer, _SILENT)
        try:
            return await answer
        finally:
            late.cancel()
            del self._asked[question.id]

    async def close(self) -> None:
        """Refuse all questions, and wait until the other process has closed its end."""
        if not self._closing:
            self._channel.send(pickle.dumps(_Leaving()))
            self._end()
        await self._channel.close()
        await asyncio.gather(*self._answering, return_exceptions=True)

    def _end(self) -> None:
        self._closing = True
        for answer in self._asked.values():
            _refuse(answer, _STOPPING)
        for task in self._answering:
            task.cancel()

    def _take(self, content: bytes) -> None:
        message: _Question | _Answer | _Leaving = pickle.loads(content)  # noqa: S301 - of a process of our own
        if self._closing:
            return
        if isinstance(message, _Question):
            task = self._loop.create_task(self._answer(message))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        elif isinstance(message, _Answer):
            self._answered(message)
        else:
            self._end()
            # At once and not in a task: the end of the other's bytes, which may be here already, is expected from now.
            eager.run(self._channel.close(), lambda _: None)

    async def _answer(self, question: _Question) -> None:
        try:
            result = await self._handlers[question.name](*question.args)
            answer = pickle.dumps(_Answer(question.id, result))
        except ChatError as refusal:
            answer = pickle.dumps(_Answer(question.id, None, refusal))
        except Exception:
            log.exception("The process %s asked for %s, and that failed.", self._name, question.name)
            answer = pickle.dumps(_Answer(question.id, None, Unavailable(_FAILED, retry_after=5)))
        if not self._closing:
            self._channel.send(answer)

    def _answered(self, answer: _Answer) -> None:
        self._unanswered -= 1
        asked = self._asked.get(answer.id)  # None when nobody waits for it any more
        if asked is None or asked.done():
            return
        if answer.refusal is not None:
            asked.set_exception(answer.refusal)
        else:
            asked.set_result(answer.result)


def _refuse(answer: asyncio.Future[Any], why: str) -> None:
    if not answer.done():
        answer.set_exception(Unavailable(why))
