"""The answers that clients got, checked against section 2 of the contract."""

from __future__ import annotations

from typing import Any

from tests.model.api import REFUSED, UNKNOWN, Request

NEVER = 1 << 60


class Violation(Exception):
    """A broken promise. ``kind`` is a short name, the same in every schedule."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(f"{kind}: {what}")
        self.kind = kind


class Change:
    """An edit or a delete that a client asked for. ``ended`` is when there was an answer of any kind."""

    __slots__ = ("acked", "began", "ended", "request", "text")

    def __init__(self, request: Request, began: int, text: int) -> None:
        self.request = request
        self.began = began
        self.text = text
        self.ended = NEVER
        self.acked = NEVER


class Message:
    """A message that a client posted, and all that is known about it."""

    __slots__ = (
        "acked", "began", "chat", "claim", "deletes", "edits", "faulty", "gone", "number", "orders", "seen", "sender",
        "text", "told_before",
    )  # fmt: skip

    def __init__(self, chat: int, sender: int, text: int, claim: Any, began: int, told_before: int) -> None:
        self.chat = chat
        self.sender = sender
        self.text = text
        self.claim = claim
        self.began = began
        self.told_before = told_before
        self.number = 0
        self.acked = NEVER
        self.faulty = False
        self.edits: list[Change] = []
        self.deletes: list[Change] = []
        self.seen = NEVER  # when the first read that showed it had ended
        self.gone = NEVER  # when the first read ended that did not show it any more
        self.orders: list[
            tuple[int, int]
        ] = []  # when a read ended, and the order that it showed, if it was a new highest

    def __repr__(self) -> str:
        return f"message {self.chat}/{self.number or '?'} (text {self.text}, sender {self.sender})"

    def older(self, text: int, began: int) -> Change | None:
        """Return an edit that was acknowledged before ``began`` and must have replaced this text."""
        shown = self.edit_of(text)
        ended = -1 if shown is None else shown.ended
        for edit in self.edits:
            if edit.acked < began and edit is not shown and ended < edit.began:
                return edit
        return None

    def higher(self, text: int) -> Change | None:
        """Return an acknowledged edit of a higher order than this text's."""
        shown = self.edit_of(text)
        order = 0 if shown is None else shown.request.order
        for edit in self.edits:
            if edit.acked < NEVER and edit.request.order > order:
                return edit
        return None

    def edit_of(self, text: int) -> Change | None:
        for edit in self.edits:
            if edit.text == text:
                return edit
        return None


