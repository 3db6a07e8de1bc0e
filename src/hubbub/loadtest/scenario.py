"""The requests of one worker, and whether each answer is the expected one."""

from __future__ import annotations

import random
import re
from bisect import bisect
from collections import deque
from itertools import accumulate
from urllib.parse import quote, urlsplit

import msgspec

from hubbub.loadtest.http_protocol import request
from hubbub.loadtest.ledger import Ledger
from hubbub.loadtest.mix import (
    CHATS,
    DELETE,
    EDIT,
    HISTORY,
    MESSAGE,
    MESSAGES,
    READS,
    SEARCH,
    SEND,
    WRITES,
    Size,
    pattern,
)

_BODIES = 512
_REMEMBERED = 64
_NUMBER = re.compile(rb'\{"messageNumber": ?(\d+)')
_NEWEST = re.compile(rb'\[(?:\{"messageNumber": ?(\d+)|\])')
_SYLLABLES = (
    "ba",
    "ce",
    "di",
    "fo",
    "gu",
    "ha",
    "ke",
    "li",
    "mo",
    "nu",
    "pa",
    "re",
    "si",
    "to",
    "vu",
    "wa",
    "yo",
    "ze",
)


class VirtualUser(msgspec.Struct, frozen=True):
    """A user with a cookie, and the chats of its application that it writes to and reads."""

    cookie: str
    token: str
    chats: tuple[int, ...]


class Workload(msgspec.Struct, frozen=True):
    """The kinds of requests and messages. Chats are chosen by Zipf's law: the k-th in proportion to k to the power of
    -``zipf``."""

    mix: dict[str, int]
    size: Size
    zipf: float
    seed: int
    run: str  # marks this run's messages, where they are read back afterwards
    note: int  # every so many'th send of a worker is noted, to be read back afterwards; 0: none


class Texts:
    """What all workers share: the messages' texts, made once from the seed, and in which order routes take turns.
    ``words`` are what the texts are made of.
    """

    def __init__(self, workload: Workload) -> None:
        rng = random.Random(workload.seed)  # noqa: S311 - a run that can be repeated, not a secret
        self.words = ["".join(rng.choices(_SYLLABLES, k=rng.randint(1, 4))) for _ in range(400)]
        self.texts = [self._text(rng, workload.size.draw(rng)) for _ in range(_BODIES)]
        # From "Content-Length" on, ready to follow the part of the head that names the chat.
        self.sends = [_tail(text) for text in self.texts]
        self.writes = pattern(workload.mix, WRITES)
        self.reads = pattern(workload.mix, READS)

    def _text(self, rng: random.Random, length: int) -> str:
        text = ""
        while len(text) < length:
            text += rng.choice(self.words) + " "
        return text[:length].rstrip().ljust(length, ".")


def _tail(text: str, number: int | None = None) -> bytes:
    edited = f'"messageNumber":{number},' if number is not None else ""
    body = f'{{{edited}"body":"{text}"}}'  # the texts have nothing that JSON escapes
    return f"{len(body)}\r\n\r\n{body}".encode()


class _Chat:
    """A chat at a ``place`` of VirtualUser.chats: its path, the request for its list, and the heads of a send and of an
    edit up to their length, which is the last line of a head with a body. ``newest`` is the highest number that this
    worker was given.
    """

    __slots__ = ("edit", "list", "newest", "path", "place", "send")

    def __init__(self, scenario: Scenario, place: int, number: int) -> None:
        self.place = place
        self.newest = 0
        self.path = f"/chats/{number}/messages"
        self.list = scenario.request("GET", self.path)
        self.send, self.edit = (
            scenario.request(method, self.path, b"").removesuffix(b"0\r\n\r\n") for method in ("POST", "PUT")
        )


