"""The service itself: whether it is alive and ready, its metrics, and its document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from hubbub.http import schemas
from hubbub.http.document import Document
from hubbub.http.openapi import document
from hubbub.http.overview import Overview
from hubbub.http.routing import Route, json_response, route, routes_of

_CAN_DO_WITHOUT = ("search",)  # a process in which only this fails should still get requests


class ServiceRoutes:
    """``ready`` returns for every part its name, and what is wrong with it or None. ``others`` are the routes of the
    API, for the document.
    """

    def __init__(
        self,
        ready: Callable[[], Awaitable[dict[str, str | None]]],
        overview: Overview,
        others: Sequence[Route],
    ) -> None:
        self._ready = ready
        self._overview = overview
        self._others = others

    @route("GET", "/healthz", response=schemas.Health, guarded=False)
    async def healthz(self, request: Request) -> Response:
        """Alive."""
        return json_response(schemas.Health("ok"))

    @route("GET", "/readyz", response=schemas.Health, guarded=False, fails=True)
    async def readyz(self, request: Request) -> Response:
        """Able to serve, part by part."""
        faults = await self._ready()
        parts = {
            name: schemas.Part("ok") if fault is None else schemas.Part("failing", fault)
            for name, fault in faults.items()
        }
        if all(fault is None for name, fault in faults.items() if name not in _CAN_DO_WITHOUT):
            return json_response(schemas.Health("ok", parts))
        answer = json_response(schemas.Health("failing", parts), 503)
        answer.headers["retry-after"] = "5"
        return answer

    @route("GET", "/metrics", guarded=False, refuses=(503,))
    async def metrics(self, request: Request) -> Response:
        """The service's metrics, in Prometheus' text format."""
        return Response(await self._overview.metrics(), media_type=CONTENT_TYPE_LATEST)

    @route("GET", "/openapi.json", response=dict[str, Any], guarded=False)
    async def openapi(self, request: Request) -> Response:
        """This document."""
        return self._document.answer(request)

    @cached_property
    def _document(self) -> Document:
        content = msgspec.json.encode(document([*self._others, *routes_of(self, base="")]))
        return Document(content, "application/json", {"cache-control": "no-cache"})