class Checker:
    """A checker that raises Violation as soon as an answer breaks the contract."""

    __slots__ = ("acks", "by_text", "highest", "messages", "reads", "told", "unacked", "world")

    def __init__(self, world: Any) -> None:
        self.world = world
        self.messages: list[Message] = []
        self.by_text: dict[int, Message] = {}
        self.told: dict[tuple[int, int], Message] = {}
        self.highest: dict[tuple[int, int], int] = {}  # the highest acknowledged number, by chat and sender
        self.acks = 0
        self.unacked = 0
        self.reads = 0

    # Writes ---------------------------------------------------------------------------------------------------

    def post_begins(self, chat: int, sender: int, claim: Any, *, faulty: bool) -> Message:
        now = self.world.now
        message = Message(chat, sender, self.world.unique(), claim, now, self.highest.get((chat, sender), 0))
        message.faulty = faulty
        self.messages.append(message)
        self.by_text[message.text] = message
        return message

    def post_ends(self, message: Message, request: Request) -> bool:
        """Check the answer to a post, and return whether it was acknowledged."""
        answer = request.answer
        if not isinstance(answer, int):
            self.unacked += 1
            if answer == REFUSED and request.used:
                raise Violation("a refused post used up a number", f"{message}, number {request.used}")
            return False
        place = message.chat, answer
        other = self.told.get(place)
        if other is not None and other is not message:
            raise Violation("a number was told twice", f"{answer} to {message}, before to {other}")
        if message.number and message.number != answer:
            raise Violation("two numbers for one key", f"{message}, now {answer}")
        self.told[place] = message
        sender = message.chat, message.sender
        if answer <= message.told_before:
            raise Violation("told numbers do not rise", f"{answer} after {message.told_before} to {message}")
        self.acks += 1
        if not message.number:
            message.number = answer
            message.acked = self.world.now
            self.highest[sender] = max(answer, self.highest.get(sender, 0))
        return True

    def change_begins(self, message: Message, request: Request) -> Change:
        change = Change(request, self.world.now, request.text)
        if request.kind == "delete":
            message.deletes.append(change)
        else:
            message.edits.append(change)
            self.by_text[request.text] = message
        return change

    def change_ends(self, change: Change, answer: Any, *, abandoned: bool = False) -> None:
        if not abandoned:
            change.ended = self.world.now
        if answer is True:
            change.acked = self.world.now
            self.acks += 1
        else:
            self.unacked += 1

    # Reads ----------------------------------------------------------------------------------------------------

    def read_ends(self, request: Request, began: int) -> None:
        answer = request.answer
        if answer == UNKNOWN or request.lag or not isinstance(answer, dict | int):
            return
        self.reads += 1
        now = self.world.now
        if isinstance(answer, int):
            answer = {request.number: answer} if answer else {}
            messages = [message for message in self.messages if message.number == request.number]
        else:
            messages = self.messages
        shown: dict[int, int] = {}
        for number, text in answer.items():
            message = self.by_text[text]
            if message.text in shown:
                raise Violation("a read shows a message twice", f"{message}")
            shown[message.text] = text
            if message.number and message.number != number:
                raise Violation("a read shows another number", f"{message} as {number}")
            other = self.told.get((request.chat, number))
            if other is not None and other is not message:
                raise Violation("a read shows another message", f"{message} as {number}, which is {other}")
        for message in messages:
            if message.chat == request.chat:
                self._read(message, shown.get(message.text, 0), began, now)

    def _read(self, message: Message, text: int, began: int, now: int) -> None:
        if not text:
            known = message.acked < began or message.seen < began
            if not known or message.faulty:
                return
            if not message.deletes:
                kind = "a read lacks an acknowledged message" if message.acked < began else "a message is gone again"
                raise Violation(kind, f"{message}")
            message.gone = min(message.gone, now)
            return
        if message.gone < began:
            raise Violation("a deleted message comes back", f"{message}, gone at {message.gone}")
        for delete in message.deletes:
            if delete.acked < began:
                raise Violation("a deleted message comes back", f"{message}, deleted at {delete.acked}")
        newer = message.older(text, began)
        if newer is not None:
            raise Violation("a read shows an old text", f"{text} of {message}, after {newer.text}")
        edit = message.edit_of(text)
        order = 0 if edit is None else edit.request.order
        for ended, seen in message.orders:
            if ended < began and seen > order:
                raise Violation("a read goes back to an old text", f"{text} (order {order}) of {message}, after {seen}")
        if not message.orders or message.orders[-1][1] < order:
            message.orders.append((now, order))
        message.seen = min(message.seen, now)

    # At the end -----------------------------------------------------------------------------------------------

    def ends(self, store: Any) -> None:
        """Check the store at the end, when all queues are drained and Redis is empty."""
        places: dict[int, int] = {}
        for chat, rows in enumerate(store.rows):
            for number, row in rows.items():
                message = self.by_text[row.first]
                if message.text in places:
                    raise Violation("a message is stored twice", f"{message}: {places[message.text]}, {number}")
                places[message.text] = number
                other = self.told.get((chat, number))
                if other is not None and other is not message:
                    raise Violation("a number is another message's", f"{chat}/{number} is {message}, told to {other}")
                if self.by_text[row.text] is not message:
                    raise Violation("a text is another message's", f"{message}: {row.text}")
                newer = message.older(row.text, NEVER) or message.higher(row.text)
                if newer is not None:
                    raise Violation("an acknowledged edit is lost", f"{message}: {row.text}, not {newer.text}")
        for message in self.messages:
            number = places.get(message.text)
            if any(delete.acked < NEVER for delete in message.deletes):
                if number is not None:
                    raise Violation("an acknowledged delete is lost", f"{message}")
            elif message.acked < NEVER and number is None and not message.deletes and not message.faulty:
                raise Violation("an acknowledged message is lost", f"{message}")
            if number is not None and message.number and number != message.number:
                raise Violation("a message is stored under another number", f"{message}: {number}")