class Scenario:
    """The requests of worker number ``worker``; the same seed gives the same ones, as far as answers allow.

    ``route`` is that of the request made last, which ``wrong`` judges. An edit, a delete or a read of one message takes
    one of the last messages that this worker sent; while there is none it sends one, or reads the newest, instead.

    Thousands of workers take turns, so a request finds little of its worker's data in the processor's caches: what each
    request needs is in few objects.
    """

    __slots__ = (
        "_application",
        "_chat",
        "_chats",
        "_deletes",
        "_first",
        "_host",
        "_list_chats",
        "_note",
        "_noted",
        "_read_turn",
        "_recalls",
        "_remembered",
        "_rng",
        "_sends",
        "_sequence",
        "_several",
        "_target",
        "_texts",
        "_weights",
        "_workload",
        "_write_turn",
        "ledger",
        "route",
        "user",
        "worker",
    )

    def __init__(self, url: str, user: VirtualUser, workload: Workload, texts: Texts, worker: int) -> None:
        self.user = user
        self.worker = worker
        self.route = SEND
        self.ledger = Ledger() if workload.note else None
        self._workload = workload
        self._rng = random.Random(f"{workload.seed}:{worker}")  # noqa: S311 - as above
        self._texts = texts
        self._write_turn = self._rng.randrange(len(texts.writes)) if texts.writes else 0
        self._read_turn = self._rng.randrange(len(texts.reads)) if texts.reads else 0
        self._weights = list(accumulate((rank + 1) ** -workload.zipf for rank in range(len(user.chats))))
        self._remembered: deque[tuple[_Chat, int]] = deque(maxlen=_REMEMBERED)  # a message's chat and number
        self._target = 0
        self._sequence = 0
        self._note = workload.note
        self._noted = True  # whether the send under way is; if not, it has no mark, and is neither edited nor deleted
        self._sends = 0
        self._first = self._rng.randrange(_BODIES)  # the text of the first send; the others follow
        self._deletes = DELETE in texts.writes
        self._recalls = not {EDIT, DELETE, MESSAGE}.isdisjoint((*texts.writes, *texts.reads))
        parts = urlsplit(url)
        self._host = parts.netloc
        self._application = f"{parts.path.rstrip('/')}/api/v1/applications/{user.token}"
        self._list_chats = self.request("GET", "/chats")
        self._chats = [_Chat(self, place, number) for place, number in enumerate(user.chats)]
        self._chat = self._chats[0]
        self._several = len(self._chats) > 1

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        return request(method, self._host, self._application + path, cookie=self.user.cookie, body=body)

    def _choose_chat(self) -> _Chat:
        self._chat = chat = self._chats[bisect(self._weights, self._rng.random() * self._weights[-1])]
        return chat

    def write(self) -> bytes:
        routes, turn = self._texts.writes, self._write_turn
        self._write_turn = (turn + 1) % len(routes)
        self.route = route = routes[turn]
        if route != SEND and self._remembered:
            if route == DELETE:
                self._chat, self._target = self._remembered.popleft()
                if self.ledger is not None:
                    self.ledger.delete(self._chat.place, self._target)
                return self.request("DELETE", f"{self._chat.path}/{self._target}")
            self._chat, self._target = self._rng.choice(self._remembered)
            return self._chat.edit + _tail(self._text(edits=True), self._target)
        self.route = SEND
        chat = self._choose_chat() if self._several else self._chat
        sends = self._sends
        self._sends = sends + 1
        if self._note:
            self._noted = sends % self._note == 0
            if self._noted:
                return chat.send + _tail(self._text(edits=False))
        return chat.send + self._texts.sends[(sends + self._first) % _BODIES]

    def _text(self, *, edits: bool) -> str:
        text = self._rng.choice(self._texts.texts)
        if self.ledger is None:
            return text
        self._sequence += 1
        if edits:
            self.ledger.edit(self._chat.place, self._target, self._sequence)
        else:
            self.ledger.send(self._chat.place, self._sequence)
        mark = f"{self._workload.run}.{self.worker}.{self._sequence} "
        return mark + text[len(mark) :]

    def read(self) -> bytes:
        routes, turn = self._texts.reads, self._read_turn
        self._read_turn = (turn + 1) % len(routes)
        self.route = route = routes[turn]
        if route == CHATS:
            return self._list_chats
        if route == MESSAGE:
            if self._remembered:
                self._chat, self._target = self._rng.choice(self._remembered)
                return self.request("GET", f"{self._chat.path}/{self._target}")
            self.route = route = MESSAGES
        chat = self._choose_chat() if self._several else self._chat
        if route == MESSAGES:
            return chat.list
        if route == HISTORY:
            before = self._rng.randint(1, chat.newest + 1)
            return self.request("GET", f"{chat.path}?before={before}")
        words = " ".join(self._rng.choices(self._texts.words, k=self._rng.randint(1, 2)))
        return self.request("GET", f"{chat.path}/search?q={quote(words)}")

    def wrong(self, status: int, data: bytes, start: int = 0) -> str | None:
        """Why the answer, whose body is ``data`` from ``start`` on, is wrong; None when it is right. Records what it
        acknowledges."""
        route = self.route
        if status != 200 and not (route == DELETE and status == 204):
            return f"status {status}"
        if route == CHATS:
            return None if data.startswith(b'[{"chatNumber":', start) else "another body than was asked for"
        if route == SEND:
            found = _NUMBER.match(data, start)
            if found is None:
                return "another body than was asked for"
            number = int(found[1])
            if self.ledger is not None and self._noted:
                self.ledger.sent(number)
            chat = self._chat
            if number <= chat.newest:
                return "a number that is not above the one before"
            chat.newest = number
            if self._recalls and self._noted:
                self._remembered.append((chat, number))
            return None
        if route == MESSAGES:
            found = _NEWEST.match(data, start)
            if found is None:
                return "another body than was asked for"
            if not self._deletes and int(found[1] or 0) < self._chat.newest:
                return "a list without an acknowledged message"
            return None
        if route == MESSAGE:
            found = _NUMBER.match(data, start)
            return None if found and int(found[1]) == self._target else "another body than was asked for"
        if route in (HISTORY, SEARCH):
            listed = data.startswith(b"[", start) and data.endswith(b"]")
            return None if listed else "another body than was asked for"
        if self.ledger is not None:
            self.ledger.answered()
        return None
