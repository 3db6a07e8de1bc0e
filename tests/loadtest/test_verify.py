"""Reading back accepts a correct result and finds every kind of error, on a real service."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from hubbub.loadtest.accounts import Accounts
from hubbub.loadtest.http_protocol import parse
from hubbub.loadtest.mix import parse_mix, parse_size
from hubbub.loadtest.scenario import Scenario, Texts, Workload
from hubbub.loadtest.setup import prepare, stranger
from hubbub.loadtest.verify import Findings, read_back
from tests.conftest import Service

RUN = "run1"


class Field:
    """Two users of one application and two of another, whose messages were acknowledged."""

    def __init__(self, url: str, scenarios: list[Scenario], outsider: str) -> None:
        self.url = url
        self.scenarios = scenarios
        self.outsider = outsider  # the cookie of a user who belongs to no application

    async def written(self, turns: int) -> None:
        for scenario in self.scenarios * turns:
            await exchange(self.url, scenario)

    def api(self, scenario: Scenario) -> httpx.Client:
        chat = f"/api/v1/applications/{scenario.user.token}/chats/{scenario.user.chats[0]}"
        return httpx.Client(base_url=self.url + chat, headers={"Cookie": scenario.user.cookie})

    async def judged(self) -> Findings:
        return await read_back(self.url, self.scenarios, RUN, self.outsider)

    def last(self, scenario: Scenario) -> int:
        assert scenario.ledger is not None
        return max(scenario.ledger.chats[0].texts)


async def exchange(url: str, scenario: Scenario, *, answered: bool = True) -> None:
    """Send the scenario's next write. With ``answered`` the scenario gets the answer."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(scenario.write())
    buffer = b""
    while (response := parse(buffer)) is None:
        buffer += await reader.read(65536)
    writer.close()
    if answered:
        assert scenario.wrong(response.status, response.body) is None


@pytest.fixture
async def field(own_service: Service) -> Field:
    workload = Workload(parse_mix("send=6,edit=2,delete=1"), parse_size("60"), 0.0, 1, RUN, note=1)
    accounts = Accounts(own_service.url)
    users = await prepare(accounts, 4, members=2)
    assert users[0].token == users[1].token != users[2].token
    texts = Texts(workload)
    ready = Field(
        own_service.url,
        [Scenario(own_service.url, user, workload, texts, worker) for worker, user in enumerate(users)],
        await stranger(accounts),
    )
    await ready.written(30)
    return ready


async def test_a_correct_result_passes(field: Field) -> None:
    findings = await field.judged()
    assert findings.faults == 0, findings
    assert findings.stored == findings.acknowledged > 50
    assert findings.unanswered == 0


async def test_a_lost_answer_is_no_fault(field: Field) -> None:
    for scenario in field.scenarios * 9:
        await exchange(field.url, scenario, answered=False)
    findings = await field.judged()
    assert findings.faults == 0, findings
    assert findings.unanswered > 0


async def test_a_message_that_is_gone_is_lost(field: Field) -> None:
    scenario = field.scenarios[1]
    with field.api(scenario) as api:
        assert api.delete(f"/messages/{field.last(scenario)}").status_code == 204
    findings = await field.judged()
    assert (findings.lost, findings.faults) == (1, 1)
    assert findings.stored == findings.acknowledged - 1
    assert f"message {field.last(scenario)} in chat" in findings.examples[0]


async def test_a_message_with_another_text_is_altered(field: Field) -> None:
    scenario = field.scenarios[2]
    with field.api(scenario) as api:
        number = field.last(scenario)
        assert api.patch(f"/messages/{number}", json={"body": f"{RUN}.2.999999 other"}).status_code == 200
    findings = await field.judged()
    assert (findings.altered, findings.faults) == (1, 1)


async def test_a_message_that_is_stored_twice_is_repeated(field: Field) -> None:
    scenario = field.scenarios[0]
    with field.api(scenario) as api:
        body = api.get(f"/messages/{field.last(scenario)}").json()["body"]
        assert api.post("/messages", json={"body": body}).status_code == 200
    findings = await field.judged()
    assert findings.repeated == 1


async def test_a_delete_that_was_not_done_and_a_number_given_twice_are_found(field: Field) -> None:
    ledger = field.scenarios[3].ledger
    assert ledger is not None
    number = field.last(field.scenarios[3])
    ledger.delete(0, number)
    ledger.answered()
    ledger.send(0, 12345)
    ledger.sent(number - 1)
    findings = await field.judged()
    assert findings.undeleted == 1
    assert findings.disordered == 1


async def test_a_stranger_who_gets_in_is_found(field: Field) -> None:
    scenario = field.scenarios[0]
    async with httpx.AsyncClient(base_url=field.url, headers={"Cookie": scenario.user.cookie}) as owner:
        invited = await owner.post(
            f"/api/v1/applications/{scenario.user.token}/members",
            json={"email": "perftest-stranger@example.com", "role": "member"},
        )
        assert invited.status_code == 201, invited.text
    findings = await field.judged()
    assert findings.intrusions >= 4  # the application, its chats, its messages and the list, for each of its two users
    assert findings.faults == findings.intrusions


@pytest.fixture(autouse=True)
def _nothing_left(own_service: Service) -> Iterator[None]:
    yield
    assert own_service.process.poll() is None  # no test may bring the service down
