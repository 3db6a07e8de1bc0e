"""The writes of one worker and their answers, to be compared with what the service has stored."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class ChatRecord:
    """One worker's writes to one chat. A text is known by its sequence, a number that is unique among the worker's
    sends and edits.

    Invariants: the sequence of a send is in ``unsure_sends`` until it is acknowledged, and from then on in ``texts``,
    which has nothing that was not acknowledged. A message with an edit or a delete that was not
    answered is in ``unsure_edits``, with every text that it may have, or in ``unsure_deletes``.
    """

    texts: dict[int, int] = field(default_factory=dict)  # by message number, the sequence acknowledged last
    unsure_sends: set[int] = field(default_factory=set)
    unsure_edits: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    deleted: set[int] = field(default_factory=set)
    unsure_deletes: set[int] = field(default_factory=set)
    repeated: int = 0  # numbers given twice, or not above the one before


class Ledger:
    """The records of one worker, which sends one request at a time. A write is unsure until it is acknowledged."""

    def __init__(self) -> None:
        self.chats: defaultdict[int, ChatRecord] = defaultdict(ChatRecord)  # by the chat's index in VirtualUser.chats
        # Where, the message's number (0: a send) and the sequence (0: a delete).
        self._under_way: tuple[ChatRecord, int, int] | None = None

    def send(self, chat: int, sequence: int) -> None:
        record = self.chats[chat]
        record.unsure_sends.add(sequence)
        self._under_way = (record, 0, sequence)

    def sent(self, number: int) -> None:
        if self._under_way is None:
            return
        record, _, sequence = self._under_way
        if number <= max(next(reversed(record.texts), 0), 0):
            record.repeated += 1
        record.unsure_sends.discard(sequence)
        record.texts[number] = sequence

    def edit(self, chat: int, number: int, sequence: int) -> None:
        record = self.chats[chat]
        record.unsure_edits[number].add(sequence)
        self._under_way = (record, number, sequence)

    def delete(self, chat: int, number: int) -> None:
        record = self.chats[chat]
        record.unsure_deletes.add(number)
        self._under_way = (record, number, 0)

    def answered(self) -> None:
        """The edit or delete under way was acknowledged."""
        if self._under_way is None:
            return
        record, number, sequence = self._under_way
        if sequence:
            # An earlier edit that got no answer stays possible: it may have been applied after this one.
            unsure = record.unsure_edits[number]
            unsure.discard(sequence)
            if not unsure:
                del record.unsure_edits[number]
            record.texts[number] = sequence
        else:
            record.unsure_deletes.discard(number)
            record.deleted.add(number)
