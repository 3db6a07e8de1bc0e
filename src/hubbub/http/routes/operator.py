"""The data of the console's operator page, for operators only: figures, recent warnings, and dead letters."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from hubbub.chat.errors import Forbidden, NotFound
from hubbub.chat.operators import Operators
from hubbub.http import schemas
from hubbub.http.operator import Letters
from hubbub.http.overview import Overview
from hubbub.http.resolver import Resolver
from hubbub.http.routing import body_fields, json_response, route


class OperatorRoutes:
    def __init__(
        self,
        resolver: Resolver,
        operators: Operators,
        overview: Overview,
        letters: Letters,
    ) -> None:
        self._resolver = resolver
        self._operators = operators
        self._overview = overview
        self._letters = letters

    async def _must_be_operator(self, request: Request) -> None:
        if not await self._operators.has((await self._resolver.caller(request)).user):
            raise Forbidden("Only an operator may see this; `hubbub operators add EMAIL` makes one.")

    @route("GET", "/operator", response=schemas.OperatorState, roles=True)
    async def operator_state(self, request: Request) -> Response:
        """The figures of the service, or in a cluster of the process that answers, for operators."""
        await self._must_be_operator(request)
        return json_response(await self._overview.state())

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
