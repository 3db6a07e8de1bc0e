"""Documents that are the same for all clients until the process ends."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response


class Document:
    """A document that is made once and sent many times. A client that has it already gets a 304 (RFC 9110, section
    13.1.2)."""

    def __init__(self, content: bytes, kind: str, headers: Mapping[str, str]) -> None:
        self._content = content
        self._kind = kind
        self._etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        self._headers = {**headers, "etag": self._etag}

    def answer(self, request: Request) -> Response:
        given = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if self._etag in given or given == ["*"]:
            return Response(status_code=304, headers=self._headers)
        return Response(self._content, media_type=self._kind, headers=self._headers)
