"""Divides the search index's work among users: a user who posts faster than it can index delays no other user."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

MOST_CHARACTERS = 262_144  # of text in one step; 0.2 s of a core where every three characters are new
MOST_CHANGES = 2_500  # new changes that one step reads; the last batch may exceed it
_LEAST = 30  # the fewest characters that a message counts as


class Change(NamedTuple):
    """A message that was posted, edited or deleted. ``size`` is its number of characters. For a deleted message,
    ``sender`` (which is no user's id then) and ``size`` are 0. ``noted_at`` is in ms.
    """

    sender: int
    noted_at: int
    chat_id: int
    number: int
    size: int


def shared_out(changes: Iterable[Change], most: int = MOST_CHARACTERS) -> list[Change]:
    """Choose the changes to index first: at least one change, about ``most`` characters in all. Users with few get all
    of theirs indexed, the others equal shares, in the given order.
    """
    changes = list(changes)
    if sum(cost(each.size) for each in changes) <= most:
        return changes
    queues: dict[int, list[Change]] = {}
    for change in changes:
        queues.setdefault(change.sender, []).append(change)
    chosen: list[Change] = []
    left = most
    for place, queue in enumerate(sorted(queues.values(), key=lambda queue: sum(cost(each.size) for each in queue))):
        share = left / (len(queues) - place)
        for change in queue:
            if share <= 0:
                break
            chosen.append(change)
            share -= cost(change.size)
            left -= cost(change.size)
    return chosen


def cost(size: int) -> int:
    """What a message of so many characters counts as."""
    return max(size, _LEAST)
