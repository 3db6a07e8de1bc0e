"""Reads back the acknowledged messages, and looks for others that should not be there."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import Any

import msgspec

from hubbub.loadtest.client import CallFailed, Client
from hubbub.loadtest.ledger import ChatRecord
from hubbub.loadtest.scenario import Scenario

_PATIENCE_S = 60.0
_AGAIN_S = 0.2
_AT_ONCE = 4
_EXAMPLES = 10


class Unreadable(Exception):
    """The messages could not be read back; the text has the last answer."""


class Findings(msgspec.Struct, tag=True):
    """``acknowledged`` messages of this run that should be stored, and ``stored``, those of them that are, as they
    should be. The rest are faults, except ``unanswered``: stored, though the client got no answer. ``intrusions`` are
    answers other than 404 to a stranger, and applications listed to a user who does not belong to them. One of
    ``every`` messages was noted.
    """

    acknowledged: int = 0
    stored: int = 0
    unanswered: int = 0
    lost: int = 0
    repeated: int = 0
    disordered: int = 0
    altered: int = 0
    undeleted: int = 0
    intrusions: int = 0
    every: int = 1
    examples: list[str] = []

    @property
    def faults(self) -> int:
        return self.lost + self.repeated + self.disordered + self.altered + self.undeleted + self.intrusions

    def note(self, example: str) -> None:
        if len(self.examples) < _EXAMPLES:
            self.examples.append(example)

    def add(self, other: Findings) -> None:
        for name in self.__struct_fields__:
            if name not in ("every", "examples"):
                setattr(self, name, getattr(self, name) + getattr(other, name))
        for example in other.examples:
            self.note(example)


async def read_back(url: str, scenarios: list[Scenario], run: str, stranger: str) -> Findings:
    """Compare the scenarios' ledgers with the service. Waits for a service that is restarting.

    Raises:
        Unreadable
    """
    findings = Findings()
    chats: defaultdict[tuple[str, int], list[tuple[Scenario, ChatRecord]]] = defaultdict(list)
    for scenario in scenarios:
        if scenario.ledger is not None:
            for place, record in scenario.ledger.chats.items():
                chats[scenario.user.token, scenario.user.chats[place]].append((scenario, record))
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(token: str, chat: int, writers: list[tuple[Scenario, ChatRecord]]) -> None:
        async with gate:
            await _chat(url, token, chat, writers, run, findings)

    async def fence(place: int) -> None:
        # The neighbour with another application, if there is one: users of one application stand side by side.
        scenario = scenarios[place]
        others = (other for other in scenarios[place:] + scenarios if other.user.token != scenario.user.token)
        async with gate:
            await _fence(url, scenario, next(others, scenario), stranger, findings)

    await asyncio.gather(
        *(one(token, chat, writers) for (token, chat), writers in chats.items()),
        *(fence(place) for place in range(len(scenarios))),
    )
    return findings


async def _call(client: Client, path: str) -> tuple[int, Any]:
    """Repeat the request until the service answers."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            status, answer = await client.call("GET", path)
            if status not in (429, 503):
                return status, answer
            why = f"status {status}"
        except CallFailed as error:
            why = str(error)
        if time.monotonic() > until:
            raise Unreadable(f"GET {path}: {why}")
        await asyncio.sleep(_AGAIN_S)


async def _chat(
    url: str, token: str, chat: int, writers: list[tuple[Scenario, ChatRecord]], run: str, findings: Findings
) -> None:
    """One chat, from the first number that was acknowledged in it; the messages of other senders are passed over."""
    where = f"chat {chat} of application {token[:6]}…"
    by_worker = {scenario.worker: record for scenario, record in writers}
    after = min((min(record.texts) for record in by_worker.values() if record.texts), default=1) - 1
    found: dict[int, tuple[int, int]] = {}  # by number: worker and sequence
    seen: dict[tuple[int, int], int] = {}
    client = Client(url, writers[0][0].user.cookie)
    try:
        while True:
            path = f"/applications/{token}/chats/{chat}/messages?limit=100&after={after}"
            status, page = await _call(client, path)
            if status != 200:
                raise Unreadable(f"GET {path} answered {status}")
            if not page:
                break
            after = max(message["messageNumber"] for message in page)
            for message in page:
                mark = message["body"].split(" ", 1)[0].split(".")
                if len(mark) != 3 or mark[0] != run or int(mark[1]) not in by_worker:
                    continue
                number, author = message["messageNumber"], (int(mark[1]), int(mark[2]))
                if number in found or author in seen:
                    findings.repeated += 1
                    findings.note(f"message {number} in {where} repeats {seen.get(author, number)}")
                found[number] = author
                seen[author] = number
    finally:
        client.close()
    for worker, record in by_worker.items():
        _judge(record, worker, found, where, findings)


def _judge(record: ChatRecord, worker: int, found: dict[int, tuple[int, int]], where: str, findings: Findings) -> None:
    findings.disordered += record.repeated
    findings.acknowledged += len(record.texts.keys() - record.deleted)
    for number, sequence in record.texts.items():
        if number in record.deleted:
            if number in found:
                findings.undeleted += 1
                findings.note(f"message {number} in {where} was deleted and is there")
        elif number not in found:
            if number in record.unsure_deletes:
                findings.stored += 1  # the delete may have been done: as good as stored
            else:
                findings.lost += 1
                findings.note(f"message {number} in {where} was acknowledged and is not there")
        elif found[number] == (worker, sequence) or (
            found[number][0] == worker and found[number][1] in record.unsure_edits.get(number, ())
        ):
            findings.stored += 1
        else:
            findings.altered += 1
            findings.note(f"message {number} in {where} has another text than was acknowledged last")
    for number, (author, sequence) in found.items():
        if author != worker or number in record.texts:
            continue
        if sequence in record.unsure_sends:
            findings.unanswered += 1
        else:
            findings.altered += 1
            findings.note(f"message {number} in {where} is of a send that was answered with another number")


async def _fence(url: str, scenario: Scenario, other: Scenario, stranger: str, findings: Findings) -> None:
    """A stranger gets a 404 for this worker's application, this worker for another's, and lists don't show them."""
    token, foreign = scenario.user.token, other.user.token
    outsider, insider = Client(url, stranger), Client(url, scenario.user.cookie)
    try:
        for client, closed in ((outsider, token), *([(insider, foreign)] if foreign != token else [])):
            application = f"/applications/{closed}"
            for path in ("", "/chats", f"/chats/{other.user.chats[0]}/messages"):
                status, _ = await _call(client, application + path)
                if status != 404:
                    findings.intrusions += 1
                    findings.note(f"a stranger's GET /applications/{closed[:6]}…{path} answered {status}")
            status, listed = await _call(client, "/applications?limit=100")
            if status != 200 or any(each["token"] == closed for each in listed):
                findings.intrusions += 1
                findings.note(f"a stranger's list has the application {closed[:6]}…, or could not be read")
    finally:
        outsider.close()
        insider.close()
