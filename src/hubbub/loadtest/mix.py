"""Which requests a run sends, in which shares, and how long its messages are."""

from __future__ import annotations

import random
import re
from math import gcd

import msgspec

SEND, EDIT, DELETE, CHATS, MESSAGES, HISTORY, MESSAGE, SEARCH = range(8)
ROUTES = ("send", "edit", "delete", "chats", "messages", "history", "message", "search")
WRITES = (SEND, EDIT, DELETE)
READS = (CHATS, MESSAGES, HISTORY, MESSAGE, SEARCH)
_LONGEST_PATTERN = 10_000
LONGEST_BODY = 10_000


class BadMix(ValueError):
    """The text is not a mix; the message says how to write one."""


class BadSize(ValueError):
    """The text is not a distribution of message sizes; the message says how to write one."""


DEFAULT_MIX = {"send": 1, "chats": 1, "messages": 1}
# What people do for each 1,000 messages that they send, by Mattermost's load test, as far as the API has it: they
# switch to another chat 6,500 times (the list of chats, and the newest messages of one) and scroll back 2,000 times.
MATTERMOST = {
    "send": 1000,
    "edit": 40,
    "delete": 5,
    "chats": 6500,
    "messages": 6500,
    "history": 2000,
    "search": 30,
}


def parse_mix(text: str) -> dict[str, int]:
    """``send=9,edit=1,messages=3,search=1``: weights among the writes, and among the reads. Or ``mattermost``.

    Raises:
        BadMix
    """
    if text.strip() == "mattermost":
        return MATTERMOST
    mix: dict[str, int] = {}
    for part in text.split(","):
        name, equals, weight = part.strip().partition("=")
        if name not in ROUTES or not equals or not weight.isdigit():
            raise BadMix(
                f"{part.strip()!r}: write ROUTE=WEIGHT, with a whole number, for {', '.join(ROUTES)}; or mattermost"
            )
        mix[name] = int(weight)
    for kind in (WRITES, READS):
        if weight_of(mix, kind) > _LONGEST_PATTERN:
            raise BadMix(f"the weights of writes, and those of reads, may sum to {_LONGEST_PATTERN} at most")
    return mix


def pattern(mix: dict[str, int], kind: tuple[int, ...]) -> list[int]:
    """The routes of one kind in turn, each as often as its weight, spread evenly (smooth weighted round robin)."""
    weights = {route: weight for route in kind if (weight := mix.get(ROUTES[route], 0))}
    divisor = gcd(*weights.values())
    total = sum(weights.values())
    credit = dict.fromkeys(weights, 0)
    turns = []
    for _ in range(total // divisor if divisor else 0):
        for route, weight in weights.items():
            credit[route] += weight
        chosen = max(credit, key=credit.__getitem__)
        credit[chosen] -= total
        turns.append(chosen)
    return turns


def weight_of(mix: dict[str, int], kind: tuple[int, ...]) -> int:
    """The sum of the weights of the routes of one kind."""
    return sum(mix.get(ROUTES[route], 0) for route in kind)


class Size(msgspec.Struct, frozen=True):
    """Characters in a message: uniform between two bounds, or log-normal with a median and a sigma."""

    low: int
    high: int
    sigma: float = 0.0

    def draw(self, rng: random.Random) -> int:
        if self.sigma:
            return min(max(round(self.low * rng.lognormvariate(0, self.sigma)), 1), LONGEST_BODY)
        return rng.randint(self.low, self.high)


def parse_size(text: str) -> Size:
    """``76``, ``20-400`` (uniform) or ``lognormal:MEDIAN:SIGMA``.

    Raises:
        BadSize
    """
    even = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text)
    skew = re.fullmatch(r"lognormal:(\d{1,5}):(\d(?:\.\d+)?)", text)
    if even:
        size = Size(int(even[1]), int(even[2] or even[1]))
    elif skew:
        size = Size(int(skew[1]), int(skew[1]), float(skew[2]))
    else:
        raise BadSize("write 76, 20-400 or lognormal:MEDIAN:SIGMA, in characters")
    if not 1 <= size.low <= size.high <= LONGEST_BODY:
        raise BadSize(f"a message has 1 to {LONGEST_BODY} characters")
    return size
