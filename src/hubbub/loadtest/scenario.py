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
    """The messages' texts, made once from the seed and shared by all workers. ``words`` are what they are made of."""

    def __init__(self, workload: Workload) -> None:
        rng = random.Random(workload.seed)  # noqa: S311 - a run that can be repeated, not a secret
        self.words = ["".join(rng.choices(_SYLLABLES, k=rng.randint(1, 4))) for _ in range(400)]
        self.texts = [self._text(rng, workload.size.draw(rng)) for _ in range(_BODIES)]
        # From "Content-Length" on, ready to follow the part of the head that names the chat.
        self.sends = [_tail(text) for text in self.texts]

    def _text(self, rng: random.Random, length: int) -> str:
        text = ""
        while len(text) < length:
            text += rng.choice(self.words) + " "
        return text[:length].rstrip().ljust(length, ".")


def _tail(text: str, number: int | None = None) -> bytes:
    edited = f'"messageNumber":{number},' if number is not None else ""
    body = f'{{{edited}"body":"{text}"}}'  # the texts have nothing that JSON escapes
    return f"{len(body)}\r\n\r\n{body}".encode()


class Scenario:
    """The requests of worker number ``worker``; the same seed gives the same ones, as far as answers allow.

    ``route`` is that of the request made last, which ``wrong`` judges. An edit, a delete or a read of one message takes
    one of the last messages that this worker sent; while there is none it sends one, or reads the newest, instead.
    """

    def __init__(self, url: str, user: VirtualUser, workload: Workload, texts: Texts, worker: int) -> None:
        self.user = user
        self.worker = worker
        self.route = SEND
        self.ledger = Ledger() if workload.note else None
        self._workload = workload
        self._rng = random.Random(f"{workload.seed}:{worker}")  # noqa: S311 - as above
        self._texts = texts
        self._writes = pattern(workload.mix, WRITES)
        self._reads = pattern(workload.mix, READS)
        self._write_turn = self._rng.randrange(len(self._writes)) if self._writes else 0
        self._read_turn = self._rng.randrange(len(self._reads)) if self._reads else 0
        self._weights = list(accumulate((rank + 1) ** -workload.zipf for rank in range(len(user.chats))))
        self._chat = 0
        self._newest = [0] * len(user.chats)  # the highest number this worker was given, for each chat
        self._remembered: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)  # chat's place and message number
        self._target = 0
        self._sequence = 0
        self._noted = True  # whether the send under way is
        self._sends = 0
        self._deletes = DELETE in self._writes
        parts = urlsplit(url)
        self._host = parts.netloc
        self._application = f"{parts.path.rstrip('/')}/api/v1/applications/{user.token}"
        self._list_chats = self._request("GET", "/chats")
        self._paths = [f"/chats/{number}/messages" for number in user.chats]
        self._lists = [self._request("GET", path) for path in self._paths]
        # The length is the last line of a head with a body, so all that stands before it is the same for every message.
        self._send_heads = [self._head("POST", path) for path in self._paths]
        self._edit_heads = [self._head("PUT", path) for path in self._paths]

    def _request(self, method: str, path: str) -> bytes:
        return request(method, self._host, self._application + path, cookie=self.user.cookie)

    def _head(self, method: str, path: str) -> bytes:
        whole = request(method, self._host, self._application + path, cookie=self.user.cookie, body=b"")
        return whole[: whole.rindex(b"0\r\n\r\n")]

    def _choose_chat(self) -> int:
        if len(self._weights) == 1:
            return 0
        return bisect(self._weights, self._rng.random() * self._weights[-1])

    def write(self) -> bytes:
        route = self._writes[self._write_turn]
        self._write_turn = (self._write_turn + 1) % len(self._writes)
        if route != SEND and self._remembered:
            self.route = route
            if route == DELETE:
                self._chat, self._target = self._remembered.popleft()
                if self.ledger is not None:
                    self.ledger.delete(self._chat, self._target)
                return self._request("DELETE", f"{self._paths[self._chat]}/{self._target}")
            self._chat, self._target = self._rng.choice(self._remembered)
            return self._edit_heads[self._chat] + _tail(self._text(edits=True), self._target)
        self.route = SEND
        self._chat = self._choose_chat()
        if self.ledger is None or not self._notes():
            return self._send_heads[self._chat] + self._rng.choice(self._texts.sends)
        return self._send_heads[self._chat] + _tail(self._text(edits=False))

    def _notes(self) -> bool:
        """Whether the next send is noted; if not, it has no mark, and is neither edited nor deleted."""
        self._noted = self._sends % self._workload.note == 0
        self._sends += 1
        return self._noted

    def _text(self, *, edits: bool) -> str:
        text = self._rng.choice(self._texts.texts)
        if self.ledger is None:
            return text
        self._sequence += 1
        if edits:
            self.ledger.edit(self._chat, self._target, self._sequence)
        else:
            self.ledger.send(self._chat, self._sequence)
        mark = f"{self._workload.run}.{self.worker}.{self._sequence} "
        return mark + text[len(mark) :]

    def read(self) -> bytes:
        route = self._reads[self._read_turn]
        self._read_turn = (self._read_turn + 1) % len(self._reads)
        if route == MESSAGE and not self._remembered:
            route = MESSAGES
        self.route = route
        if route == CHATS:
            return self._list_chats
        if route == MESSAGE:
            self._chat, self._target = self._rng.choice(self._remembered)
            return self._request("GET", f"{self._paths[self._chat]}/{self._target}")
        self._chat = self._choose_chat()
        if route == MESSAGES:
            return self._lists[self._chat]
        if route == HISTORY:
            before = self._rng.randint(1, self._newest[self._chat] + 1)
            return self._request("GET", f"{self._paths[self._chat]}?before={before}")
        words = " ".join(self._rng.choices(self._texts.words, k=self._rng.randint(1, 2)))
        return self._request("GET", f"{self._paths[self._chat]}/search?q={quote(words)}")

    def wrong(self, status: int, body: bytes) -> str | None:
        """Why the answer is wrong; None when it is right. Records what it acknowledges."""
        route = self.route
        if status != 200 and not (route == DELETE and status == 204):
            return f"status {status}"
        if route == SEND:
            return self._sent(body)
        if route == MESSAGES:
            found = _NEWEST.match(body)
            if found is None:
                return "another body than was asked for"
            if not self._deletes and int(found[1] or 0) < self._newest[self._chat]:
                return "a list without an acknowledged message"
            return None
        if route == CHATS:
            return None if body.startswith(b'[{"chatNumber":') else "another body than was asked for"
        if route == MESSAGE:
            found = _NUMBER.match(body)
            return None if found and int(found[1]) == self._target else "another body than was asked for"
        if route in (HISTORY, SEARCH):
            return None if body.startswith(b"[") and body.endswith(b"]") else "another body than was asked for"
        if self.ledger is not None:
            self.ledger.answered()
        return None

    def _sent(self, body: bytes) -> str | None:
        found = _NUMBER.match(body)
        if found is None:
            return "another body than was asked for"
        number = int(found[1])
        if self.ledger is not None and self._noted:
            self.ledger.sent(number)
        if number <= self._newest[self._chat]:
            return "a number that is not above the one before"
        self._newest[self._chat] = number
        if self._noted:
            self._remembered.append((self._chat, number))
        return None
