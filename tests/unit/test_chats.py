"""A ChatHandle allows each role what it may do, and only members get one."""

from __future__ import annotations

import json

import pytest

from hubbub.chat.caller import Caller
from hubbub.chat.chats import ChatHandle, Chats
from hubbub.chat.commands import DeleteMessage, EditMessage, RenameChat
from hubbub.chat.errors import Forbidden, KeyReused, NotFound, Unavailable
from hubbub.chat.model import ChatKey, Page
from tests.unit.fakes import ADMIN, CHAT, MEMBER, NOW, OWNER, STRANGER, TOKEN, Fakes


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


async def enter(fakes: Fakes, caller: Caller = MEMBER) -> ChatHandle:
    return await Chats(fakes.ports).enter(caller, CHAT)


def numbers(page: Page) -> list[int]:
    return [message["messageNumber"] for message in json.loads(page.body)]


@pytest.mark.parametrize(
    ("caller", "key", "sentence"),
    [
        (STRANGER, CHAT, "no such application"),
        (STRANGER, ChatKey(TOKEN, 2), "no such application"),
        (MEMBER, ChatKey("another", 1), "no such application"),
        (MEMBER, ChatKey(TOKEN, 2), "no such chat"),
    ],
)
async def test_a_stranger_gets_no_handle_and_a_missing_chat_has_none(
    fakes: Fakes, caller: Caller, key: ChatKey, sentence: str
) -> None:
    with pytest.raises(NotFound, match=sentence):
        await Chats(fakes.ports).enter(caller, key)


@pytest.mark.parametrize("token", [TOKEN + " ", TOKEN + "\n", "", "é", "x" * 65])
async def test_an_invalid_token_is_never_looked_up(fakes: Fakes, token: str) -> None:
    with pytest.raises(NotFound):
        await Chats(fakes.ports).enter(MEMBER, ChatKey(token, 1))
    assert fakes.view.asked == []


async def test_a_stranger_is_refused_before_the_chat_is_looked_up(fakes: Fakes) -> None:
    with pytest.raises(NotFound):
        await Chats(fakes.ports).enter(STRANGER, CHAT)
    assert fakes.view.asked == ["role"]


async def test_the_newest_page_comes_from_hot_data_and_others_do_not(fakes: Fakes) -> None:
    chat = await enter(fakes)
    fakes.view.asked.clear()
    page = await chat.messages(limit=3)
    assert (numbers(page), page.more, page.newest, page.oldest) == ([5, 4, 3], True, 5, 3)
    assert fakes.view.asked == ["newest"]
    page = await chat.messages(limit=3, offset=3)
    assert (numbers(page), page.more) == ([2, 1], False)
    page = await chat.messages(limit=2, before=4)
    assert (numbers(page), page.more) == ([3, 2], True)
    page = await chat.messages(limit=2, before=5, offset=2)
    assert (numbers(page), page.more) == ([2, 1], False)
    page = await chat.messages(limit=2, after=2)
    assert (numbers(page), page.more) == ([4, 3], True)
    assert not (await chat.messages(limit=2, after=0)).more
    assert fakes.view.asked.count("newest") == 1


async def test_a_stream_reads_messages_above_a_number_and_by_number(fakes: Fakes) -> None:
    chat = await enter(fakes)
    assert [message.number for message in (await chat.since(2, 2)).messages] == [3, 4]
    assert [message.number for message in (await chat.numbered([5, 2, 9])).messages] == [2, 5]


@pytest.mark.parametrize("lag", [False, True])
async def test_every_answer_says_whether_it_may_lag(fakes: Fakes, lag: bool) -> None:
    fakes.view.lag = lag
    chat = await enter(fakes)
    assert (await chat.message(3)).lag is lag
    with pytest.raises(NotFound) as missed:
        await chat.message(6)
    assert missed.value.lag is lag
    for page in (
        await chat.messages(limit=2),
        await chat.messages(limit=2, offset=2),
        await chat.messages(limit=2, before=3),
        await chat.messages(limit=2, after=3),
        await chat.search("message", offset=0, limit=10),
        await chat.search("mesage", offset=0, limit=10),
    ):
        assert page.lag is lag
    for change in (chat.edit(6, "x"), chat.delete(6)):
        with pytest.raises(Unavailable if lag else NotFound):  # a message that may exist is not refused for good
            await change


@pytest.mark.parametrize("caller", [OWNER, ADMIN, MEMBER])
async def test_only_the_sender_edits(fakes: Fakes, caller: Caller) -> None:
    chat = await enter(fakes, caller)
    if caller is not MEMBER:
        with pytest.raises(Forbidden):
            await chat.edit(3, "better")
        assert fakes.intake.accepted == []
        return
    await chat.edit(3, "better")
    assert fakes.intake.accepted == [EditMessage(CHAT, 3, 3, "better", NOW)]


@pytest.mark.parametrize(("caller", "any_sender"), [(OWNER, True), (ADMIN, True), (MEMBER, False)])
async def test_the_sender_and_those_who_manage_delete(fakes: Fakes, caller: Caller, any_sender: bool) -> None:
    await (await enter(fakes, caller)).delete(3)
    assert fakes.intake.accepted == [DeleteMessage(CHAT, 3, caller.user.id, any_sender=any_sender)]


async def test_a_member_cannot_delete_messages_of_others(fakes: Fakes) -> None:
    fakes.view.sender = 1
    with pytest.raises(Forbidden):
        await (await enter(fakes, MEMBER)).delete(3)
    assert fakes.intake.accepted == []


async def test_a_post_goes_in_with_its_sender_and_its_key(fakes: Fakes) -> None:
    chat = await enter(fakes)
    assert await (await chat.post("hello")) == 6
    assert await (await chat.post("again", "key")) == 6
    assert fakes.intake.posts == [(3, CHAT, "hello", None), (3, CHAT, "again", "key")]


@pytest.mark.parametrize("refusal", [Unavailable("full"), KeyReused("reused")])
async def test_a_refused_post_says_so(fakes: Fakes, refusal: Exception) -> None:
    fakes.intake.outcome = refusal
    chat = await enter(fakes)
    with pytest.raises(type(refusal)):
        await chat.post("hello", "key")


async def test_a_chats_title(fakes: Fakes) -> None:
    chat = await enter(fakes)
    assert (await chat.get()).title == "General"
    await chat.rename("Other")
    assert fakes.intake.accepted == [RenameChat(CHAT, "Other")]


async def test_search_finds_what_matches_now(fakes: Fakes) -> None:
    fakes.view.texts |= {2: "a needle", 4: "two needles"}
    chat = await enter(fakes)
    page = await chat.search("needle", offset=0, limit=10)
    assert numbers(page) == [2, 4]  # whole words come before prefixes
    assert numbers(await chat.search("needle", offset=1, limit=10)) == [4]
    assert numbers(await chat.search("nedle", offset=0, limit=10)) == [2]  # a typo
    assert numbers(await chat.search(" ?! ", offset=0, limit=10)) == []
