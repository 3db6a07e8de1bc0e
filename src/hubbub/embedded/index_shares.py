"""Shares out the work of the search index among users: one who posts more than it can take in delays no one else's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

MOST_CHARACTERS = 262_144  # of text in one step; 0.2 s of a core where every three characters are new
MOST_CHANGES = 2_500  # that are new and looked at in one step, and those of one more batch
_LEAST = 30  # characters that a message counts as, at the least


class Change(NamedTuple):
    """A message that was posted, edited or deleted. ``size`` is its characters; ``sender`` and ``size`` of one that is
    gone are 0, and nobody's. ``noted_at`` is in ms.
    """

    sender: int
    noted_at: int
    chat_id: int
    number: int
    size: int


def shared_out(changes: Iterable[Change], most: int = MOST_CHARACTERS) -> list[Change]:
    """What to take in first, of about ``most`` characters and one change at the least: all of who has little, and the
    same from each of the others, in the order that they are given in.
    """
    queues: dict[int, list[Change]] = {}
    for change in changes:
        queues.setdefault(change.sender, []).append(change)
    chosen: list[Change] = []
    left = most
    for place, queue in enumerate(sorted(queues.values(), key=lambda queue: sum(map(_cost, queue)))):
        share = left / (len(queues) - place)
        for change in queue:
            if share <= 0:
                break
            chosen.append(change)
            share -= _cost(change)
            left -= _cost(change)
    return chosen


def _cost(change: Change) -> int:
    return max(change.size, _LEAST)
