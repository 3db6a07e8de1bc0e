"""What the console's operator page shows, for operators alone: the figures, recent warnings, and the dead letters."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

import psutil
from starlette.requests import Request
from starlette.responses import Response

from hubbub.chat.errors import Forbidden, NotFound
from hubbub.chat.model import User
from hubbub.http import schemas
from hubbub.http.metrics import Reading
from hubbub.http.routing import Route, body_fields, json_response
from hubbub.http.sessions import Sessions
from hubbub.measures import SECONDS, Histogram

_KEPT = 50


class RecentErrors(logging.Handler):
    """The latest warnings and errors, one line each. They have no secrets and no message bodies: no log has."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._lines: deque[str] = deque(maxlen=_KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record).splitlines()[0])

    def lines(self) -> list[str]:
        """Newest first."""
        return list(self._lines)[::-1]


class Letters(Protocol):
    """The dead letters. Both raise Unavailable when they can't be reached."""

    async def shown(self) -> list[schemas.Letter]: ...
    async def retry(self, number: int) -> bool:
        """Whether there was one of this number."""


class NoLetters:
    """The embedded mode: a command that can't be stored is refused, so none is left over."""

    async def shown(self) -> list[schemas.Letter]:
        return []

    async def retry(self, number: int) -> bool:
        return False


class OperatorPage:
    def __init__(
        self,
        sessions: Sessions,
        is_operator: Callable[[User], bool],
        readings: Callable[[], Awaitable[list[Reading | Histogram]]],
        letters: Letters,
        errors: RecentErrors,
    ) -> None:
        self._sessions = sessions
        self._is_operator = is_operator
        self._readings = readings
        self._letters = letters
        self._errors = errors
        self._process = psutil.Process()

    async def _must_be_operator(self, request: Request) -> None:
        if not self._is_operator((await self._sessions.of_request(request)).user):
            raise Forbidden("Only an operator may see this; the setting `operators` names them.")

    async def state(self, request: Request) -> Response:
        await self._must_be_operator(request)
        figures: dict[str, float] = {}
        requests: list[schemas.Requests] = []
        for each in await self._readings():
            if isinstance(each, Reading):
                name = each.name + "_total" if each.counter else each.name
                figures[name] = figures.get(name, 0) + each.value
            elif each.labels == ("route", "status"):
                for (route, status), counts in list(each.series.items()):
                    requests.append(schemas.Requests(str(route), str(status), list(counts[:-1])))
        times = self._process.cpu_times()
        figures["process_cpu_seconds_total"] = times.user + times.system
        figures["process_resident_memory_bytes"] = self._process.memory_info().rss
        content = schemas.OperatorState(time.monotonic(), list(SECONDS), requests, figures, self._errors.lines())
        return json_response(content)

    async def dead(self, request: Request) -> Response:
        await self._must_be_operator(request)
        return json_response(await self._letters.shown())

    async def retry(self, request: Request) -> Response:
        await self._must_be_operator(request)
        form = await body_fields(request, schemas.LetterNumber)
        if not await self._letters.retry(form.number):
            raise NotFound("There is no such dead letter; it may have been sent again meanwhile.")
        return json_response(schemas.Done("Sent through the queue again."))

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/api/v1/operator",
                name="operatorState",
                summary="What an operator watches, of the process that answers",
                endpoint=self.state,
                response=schemas.OperatorState,
                errors=(401, 403, 429, 503),
            ),
            Route(
                method="GET",
                path="/api/v1/operator/dead",
                name="listDeadLetters",
                summary="The commands that could not be stored",
                endpoint=self.dead,
                response=list[schemas.Letter],
                errors=(401, 403, 429, 503),
            ),
            Route(
                method="POST",
                path="/api/v1/operator/retry",
                name="retryDeadLetter",
                summary="Send a dead letter through the queue again",
                endpoint=self.retry,
                request=schemas.LetterNumber,
                response=schemas.Done,
                errors=(400, 401, 403, 404, 413, 415, 422, 429, 503),
            ),
        ]
