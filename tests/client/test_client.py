"""The Python client continues after failures of the connection and the service. tests/docs runs its examples."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubbub.client import AsyncClient, Client, HubbubError
from hubbub.loadtest.process import Part
from tests.conftest import Served, eventually


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Part]:
    """A service that keeps its port when it restarts."""
    part = Part(["serve", "--port", "0", "--data", str(tmp_path / "data")], {}, tmp_path / "log")
    part.start()
    yield part
    part.kill()


def test_a_search_says_when_it_could_not_look_everywhere(part: Part) -> None:
    with Client(part.url) as hubbub:
        hubbub.register("Ann", "ann@example.com", "a good password")
        application = hubbub.add_application("Ours")
        chat = hubbub.add_chat(application)
        for number in range(60):  # a text that takes the most work for its length
            hubbub.send(application, chat, "\ufdfa" * 9990 + f" {number}")
        hubbub.send(application, chat, "needle")

        def found_whole() -> bool:
            found = hubbub.search(application, chat, "needle")
            return bool(found) and not found.truncated

        eventually(found_whole)  # until the index has the chat, only its newest messages are looked at
        found = hubbub.search(application, chat, "عليه", limit=1)
        assert (len(found), found.truncated) == (1, True)


def test_every_operation_in_both_modes(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.client._MEMBERS", 1)  # so that members come in several pages
    with Client(service.url) as ann, Client(service.url) as bob:
        ann_email = f"ann.{time.time_ns()}@example.com"
        ann.register("Ann", ann_email, "a good password")
        email = f"bob.{time.time_ns()}@example.com"
        bob.register("Bob", email, "a good password")
        application = ann.add_application("Ours")
        assert [each.name for each in ann.applications()] == ["Ours"]
        added = ann.add_member(application, email, "admin")
        assert (added.id, added.role) == (bob.me().id, "admin")
        assert [each.name for each in bob.members(application)] == ["Ann", "Bob"]
        invite = ann.invite(application, uses=2)
        with Client(service.url) as eve:
            eve.register("Eve", f"eve.{time.time_ns()}@example.com", "a good password", invite=invite.code)
            assert eve.accept_invite(invite.code) == application
        assert [(each.id, each.uses, each.used) for each in ann.invites(application)] == [(invite.id, 2, 1)]
        assert [each.name for each in ann.members(application)] == ["Ann", "Bob", "Eve"]
        ann.revoke_invite(application, invite.id)
        assert ann.invites(application) == []
        chat = bob.add_chat(application, title="General")
        assert [(each.number, each.title) for each in ann.chats(application)] == [(chat, "General")]
        numbers = [bob.send(application, chat, f"message {number}") for number in range(120)]
        assert numbers == list(range(1, 121))
        assert [each.number for each in ann.history(application, chat)] == numbers
        assert {each.sender_id for each in ann.history(application, chat)} == {bob.me().id} != {ann.me().id}
        assert bob.edit(application, chat, 3, "edited").edited_at is not None
        ann.delete(application, chat, 4)
        assert [each.number for each in ann.messages(application, chat, limit=2, before=6)] == [5, 3]
        bob.rename("Robert")
        eventually(lambda: bob.messages(application, chat, limit=1)[0].sender_name == "Robert")
        ann.hand_over(application, email)
        assert [each.role for each in bob.members(application)] == ["admin", "owner", "member"]
        bob.hand_over(application, ann_email)
        before = bob.token
        bob.set_password("a good password", "a better password")
        assert bob.token not in (None, before)
        ann.delete_chat(application, ann.add_chat(application))
        assert [each.number for each in ann.chats(application)] == [chat]
        ann.remove_member(application, email)
        with pytest.raises(HubbubError) as refused:
            bob.messages(application, chat)
        assert refused.value.status == 404
        with Client(service.url, token=bob.token) as elsewhere:
            bob.end_sessions()
            assert bob.token is None
            with pytest.raises(HubbubError) as ended:
                elsewhere.applications()
            assert ended.value.status == 401
        ann.log_out()
        with pytest.raises(HubbubError) as out:
            ann.applications()
        assert out.value.status == 401
        ann.log_in(ann_email, "a good password")
        ann.delete_application(application)
        ann.delete_account("a good password")
        assert ann.token is None
        with pytest.raises(HubbubError):
            ann.log_in(ann_email, "a good password")


def test_messages_are_sent_once_through_kills(part: Part) -> None:
    with Client(part.url) as ann:
        ann.register("Ann", "ann@example.com", "a good password")
        application = ann.add_application("Ours")
        chat = ann.add_chat(application)
        sent: dict[int, str] = {}
        done = threading.Event()

        def restart() -> None:
            """Kill the service each time the client has sent some more messages."""
            while not done.is_set():
                before = len(sent)
                while len(sent) < before + 60 and not done.wait(0.01):
                    pass
                part.kill()
                part.start()

        killer = threading.Thread(target=restart)
        killer.start()
        try:
            for number in range(600):
                sent[ann.send(application, chat, str(number))] = str(number)
        finally:
            done.set()
            killer.join()
        found = [(each.number, each.body) for each in ann.history(application, chat)]
        assert len(found) == len(sent) == 600
        assert dict(found) == sent


async def test_listening_continues_where_it_was(part: Part) -> None:
    async with AsyncClient(part.url) as ann:
        await ann.register("Ann", "ann@example.com", "a good password")
        application = await ann.add_application("Ours")
        chat = await ann.add_chat(application)
        heard: list[int] = []

        async def listen() -> None:
            async for event in ann.listen(application, chat, after=0):
                if event.number not in heard:
                    heard.append(event.number)
                if len(heard) == 60:
                    return

        listening = asyncio.create_task(listen())
        for turn in range(3):
            for number in range(20):
                await ann.send(application, chat, f"{turn}/{number}")
            part.kill()
            await asyncio.to_thread(part.start)
        await asyncio.wait_for(listening, 30)
        assert heard == list(range(1, 61))


def test_signing_in_makes_the_account_once(part: Part) -> None:
    for _ in range(2):
        with Client(part.url) as ann:
            ann.sign_in("Ann", "ann@example.com", "a good password")
            ann.add_application("Ours")
    with Client(part.url) as ann:
        with pytest.raises(HubbubError) as refused:
            ann.sign_in("Ann", "ann@example.com", "another password")
        assert refused.value.status == 422, "the account is there, and this is not its password"
        ann.sign_in("Ann", "ann@example.com", "a good password")
        assert len(ann.applications()) == 2
