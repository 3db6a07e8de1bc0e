"""What clients did and were told, in the order they began it; one JSON line each in a file, to be checked again."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

Kind = Literal["post", "edit", "delete", "newest", "after", "one"]


class Operation(msgspec.Struct, omit_defaults=True):
    """One request of a client. Times are seconds on one clock. A client has one request under way at a time.

    ``status`` is the answer's, 0 when there was none: then, and with a 5xx, it may have been done or not, and where
    the client was ``late``, gave up waiting, it may yet be done. ``number`` is what was asked for or, of a post, what
    was told. ``seen`` has numbers and bodies, ascending. ``lag``: the answer said that it may lack what is queued.
    ``at`` is the process that was asked.
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
    """A chat when all was over: its messages in the database, ascending, those that are listed, and the count that it
    says it has.
    """

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
