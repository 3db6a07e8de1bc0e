"""The OpenAPI document."""

from __future__ import annotations

from typing import Any, cast

import pytest
from starlette.requests import Request

from hubbub.http.routes import service
from hubbub.http.routes.service import ServiceRoutes


async def test_the_document_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def document(routes: object) -> dict[str, Any]:
        made.append(routes)
        return {}

    monkeypatch.setattr(service, "document", document)
    routes = ServiceRoutes(cast(Any, None), cast(Any, None), [])
    for _ in range(3):
        assert (await routes.openapi(Request({"type": "http", "headers": []}))).body == b"{}"
    assert len(made) == 1
