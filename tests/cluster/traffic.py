"""Users who write through every API process of a cluster, and remember what they were told."""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field

import httpx

from tests.conftest import Person, eventually

_PAGE = 100


@dataclass
class Told:
    """What the users were told: by chat, each acknowledged number's body, and each sender's numbers in order."""

    bodies: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    order: dict[tuple[str, int], list[int]] = field(default_factory=lambda: defaultdict(list))
    repeated: list[tuple[str, int]] = field(default_factory=list)

    refused: int = 0

    @property
    def acknowledged(self) -> int:
        return sum(len(bodies) for bodies in self.bodies.values())


class Traffic:
    """A context manager: senders are at work inside it. Everyone writes in every chat, and edits every tenth."""

    def __init__(self, urls: list[str], *, senders: int = 6, chats: int = 3) -> None:
        self.told = Told()
        self._urls = urls
        self._owner = Person(urls[0])
        token = self._owner.application()
        self.chats = [self._owner.chat(token) for _ in range(chats)]
        self._cookies = dict(self._owner.cookies)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send, args=(sender,)) for sender in range(senders)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        self._owner.close()

    def _send(self, sender: int) -> None:
        clients = [httpx.Client(base_url=url + "/api/v1", cookies=self._cookies, timeout=30) for url in self._urls]
        for turn in itertools.count():
            if self._stop.is_set():
                break
            chat = self.chats[turn % len(self.chats)]
            client = clients[(sender + turn) % len(clients)]
            try:
                self._turn(client, sender, turn, chat)
            except httpx.TransportError:
                with self._lock:
                    self.told.refused += 1
                time.sleep(0.02)
        for client in clients:
            client.close()

    def _turn(self, client: httpx.Client, sender: int, turn: int, chat: str) -> None:
        body = f"{sender}/{turn}"
        answer = client.post(f"{chat}/messages", json={"body": body})
        if answer.status_code != 200:
            assert answer.status_code == 503, answer.text
            with self._lock:
                self.told.refused += 1
            time.sleep(0.02)
            return
        number = answer.json()["messageNumber"]
        with self._lock:
            if number in self.told.bodies[chat]:
                self.told.repeated.append((chat, number))
            self.told.bodies[chat][number] = body
            self.told.order[chat, sender].append(number)
        if turn % 10 == 0:
            edited = body + " edited"
            with self._lock:
                self.told.bodies[chat][number] = ""  # either, until it is known
            changed = client.put(f"{chat}/messages", json={"messageNumber": number, "body": edited})
            with self._lock:
                # A refused change may have been made or not; a lost message would show in any case.
                self.told.bodies[chat][number] = edited if changed.status_code == 200 else ""

    def wait_for(self, more: int, within_s: float = 60.0) -> float:
        """Wait until so many more messages are acknowledged; the seconds it took."""
        start, wanted = time.monotonic(), self.told.acknowledged + more
        eventually(lambda: self.told.acknowledged >= wanted, within_s)
        return time.monotonic() - start

    def check(self, url: str) -> tuple[int, int]:
        """Every acknowledged message is there, once, with the right body, in its sender's order; counts are right.

        Returns:
            How many were lost and how many numbers were given twice: no test passes unless both are 0.
        """
        lost = 0
        assert not self.told.repeated
        for numbers in self.told.order.values():
            assert numbers == sorted(numbers), "a sender's later message got a lower number"
        with httpx.Client(base_url=url + "/api/v1", cookies=self._cookies, timeout=30) as client:
            for chat in self.chats:
                expected = self.told.bodies[chat]
                eventually(lambda chat=chat, expected=expected: not _wrong(client, chat, expected), 30)  # type: ignore[misc]
                eventually(lambda chat=chat: _counts_right(client, chat), 30)  # type: ignore[misc]
                lost += len(_wrong(client, chat, expected))
        assert lost == 0
        return lost, len(self.told.repeated)


def everything(client: httpx.Client, chat: str) -> list[tuple[int, str]]:
    """All messages of the chat, oldest first, read page by page."""
    found: list[tuple[int, str]] = []
    after = 0
    while True:
        answer = client.get(f"{chat}/messages?after={after}&limit={_PAGE}")
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += [(message["messageNumber"], message["body"]) for message in reversed(page)]
        if len(page) < _PAGE:
            return found
        after = found[-1][0]


def _wrong(client: httpx.Client, chat: str, expected: dict[int, str]) -> list[int]:
    """Acknowledged numbers whose message is missing, doubled or another's."""
    found = everything(client, chat)
    numbers = [number for number, _ in found]
    assert len(numbers) == len(set(numbers)), "a number is in the list twice"
    bodies = dict(found)
    return [number for number, body in expected.items() if number not in bodies or (body and bodies[number] != body)]


def _counts_right(client: httpx.Client, chat: str) -> bool:
    return bool(client.get(chat).json()["messagesCount"] == len(everything(client, chat)))
