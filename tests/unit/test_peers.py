"""What processes that serve ask each other."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import NoReturn

import pytest

from hubbub.chat.errors import NotFound, Unavailable, UsedUp
from hubbub.embedded import child, peers
from hubbub.embedded.peers import Peer
from tests.peers import two_peers


async def test_both_ask_at_once_and_each_question_gets_its_own_answer() -> None:
    turns = [asyncio.Event() for _ in range(20)]

    async def double(number: int) -> int:
        if number:  # each waits for the one that was asked after it
            await turns[number].wait()
        turns[number - 1].set()
        return 2 * number

    async def word(text: str) -> str:
        return f"{text}!"

    async with two_peers({"double": double}, {"word": word}) as two:
        numbers = [two.first.ask("double", number) for number in reversed(range(20))]
        words = [two.other.ask("word", str(number)) for number in range(20)]
        answers = await asyncio.gather(*numbers, *words)
    assert answers == [2 * number for number in reversed(range(20))] + [f"{number}!" for number in range(20)]


async def test_a_refusal_arrives_with_its_fields() -> None:
    async def take() -> NoReturn:
        raise UsedUp("Too many.", what="here:ann", limit=10, retry_after=2.5)

    async def find() -> NoReturn:
        raise NotFound("Not here.", lag=True)

    async with two_peers({"take": take, "find": find}, {}) as two:
        with pytest.raises(UsedUp, match="Too many") as used_up:
            await two.first.ask("take")
        with pytest.raises(NotFound) as not_found:
            await two.first.ask("find")
    refused = used_up.value
    assert (refused.sentence, refused.what, refused.limit, refused.retry_after) == ("Too many.", "here:ann", 10, 2.5)
    assert not_found.value.lag


async def test_a_failure_is_logged_and_the_next_question_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> NoReturn:
        raise RuntimeError("unlucky")

    async def unsendable() -> object:
        return lambda: None

    async def well() -> str:
        return "well"

    async with two_peers({"fail": fail, "unsendable": unsendable, "well": well}, {}) as two:
        for question in ("fail", "unsendable", "unknown"):
            with pytest.raises(Unavailable, match="failed"):
                await two.first.ask(question)
        assert await two.first.ask("well") == "well"
    failures = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert failures == [
        f"The process other asked for {question}, and that failed." for question in ("fail", "unsendable", "unknown")
    ]
    assert "RuntimeError: unlucky" in caplog.text


@pytest.mark.parametrize("who", ["first", "other"])
async def test_a_stop_refuses_the_questions_that_wait_and_later_ones(who: str) -> None:
    asked = asyncio.Event()

    async def wait() -> None:
        asked.set()
        await asyncio.Event().wait()

    async with two_peers({"wait": wait}, {"wait": wait}) as two:
        waiting = asyncio.create_task(two.first.ask("wait"))
        await asked.wait()
        asked.clear()
        asking_back = asyncio.create_task(two.other.ask("wait"))
        await asked.wait()
        await getattr(two, who).close()
        for each in (waiting, asking_back):
            with pytest.raises(Unavailable, match="shutting down"):
                await each
        for peer in two:
            with pytest.raises(Unavailable, match="shutting down"):
                await peer.ask("wait")


async def test_a_process_that_ends_without_a_word_ends_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    monkeypatch.setattr(child, "end_with", ended.append)
    ours, theirs = socket.socketpair()
    peer = Peer("first")
    await peer.connect(ours, {})
    theirs.close()
    async with asyncio.timeout(20):
        while not ended:
            await asyncio.sleep(0)
    assert ended == ["first"]


async def test_nobody_waits_for_ever_for_a_process_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_LIMIT_S", 0.02)
    silent = asyncio.Event()

    async def answer(number: int) -> int:
        await silent.wait()
        return number

    async with two_peers({"answer": answer}, {}) as two:
        with pytest.raises(Unavailable, match="does not answer"):
            await two.first.ask("answer", 1)
        monkeypatch.setattr(peers, "_LIMIT_S", 20)
        silent.set()
        assert await two.first.ask("answer", 2) == 2, "the late answer is not taken for that of the next question"


async def test_questions_for_a_silent_process_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_MOST_UNANSWERED", 2)
    monkeypatch.setattr(peers, "_LIMIT_S", 0.02)
    silent = asyncio.Event()

    async with two_peers({"wait": silent.wait}, {}) as two:
        for _ in range(2):
            with pytest.raises(Unavailable):
                await two.first.ask("wait")
        monkeypatch.setattr(peers, "_LIMIT_S", 20)
        with pytest.raises(Unavailable, match="does not answer"):
            await two.first.ask("wait")
        silent.set()
        async with asyncio.timeout(20):
            while two.first._unanswered:
                await asyncio.sleep(0)
        assert await two.first.ask("wait")
