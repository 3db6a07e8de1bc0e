"""Users who write and read through every API process of a cluster, and remember the answers.

They behave like clients behind a proxy. When a process refuses a connection, or closes it before an answer, they avoid
it for a moment and ask another one.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import httpx

from hubbub.loadtest.cluster import ClusterStack
from tests.cluster import truth
from tests.conftest import Person, eventually

_PAGE = 100
_GIVE_UP_S = 8.0
_AVOID_S = 0.5
_EXAMPLES = 5

Kind = Literal[
    "lost", "wrong", "repeated", "disordered", "stale", "gaps", "errors", "cut off", "count", "refused", "lag"
]
_TABLE: tuple[Kind, ...] = ("lost", "wrong", "repeated", "disordered", "stale")


class Problem(NamedTuple):
    """A promise that was broken. ``lost``: an acknowledged message is not in the database. ``wrong``: a message has a
    text that it may not have, or was deleted. ``errors``: a 5xx other than 503, or a failure of the test itself.
    """

    kind: Kind
    says: str


@dataclass
class Message:
    """An acknowledged message. ``states`` are those that it may be in: a text, or None when it is deleted. There are
    several when the outcome of a change is not known. Then it is not changed any more.
    """

    chat: str
    number: int
    body: str
    key: str | None
    states: set[str | None]

    def tried(self, state: str | None) -> None:
        self.states.add(state)

    def became(self, state: str | None) -> None:
        self.states = {state}


@dataclass
class Record:
    """The answers that the users got: each chat's acknowledged messages, and each sender's numbers in order.

    ``unknown`` has the texts of posts that got no 200, ``cut_off`` those whose connection was closed before an answer.
    """

    messages: dict[str, dict[int, Message]] = field(default_factory=lambda: defaultdict(dict))
    order: dict[tuple[str, int], list[int]] = field(default_factory=lambda: defaultdict(list))
    unknown: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    cut_off: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    problems: list[Problem] = field(default_factory=list)
    acknowledged: int = 0
    refused: int = 0  # 503s
    errors: int = 0  # no process answered, or not in time
    moved: int = 0  # another process was asked
    lagging: int = 0  # reads that said that they may lag


@dataclass
class Verdict:
    """The result of a run; ``broken`` must be empty for a test to pass."""

    acknowledged: int = 0
    refused: int = 0
    errors: int = 0
    ended: int = 0
    seconds: float = 0.0
    broken: Counter[Kind] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, problems: Sequence[Problem]) -> None:
        self.broken.update(problem.kind for problem in problems)
        self.examples += [f"{problem.kind}: {problem.says}" for problem in problems[:_EXAMPLES]]

    @property
    def figures(self) -> list[int]:
        return [self.acknowledged, self.refused, self.errors, *(self.broken[kind] for kind in _TABLE), self.ended]


class Traffic:
    """Senders that run inside the context. Everyone writes in every chat. Each chat has an application of its own, so
    that several shards are busy.
    """

    def __init__(self, urls: list[str], *, senders: int = 6, chats: int = 4, seed: int = 0) -> None:
        self.record = Record()
        self.urls = urls
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self._owner = Person(urls[0])
        self.chats = [self._owner.chat() for _ in range(chats)]
        self.cookies = dict(self._owner.cookies)
        self._threads = [
            threading.Thread(target=_Sender(self, sender, random.Random(f"{seed}/{sender}")).run)
            for sender in range(senders)
        ]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        self._owner.close()

    def wait_for(self, more: int, within_s: float = 60.0) -> float:
        """Wait until this many more messages are acknowledged, and return the seconds that it took."""
        start, wanted = time.monotonic(), self.record.acknowledged + more
        eventually(lambda: self.record.acknowledged >= wanted, within_s)
        return time.monotonic() - start

    def broken(self, problem: Problem) -> None:
        with self.lock:
            self.record.problems.append(problem)

    # Checks ----------------------------------------------------------------------------------------------------------

    def check(self, stack: ClusterStack) -> Verdict:
        """Empty Redis, restart every process, and compare the record with the database, and the API with the database.
        Fail if anything is broken.
        """
        truth.bare(stack)
        verdict = Verdict(self.record.acknowledged, self.record.refused, self.record.errors)
        verdict.add(self.problems() + self.stored(stack) + self.shown(stack))
        assert not verdict.broken, f"{dict(verdict.broken)}: {verdict.examples}"
        return verdict

    def problems(self) -> list[Problem]:
        """Return what was found broken during the run."""
        found = list(self.record.problems)
        for (chat, sender), numbers in self.record.order.items():
            found += [
                Problem("disordered", f"sender {sender} of {chat} got {later} after {earlier}")
                for earlier, later in itertools.pairwise(numbers)
                if later < earlier  # the same number again is "repeated"
            ]
        return found

    def settled(self, stack: ClusterStack, within_s: float = 15.0) -> list[Problem]:
        """Return what is wrong with the database once everything queued is stored."""
        until = time.monotonic() + within_s
        while found := self.stored(stack):
            if time.monotonic() > until:
                truth.drained(stack)
                return self.stored(stack)
            time.sleep(0.2)
        return found

    def stored(self, stack: ClusterStack) -> list[Problem]:
        """Return what is wrong with the database now."""
        return [problem for chat in self.chats for problem in self._stored(chat, dict(truth.stored(stack, chat)))]

    def _stored(self, chat: str, in_database: dict[int, str]) -> Iterator[Problem]:
        record = self.record.messages[chat]
        for number, message in record.items():
            state = in_database.get(number)
            if state in message.states:
                continue
            if state is None:
                yield Problem("lost", f"{chat}/messages/{number} {message.body!r}")
            else:
                yield Problem("wrong", f"{chat}/messages/{number} is {state!r}, may be {message.states}")
        times = Counter(in_database.values())
        for number, body in in_database.items():
            if times[body] > 1:
                yield Problem("repeated", f"{body!r} is stored {times[body]} times in {chat}, once as {number}")
            elif number not in record and body not in self.record.unknown[chat]:
                yield Problem("wrong", f"{chat}/messages/{number} is {body!r}, which nobody wrote there")
            if body in self.record.cut_off[chat]:
                yield Problem(
                    "cut off", f"{chat}/messages/{number} was stored and its connection closed without a word"
                )
        highest = max(record, default=0)
        if len({*record, *in_database}) < highest and not any(self.record.unknown.values()):
            yield Problem("gaps", f"{highest} numbers of {chat}, {len(record)} messages, and no write has failed")

    def shown(self, stack: ClusterStack, within_s: float = 30.0) -> list[Problem]:
        """Return where the API does not show what is stored. Nothing may be queued any more."""
        until = time.monotonic() + within_s
        with httpx.Client(base_url=stack.url + "/api/v1", cookies=self.cookies, timeout=30) as client:
            while True:
                found = [
                    problem for chat in self.chats for problem in _shown(client, chat, dict(truth.stored(stack, chat)))
                ]
                if not found or time.monotonic() > until:
                    return found
                time.sleep(0.2)


def _shown(client: httpx.Client, chat: str, in_database: dict[int, str]) -> list[Problem]:
    listed = everything(client, chat)
    answer = client.get(chat)
    if answer.status_code != 200:
        return [Problem("errors", f"GET {chat} was answered {answer.status_code}: {answer.text[:200]}")]
    found = []
    if listed != sorted(in_database.items()):
        more, less = set(listed) - set(in_database.items()), set(in_database.items()) - set(listed)
        says = f"the list of {chat} differs from the database for good: has {sorted(more)}, lacks {sorted(less)}"
        found.append(Problem("stale", says))
    if (count := answer.json()["messagesCount"]) != len(in_database):
        found.append(Problem("count", f"{chat} counts {count} messages and has {len(in_database)}"))
    return found


class _Sender:
    """A user who sends one request at a time. ``_mine`` has the messages that it may still change."""

    def __init__(self, traffic: Traffic, number: int, rng: random.Random) -> None:
        self._traffic = traffic
        self._record = traffic.record
        self._number = number
        self._rng = rng
        self._turns = itertools.count()
        self._mine: list[Message] = []
        self._gone: list[Message] = []
        self._avoid = [0.0] * len(traffic.urls)

    def run(self) -> None:
        self._clients = [
            httpx.Client(base_url=url + "/api/v1", cookies=self._traffic.cookies, timeout=_GIVE_UP_S)
            for url in self._traffic.urls
        ]
        try:
            while not self._traffic.stopping.is_set():
                self._turn()
        except Exception as error:
            self._traffic.broken(Problem("errors", f"sender {self._number} failed: {error!r}"))
            raise
        finally:
            for client in self._clients:
                client.close()

    def _turn(self) -> None:
        message, at = self._post(self._rng.choice(self._traffic.chats))
        if message is None:
            return
        self._mine = [*self._mine[-20:], message]
        chance = self._rng.random()
        if chance < 0.5:
            self._read(message, at)
        elif chance < 0.65:
            self._edit(self._rng.choice(self._mine))
        elif chance < 0.7:
            self._delete(self._rng.choice(self._mine))
        elif chance < 0.8:
            self._again(self._rng.choice(self._mine + self._gone))

    # Writing ---------------------------------------------------------------------------------------------------------

    def _post(self, chat: str) -> tuple[Message | None, int]:
        """Post until it is acknowledged, and return the message and the process that acknowledged it. A failed try is
        made again with the same key, or without a key as another message.
        """
        record = self._record
        keyed = self._rng.random() < 0.5
        while True:
            body = f"{self._number}/{next(self._turns)}"
            key = f"key {body}" if keyed else None
            while True:
                outcome, answer, at = self._send("POST", f"{chat}/messages", body=body, key=key)
                if answer is not None and answer.status_code == 200:
                    return self._acknowledged(Message(chat, answer.json()["messageNumber"], body, key, {body})), at
                with self._traffic.lock:
                    record.unknown[chat].add(body)
                    if outcome == "closed" and not keyed:
                        record.cut_off[chat].add(body)
                if self._traffic.stopping.is_set():
                    return None, at
                time.sleep(0.02 if answer is not None else 0.1)
                if not keyed:
                    break

    def _acknowledged(self, message: Message) -> Message:
        record = self._record
        with self._traffic.lock:
            record.acknowledged += 1
            first = record.messages[message.chat].setdefault(message.number, message)
            record.order[message.chat, self._number].append(message.number)
            if first is not message:
                both = f"{first.body!r} and then {message.body!r}"
                record.problems.append(Problem("repeated", f"{message.chat}/messages/{message.number} was {both}"))
        return message

    def _edit(self, message: Message) -> None:
        text = f"{message.body} edited {next(self._turns)}"
        self._change(message, text, "PUT", f"{message.chat}/messages", {"messageNumber": message.number, "body": text})

    def _delete(self, message: Message) -> None:
        self._mine.remove(message)
        self._gone = [*self._gone[-5:], message]
        self._change(message, None, "DELETE", f"{message.chat}/messages/{message.number}", None)

    def _change(self, message: Message, state: str | None, method: str, path: str, content: Any) -> None:
        message.tried(state)
        outcome, answer, at = self._send(method, path, content=content)
        if answer is not None and outcome == "answered again" and method == "DELETE" and answer.status_code == 404:
            message.became(state)  # the process that closed the connection had deleted it
            return
        if answer is not None and answer.status_code in (200, 204):
            message.became(state)
            self._read(message, at)
            return
        if answer is not None and answer.status_code < 500:
            says = f"{method} {path} was acknowledged, and answered {answer.status_code}"
            self._traffic.broken(Problem("stale", says))
        if message in self._mine:
            self._mine.remove(message)

    def _again(self, message: Message) -> None:
        """Retry an acknowledged message, which must get its first number again."""
        if message.key is None:
            return
        _, answer, _ = self._send("POST", f"{message.chat}/messages", body=message.body, key=message.key)
        if answer is not None and answer.status_code == 200 and answer.json()["messageNumber"] != message.number:
            got = answer.json()["messageNumber"]
            self._traffic.broken(Problem("repeated", f"{message.chat}/messages/{message.number} is {got} when retried"))

    # Reading ---------------------------------------------------------------------------------------------------------

    def _read(self, message: Message, written_at: int) -> None:
        """Read what was just acknowledged, through another process."""
        path = f"{message.chat}/messages"
        way = self._rng.choice(["one", "newest", "after"])
        query = {"one": f"/{message.number}", "newest": "?limit=20", "after": f"?after={message.number - 1}&limit=5"}
        _, answer, at = self._send("GET", path + query[way], but=written_at)
        if answer is None or answer.status_code >= 500:
            return
        if answer.headers.get("Hubbub-Lag") == "queue":
            with self._traffic.lock:
                self._record.lagging += 1
            return
        state: str | None = None
        if way == "one":
            state = answer.json()["body"] if answer.status_code == 200 else None
        else:
            page = answer.json()
            found = {each["messageNumber"]: each["body"] for each in page}
            if way == "newest" and len(page) == 20 and min(found) > message.number:
                return  # it is too old for the page
            state = found.get(message.number)
        if state not in message.states:
            says = f"{way} at {at}: {path} {message.number} is {state!r}, may be {message.states}"
            self._traffic.broken(Problem("stale", says))

    # Sending ---------------------------------------------------------------------------------------------------------

    def _send(
        self, method: str, path: str, *, body: str = "", key: str | None = None, content: Any = None, but: int = -1
    ) -> tuple[str, httpx.Response | None, int]:
        """Return what happened, the answer, and the process that was asked last. A request that may be made twice, or
        has not reached a process, goes to the next. ``but`` is the process that is not asked first.
        """
        record, lock = self._record, self._traffic.lock
        content = {"body": body} if body else content
        headers = {"Idempotency-Key": key} if key else {}
        at = self._pick({but})
        tried: set[int] = set()
        while True:
            try:
                answer = self._clients[at].request(method, path, json=content, headers=headers)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                outcome = "refused"
            except httpx.TimeoutException:
                outcome = "late"
            except httpx.TransportError:
                outcome = "closed"
            else:
                with lock:
                    record.refused += answer.status_code == 503
                if answer.status_code >= 500 and answer.status_code != 503:
                    says = f"{method} {path} was answered {answer.status_code}: {answer.text[:200]}"
                    self._traffic.broken(Problem("errors", says))
                return "answered again" if tried else "answered", answer, at
            self._avoid[at] = time.monotonic() + _AVOID_S
            tried.add(at)
            following = self._pick(tried)
            again = outcome == "refused" or (outcome == "closed" and (method != "POST" or key is not None))
            if not again or following in tried:
                with lock:
                    record.errors += not (outcome == "closed" and method == "POST" and key is None)
                return outcome, None, at
            with lock:
                record.moved += 1
            at = following

    def _pick(self, but: set[int]) -> int:
        now = time.monotonic()
        every = [at for at in range(len(self._clients)) if at not in but] or list(range(len(self._clients)))
        return self._rng.choice([at for at in every if self._avoid[at] < now] or every)


def everything(client: httpx.Client, chat: str) -> list[tuple[int, str]]:
    """Read all messages of the chat page by page, and return them oldest first."""
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
