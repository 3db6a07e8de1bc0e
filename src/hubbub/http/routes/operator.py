"""The data of the console's operator page, for operators only: figures, recent warnings, and dead letters."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import psutil
from starlette.requests import Request
from starlette.responses import Response

from hubbub.chat.errors import Forbidden, NotFound
from hubbub.chat.operators import Operators
from hubbub.http import schemas
from hubbub.http.metrics import Reading
from hubbub.http.operator import Letters, RecentErrors
from hubbub.http.resolver import Resolver
from hubbub.http.routing import body_fields, json_response, route
from hubbub.measures import SECONDS, Histogram


class OperatorRoutes:
    def __init__(
        self,
        resolver: Resolver,
        operators: Operators,
        readings: Callable[[], Awaitable[list[Reading | Histogram]]],
        letters: Letters,
        errors: RecentErrors,
    ) -> None:
        self._resolver = resolver
        self._operators = operators
        self._readings = readings
        self._letters = letters
        self._errors = errors
        self._process = psutil.Process()

    async def _must_be_operator(self, request: Request) -> None:
        if not await self._operators.has((await self._resolver.caller(request)).user):
            raise Forbidden("Only an operator may see this; `hubbub operators add EMAIL` makes one.")

    @route("GET", "/operator", response=schemas.OperatorState, roles=True)
    async def operator_state(self, request: Request) -> Response:
        """The figures of the process that answers, with its parts, for operators."""
        await self._must_be_operator(request)
        figures: dict[str, float] = {}
        requests: list[schemas.Requests] = []
        for each in await self._readings():
            if isinstance(each, Reading):
                name = each.name + "_total" if each.counter else each.name
                figures[name] = figures.get(name, 0) + each.value
            elif each.labels == ("route", "status"):
                for (route_name, status), counts in list(each.series.items()):
                    requests.append(schemas.Requests(str(route_name), str(status), list(counts[:-1])))
        times = self._process.cpu_times()
        own = {"cpu_seconds_total": times.user + times.system, "resident_memory_bytes": self._process.memory_info().rss}
        for name, value in own.items():
            figures[f"process_{name}"] = value + figures.get(f"hubbub_part_{name}", 0)
        content = schemas.OperatorState(time.monotonic(), list(SECONDS), requests, figures, self._errors.lines())
        return json_response(content)

    @route("GET", "/operator/dead", response=list[schemas.Letter], roles=True)
    async def list_dead_letters(self, request: Request) -> Response:
        """The commands that could not be stored."""
        await self._must_be_operator(request)
        return json_response(await self._letters.shown())

    # It may be a 404, because the letter's number is in the body.
    @route("POST", "/operator/retry", request=schemas.LetterNumber, response=schemas.Done, roles=True, refuses=(404,))
    async def retry_dead_letter(self, request: Request) -> Response:
        """Send a dead letter through the queue again."""
        await self._must_be_operator(request)
        form = await body_fields(request, schemas.LetterNumber)
        if not await self._letters.retry(form.number):
            raise NotFound("There is no such dead letter; it may have been sent again since.")
        return json_response(schemas.Done("Sent through the queue again."))
