"""Commands in the queue."""

from __future__ import annotations

from typing import Any


class Command:
    """A post, an edit, a delete, the marker that opens a chat, or a barrier. No store accepts a ``faulty`` one."""

    __slots__ = (
        "candidate",
        "chat",
        "claim",
        "epoch",
        "faulty",
        "generation",
        "kind",
        "name",
        "number",
        "order",
        "text",
    )

    def __init__(
        self,
        kind: str,
        chat: int,
        number: int = 0,
        text: int = 0,
        *,
        epoch: int = 0,
        order: int = 0,
        claim: Any = None,
        candidate: int = 0,
        generation: int = 0,
        name: int = 0,
        faulty: bool = False,
    ) -> None:
        self.kind = kind
        self.chat = chat
        self.number = number
        self.text = text
        self.epoch = epoch
        self.order = order
        self.claim = claim
        self.candidate = candidate
        self.generation = generation
        self.name = name
        self.faulty = faulty

    def __repr__(self) -> str:
        if self.kind in ("open", "barrier"):
            return f"{self.kind}(chat {self.chat}, {self.candidate})"
        return f"{self.kind}({self.chat}/{self.number}, text {self.text}, epoch {self.epoch}, order {self.order})"
