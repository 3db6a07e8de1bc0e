"""The pages that a browser shows: the console at ``/``, and the reference at ``/docs``. No build step, no other host.

A static file's name carries a hash of its content, so that it may be kept for ever, also by a CDN; the pages are asked
for anew each time. The policy allows what comes from here and nothing inline: text can never become a script.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from hubbub.http.problems import problem
from hubbub.http.routing import Route, response

_FILES = Path(__file__).parent / "static"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_REFERENCE = re.compile(r'(?<=")/static/([\w./-]+)(?=")')


def _hashed(name: str, content: bytes) -> str:
    stem, _, ending = name.rpartition(".")
    return f"{stem}.{hashlib.sha256(content).hexdigest()[:12]}.{ending}"


class Console:
    """Reads its files once. ``_names`` says under which name each is served; ``_served`` has them by that name."""

    def __init__(self) -> None:
        files = {path.relative_to(_FILES).as_posix(): path.read_bytes() for path in _FILES.rglob("*") if path.is_file()}
        assets = [name for name in files if name.endswith((".js", ".css"))]
        self._names = {name: _hashed(name, files[name]) for name in assets}
        self._served = {self._names[name]: files[name] for name in assets}
        self._pages = {name: self._page(content) for name, content in files.items() if name.endswith(".html")}

    def _page(self, content: bytes) -> bytes:
        return _REFERENCE.sub(lambda found: f"/static/{self._names[found[1]]}", content.decode()).encode()

    def _html(self, name: str) -> Response:
        headers = {"content-security-policy": _POLICY, "referrer-policy": "same-origin", "cache-control": "no-cache"}
        return Response(self._pages[name], media_type="text/html", headers=headers)

    async def index(self, request: Request) -> Response:
        return self._html("index.html")

    async def docs(self, request: Request) -> Response:
        return self._html("docs.html")

    async def file(self, request: Request) -> Response:
        name = request.path_params["name"]
        content = self._served.get(name)
        if content is None:
            return response(problem(404, "There is no such file; reload the page."))
        headers = {"cache-control": "public, max-age=31536000, immutable"}
        return Response(content, media_type=_TYPES[Path(name).suffix], headers=headers)

    def routes(self) -> list[Route]:
        """Pages are no part of the API's document."""
        return [
            Route(method="GET", path=path, name=name, summary="", endpoint=endpoint, guarded=False)
            for path, name, endpoint in (
                ("/", "console", self.index),
                ("/docs", "docs", self.docs),
                ("/static/{name:path}", "static", self.file),
            )
        ]
