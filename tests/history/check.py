"""Check that a history keeps the promises of section 2 of the contract.

    python -m tests.history.check FILE…

Each message has one sender, who waits for each answer. Another session of the same user may edit it at the same time,
so its versions have a partial order: one that was answered before another began comes before it. Of two that overlap,
either may be the last, until a read has shown one and then the other. No later read may show the first again. A version
is *known* once it was acknowledged. Before that, or if it never was, it may be there or not.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.history.record import Final, History, Operation

_NEVER = float("inf")


class Message:
    """A message as its sender knows it. ``versions`` are the operations that wrote it. ``shown`` has the end of the
    first read that showed each version, and ``followed`` the pairs of versions of which the second was shown after the
    first.
    """

    def __init__(self, post: Operation) -> None:
        self.number = post.number
        self.known_at = post.ended if post.done else _NEVER
        self.answered = False
        self.versions = [post]
        self.deletes: list[Operation] = []
        self.shown: dict[int, float] = {}
        self.followed: set[tuple[int, int]] = set()

    def version(self, body: str, before: float) -> int | None:
        """Return the latest version with this body that began before this time, or None."""
        found = [at for at, each in enumerate(self.versions) if each.body == body and each.begun < before]
        return found[-1] if found else None

    def _precedes(self, one: int, other: int) -> bool:
        if (one, other) in self.followed:
            return True
        earlier, later = self.versions[one], self.versions[other]
        if earlier.kind == "post" or later.kind == "post":
            return earlier.kind == "post" and later.kind != "post"
        return earlier.ended < later.begun and not earlier.late

    def replaced(self, version: int, at: float) -> bool:
        """Return whether a version that comes after this one was known, or had been shown, at this time."""
        known = [index for index, each in enumerate(self.versions) if each.done and each.ended < at]
        shown = [index for index, ended in self.shown.items() if ended < at]
        return any(self._precedes(version, other) for other in {*known, *shown} - {version})

    def show(self, version: int, begun: float, ended: float) -> None:
        self.followed |= {(other, version) for other, at in self.shown.items() if other != version and at < begun}
        self.shown.setdefault(version, ended)

    def must_be_there(self, begun: float, ended: float) -> bool:
        if any(delete.begun < ended for delete in self.deletes):
            return False
        return self.known_at < begun or any(shown < begun for shown in self.shown.values())

    def gone(self, at: float) -> bool:
        return any(delete.done and delete.ended < at for delete in self.deletes)


def faults(history: History) -> list[str]:
    """Return a sentence for each broken promise."""
    found: list[str] = []
    chats: dict[int, list[Operation]] = defaultdict(list)
    for operation in history.operations:
        chats[operation.chat].append(operation)
    for chat, operations in sorted(chats.items()):
        final = history.final[chat] if chat < len(history.final) else None
        found += [f"chat {chat}: {fault}" for fault in _Chat(operations, final).faults()]
    return found


class _Chat:
    def __init__(self, operations: list[Operation], final: Final | None) -> None:
        self.operations = sorted(operations, key=lambda each: each.begun)
        self.final = final
        self.by_body: dict[str, Message] = {}
        self.by_number: dict[int, Message] = {}

    def faults(self) -> Iterator[str]:
        yield from self._posts()
        yield from self._changes()
        yield from self._reads()
        if self.final is not None:
            yield from self._final(self.final)

    def _posts(self) -> Iterator[str]:
        order: dict[int, Message] = {}
        for post in self.operations:
            if post.kind != "post":
                continue
            if not post.done and not post.unknown:
                yield f"a post was answered {post.status}"
            message = self.by_body.setdefault(post.body, Message(post))
            if not post.done:
                continue
            if message.number not in (0, post.number):
                yield f"a retry got number {post.number}, the first try {message.number}"
            if message.answered:  # a retry of an acknowledged post
                continue
            message.answered = True
            message.number = post.number
            message.known_at = post.ended
            if self.by_number.setdefault(post.number, message) is not message:
                yield f"number {post.number} was given twice"
            last = order.get(post.client)
            if last is not None and last is not message and post.number <= last.number:
                yield f"sender {post.client} got {last.number} and then {post.number}"
            order[post.client] = message

    def _changes(self) -> Iterator[str]:
        for change in self.operations:
            if change.kind not in ("edit", "delete"):
                continue
            if change.kind == "edit" and change.status == 404 and self._deleted(change):
                continue
            if not change.done and not change.unknown:
                yield f"the {change.kind} of {change.number}, which was acknowledged, was answered {change.status}"
                continue
            message = self.by_number[change.number]
            (message.versions if change.kind == "edit" else message.deletes).append(change)

    def _deleted(self, edit: Operation) -> bool:
        """Return whether another session may have deleted the message before this edit ended."""
        return any(
            each.kind == "delete" and each.number == edit.number and each.begun < edit.ended for each in self.operations
        )

    def _reads(self) -> Iterator[str]:
        reads = [each for each in self.operations if each.kind in ("newest", "after", "one") and each.status != 0]
        for read in sorted(reads, key=lambda each: each.ended):
            if read.status >= 500:
                continue
            if read.status != 200 and not (read.kind == "one" and read.status == 404):
                yield f"a read was answered {read.status}"
                continue
            yield from self._shown(read)
            if not read.lag:
                yield from self._missing(read)

    def _shown(self, read: Operation) -> Iterator[str]:
        numbers = [number for number, _ in read.seen]
        if numbers != sorted(set(numbers)):
            yield f"a list is out of order or repeats a number: {numbers}"
        for number, body in read.seen:
            message = self.by_number.get(number) or self._unanswered(number, body)
            version = message.version(body, read.ended) if message is not None else None
            if message is None or version is None:
                yield f"number {number} shows a text that nobody wrote there"
                continue
            if read.lag:  # the stored text may be older than one that was shown
                continue
            if message.replaced(version, read.begun):
                yield f"number {number} went back to a text that was replaced before"
            if message.gone(read.begun):
                yield f"number {number} is shown after it was deleted"
            message.show(version, read.begun, read.ended)

    def _unanswered(self, number: int, body: str) -> Message | None:
        """Return the message of a post whose number was in no answer."""
        message = self.by_body.get(body)
        if message is None or message.number not in (0, number):
            return None
        message.number = number
        self.by_number[number] = message
        return message

    def _missing(self, read: Operation) -> Iterator[str]:
        numbers = {number for number, _ in read.seen}
        full = len(read.seen) >= read.limit
        low, high = 1.0, _NEVER
        if read.kind == "one":
            low = high = read.number
        elif read.kind == "newest" and full:
            low = min(numbers, default=1)
        elif read.kind == "after":
            low, high = read.number + 1, max(numbers) if full and numbers else _NEVER
        for number, message in self.by_number.items():
            if low <= number <= high and number not in numbers and message.must_be_there(read.begun, read.ended):
                yield f"number {number} is missing from a read that began after it was acknowledged or shown"

    def _final(self, final: Final) -> Iterator[str]:
        bodies = dict(final.messages)
        if len(bodies) != len(final.messages):
            yield "the stored list repeats a number"
        if final.listed != final.messages:
            differ = sorted({*final.listed} ^ {*final.messages})
            yield f"lists differ from what is stored: {differ[:10]}"
        if final.count != len(final.messages):
            yield f"the count is {final.count}, the messages are {len(final.messages)}"
        for number, body in final.messages:
            message = self.by_number.get(number) or self._unanswered(number, body)
            version = message.version(body, _NEVER) if message is not None else None
            if message is None or version is None:
                again = self.by_body.get(body)
                if again is not None and again.number in bodies:
                    yield f"one message is stored twice, as {again.number} and {number}"
                else:
                    yield f"stored number {number} has a text that nobody wrote there"
                continue
            if message.replaced(version, _NEVER):
                yield f"stored number {number} went back to a text that was replaced before"
            if message.gone(_NEVER):
                yield f"stored number {number} was deleted"
        for number, message in self.by_number.items():
            if number not in bodies and message.must_be_there(_NEVER, _NEVER):
                yield f"acknowledged number {number} is lost"
        every = [each for each in self.operations if each.kind == "post"]
        highest = max((each.number for each in every), default=0)
        gaps = highest - len({*bodies, *self.by_number} & set(range(1, highest + 1)))
        if gaps and not any(each.unknown for each in every):
            yield f"{gaps} numbers are missing though no write failed"


def main() -> None:
    broken = False
    for name in sys.argv[1:]:
        history = History.load(Path(name))
        found = faults(history)
        broken = broken or bool(found)
        print(f"{name}: seed {history.seed}, {len(history.operations)} operations, {len(found)} faults")
        print("\n".join(f"  {fault}" for fault in found[:50]))
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
