"""The pages that a browser shows, as they are sent: the console, the reference, and what links lead to. No build step,
no other host.

A static file's name carries a hash of its content, so that it may be kept for ever, also by a CDN; the pages are asked
for anew each time. The policy allows what comes from here and nothing inline: text can never become a script.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

_FILES = Path(__file__).parent / "static"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_PAGE = {"content-security-policy": _POLICY, "referrer-policy": "same-origin", "cache-control": "no-cache"}
_FILE = {"cache-control": "public, max-age=31536000, immutable"}
_REFERENCE = re.compile(r'(?<=")/static/([\w./-]+)(?=")')


def _hashed(name: str, content: bytes) -> str:
    stem, _, ending = name.rpartition(".")
    return f"{stem}.{hashlib.sha256(content).hexdigest()[:12]}.{ending}"


class File(NamedTuple):
    """``kind`` is its media type."""

    content: bytes
    kind: str
    headers: Mapping[str, str]


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

    def page(self, name: str) -> File:
        return File(self._pages[name], _TYPES[".html"], _PAGE)

    def file(self, name: str) -> File | None:
        """A file that pages refer to, by the name that they know it by; None where there is none."""
        content = self._served.get(name)
        return None if content is None else File(content, _TYPES[Path(name).suffix], _FILE)
