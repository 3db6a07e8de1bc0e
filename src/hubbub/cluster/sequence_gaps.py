"""Gaps in the sequence of a publisher's deliveries: whether the shard stops. This is the second half of rule 1."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from hubbub.cluster.database import Database
from hubbub.cluster.protocol import Delivery, SequenceGap

log = logging.getLogger("hubbub.store")


class ShardStopped(Exception):
    """An acknowledged delivery is missing from the shard: it continues only when an operator accepts that."""

    def __init__(self, shard: int, publisher: str, expected: int) -> None:
        super().__init__(f"Shard {shard} lacks delivery {expected} of publisher {publisher}.")
        self.shard = shard
        self.publisher = publisher
        self.expected = expected


class StoppedShard(NamedTuple):
    """A stopped shard. ``found`` is the first delivery that came instead of the expected one."""

    shard: int
    publisher: str
    expected: int
    found: int


class SequenceGaps:
    """The table ``holes``: the gaps that were decided. Every method blocks, and raises Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def decide(self, gap: SequenceGap, held: Sequence[Delivery]) -> None:
        """Decide about a gap that stayed although the queue was read several times; ``held`` are the deliveries that
        arrived.

        If the ``confirmed`` of a later delivery covers the missing one, it was confirmed, so acknowledged commands are
        lost: the shard stops. If none covers it, neither its commands nor those behind it were acknowledged. A
        publisher without such marks sent nothing before it had an answer for the delivery before, so the missing one
        was never confirmed.
        """
        behind = [each for each in held if each.publisher == gap.publisher and each.sequence > gap.expected]
        if any(each.confirmed >= gap.expected for each in behind):
            state = "stopped"
        elif any(each.confirmed < 0 for each in behind):
            state = "accepted"
        else:
            state = "orphaned"
        self._database.run(
            lambda cursor: cursor.execute(
                "INSERT IGNORE INTO holes (shard, publisher, expected, found, state, at)"
                " VALUES (%s, %s, %s, %s, %s, UNIX_TIMESTAMP())",
                (gap.shard, gap.publisher, gap.expected, gap.found, state),
            )
        )
        log.critical("The gap in the deliveries is decided as %s: %s", state, gap)

    def stop(self, stopped: ShardStopped) -> None:
        """Record that the shard has stopped. This matters if a mark arrived after the gap was decided as orphaned:
        otherwise an operator would not see the gap, and could not let the shard continue."""
        self._database.run(
            lambda cursor: cursor.execute(
                "UPDATE holes SET state = 'stopped'"
                " WHERE shard = %s AND publisher = %s AND expected = %s AND state = 'orphaned'",
                (stopped.shard, stopped.publisher, stopped.expected),
            )
        )

    def stopped(self) -> list[StoppedShard]:
        def work(cursor: Any) -> list[StoppedShard]:
            cursor.execute("SELECT shard, publisher, expected, found FROM holes WHERE state = 'stopped' ORDER BY shard")
            return [StoppedShard(*row) for row in cursor.fetchall()]

        return self._database.run(work, commit=False)

    def accept(self) -> None:
        """Let every stopped shard continue without its missing deliveries."""
        self._database.run(lambda cursor: cursor.execute("UPDATE holes SET state = 'accepted' WHERE state = 'stopped'"))


def decided(cursor: Any, shard: int, delivery: Delivery, expected: int) -> str:
    """The decision about the gap before a delivery: "orphaned" or "accepted".

    Raises:
        SequenceGap: nothing is decided yet.
        ShardStopped: the shard waits for an operator.
    """
    cursor.execute(
        "SELECT state FROM holes WHERE shard = %s AND publisher = %s AND expected = %s FOR UPDATE",
        (shard, delivery.publisher, expected),
    )
    found = cursor.fetchone()
    if found is None:
        raise SequenceGap(shard, delivery.publisher, expected, delivery.sequence)
    state = str(found[0])
    if state == "orphaned" and delivery.confirmed >= expected:  # a later mark shows that it was confirmed after all
        state = "stopped"
    if state == "stopped":
        raise ShardStopped(shard, delivery.publisher, expected)
    return state
