"""What one worker was told, so that it can be held against what is stored afterwards."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class Kept:
    """Of one chat. Texts are known by their sequence, a number that each send and edit of a worker has to itself.

    Invariants: the sequence of a send is in ``unsure_sends`` until it is acknowledged, and from then on in ``texts``,
    which has nothing that was not acknowledged. A message that may have been changed without our being told is in
    ``unsure_edits`` with every text that it may have, or in ``unsure_deletes``.
    """

    texts: dict[int, int] = field(default_factory=dict)  # by message number, the sequence acknowledged last
    unsure_sends: set[int] = field(default_factory=set)
    unsure_edits: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    deleted: set[int] = field(default_factory=set)
    unsure_deletes: set[int] = field(default_factory=set)
    repeated: int = 0  # numbers given twice, or not above the one before


class Ledger:
    """One request at a time: it is unsure from when it is sent until it is answered as it should be."""

    def __init__(self) -> None:
        self.chats: defaultdict[int, Kept] = defaultdict(Kept)  # by the chat's place in the user
        # Where, the message's number (0: a send) and the sequence (0: a delete).
        self._under_way: tuple[Kept, int, int] | None = None

    def send(self, chat: int, sequence: int) -> None:
        kept = self.chats[chat]
        kept.unsure_sends.add(sequence)
        self._under_way = (kept, 0, sequence)

    def sent(self, number: int) -> None:
        if self._under_way is None:
            return
        kept, _, sequence = self._under_way
        if number <= max(next(reversed(kept.texts), 0), 0):
            kept.repeated += 1
        kept.unsure_sends.discard(sequence)
        kept.texts[number] = sequence

    def edit(self, chat: int, number: int, sequence: int) -> None:
        kept = self.chats[chat]
        kept.unsure_edits[number].add(sequence)
        self._under_way = (kept, number, sequence)

    def delete(self, chat: int, number: int) -> None:
        kept = self.chats[chat]
        kept.unsure_deletes.add(number)
        self._under_way = (kept, number, 0)

    def answered(self) -> None:
        """The edit or delete under way was acknowledged."""
        if self._under_way is None:
            return
        kept, number, sequence = self._under_way
        if sequence:
            # An earlier edit that got no answer stays possible: it may have been applied after this one.
            unsure = kept.unsure_edits[number]
            unsure.discard(sequence)
            if not unsure:
                del kept.unsure_edits[number]
            kept.texts[number] = sequence
        else:
            kept.unsure_deletes.discard(number)
            kept.deleted.add(number)
