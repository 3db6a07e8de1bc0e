"""What clients did and the answers they got, in the order of the requests. A file has one JSON line for each."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

Kind = Literal["post", "edit", "delete", "newest", "after", "one"]


class Operation(msgspec.Struct, omit_defaults=True):
    """One request of a client. Times are seconds on one clock. A client has one request under way at a time.

    ``status`` is the answer's, or 0 if there was none. Then, and with a 5xx, it may have been done or not. If the
    client was ``late``, that is, gave up waiting, it may still be done. ``number`` is the requested number, or that in
    a post's answer. ``seen`` has numbers and bodies, ascending. ``lag`` is whether the answer said that it may lack
    queued writes. ``at`` is the process that was asked.
    """

    client: int
    kind: Kind
    chat: int
    begun: float
    ended: float = 0.0
    status: int = 0
    number: int = 0
    body: str = ""
    key: str = ""
    limit: int = 0
    seen: list[tuple[int, str]] = []
    lag: bool = False
    late: bool = False
    at: int = 0

    @property
    def done(self) -> bool:
        return self.status in (200, 204)

    @property
    def unknown(self) -> bool:
        return self.status == 0 or self.status >= 500


class Final(msgspec.Struct):
    """A chat at the end: its messages in the database, ascending, those in the list, and its count."""

    messages: list[tuple[int, str]]
    listed: list[tuple[int, str]]
    count: int


class History(msgspec.Struct):
    seed: int
    operations: list[Operation] = []
    final: list[Final] = []

    def save(self, path: Path) -> None:
        head = History(self.seed, [], self.final)
        lines = [msgspec.json.encode(each) for each in (head, *self.operations)]
        path.write_bytes(b"\n".join(lines))

    @classmethod
    def load(cls, path: Path) -> History:
        head, *lines = path.read_bytes().split(b"\n")
        history = msgspec.json.decode(head, type=cls)
        history.operations = [msgspec.json.decode(line, type=Operation) for line in lines]
        return history
