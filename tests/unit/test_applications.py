"""A Membership allows each role what it may do, and only members get one."""

from __future__ import annotations

import json

import pytest

from hubbub.chat.applications import Applications, Membership
from hubbub.chat.caller import Caller
from hubbub.chat.commands import (
    AddApplication,
    AddChat,
    DeleteApplication,
    HandOver,
    PutMember,
    RemoveMember,
    RenameApplication,
)
from hubbub.chat.errors import Forbidden, Invalid, NotFound
from hubbub.chat.model import Role, is_token
from tests.unit.fakes import ADMIN, MEMBER, NOW, OWNER, STRANGER, TOKEN, Fakes, user


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


async def enter(fakes: Fakes, caller: Caller) -> Membership:
    return await Applications(fakes.ports).enter(caller, TOKEN)


@pytest.mark.parametrize(("caller", "token"), [(STRANGER, TOKEN), (MEMBER, "another"), (MEMBER, TOKEN + " ")])
async def test_a_stranger_learns_nothing(fakes: Fakes, caller: Caller, token: str) -> None:
    with pytest.raises(NotFound) as refused:
        await Applications(fakes.ports).enter(caller, token)
    with pytest.raises(NotFound) as nothing_there:
        await Applications(fakes.ports).enter(caller, "nowhere")
    assert refused.value.sentence == nothing_there.value.sentence


@pytest.mark.parametrize(("caller", "role"), [(OWNER, Role.OWNER), (ADMIN, Role.ADMIN), (MEMBER, Role.MEMBER)])
async def test_a_member_has_its_role(fakes: Fakes, caller: Caller, role: Role) -> None:
    assert (await enter(fakes, caller)).role is role


@pytest.mark.parametrize("caller", [OWNER, ADMIN])
async def test_the_owner_and_admins_manage(fakes: Fakes, caller: Caller) -> None:
    manager = await enter(fakes, caller)
    manager.must_manage()
    await manager.rename("Other")
    added = await manager.put_member(" USER5@example.com", Role.ADMIN)
    assert (added.email, added.role) == (user(5).email, Role.ADMIN)
    await manager.remove_member(user(3).email)
    assert fakes.intake.accepted == [
        RenameApplication(TOKEN, "Other", by=caller.user.id),
        PutMember(TOKEN, 5, Role.ADMIN, by=caller.user.id),
        RemoveMember(TOKEN, 3, by=caller.user.id),
    ]


async def test_a_member_manages_nothing(fakes: Fakes) -> None:
    member = await enter(fakes, MEMBER)
    with pytest.raises(Forbidden):
        member.must_manage()
    email = user(5).email
    for attempt in (member.rename("Mine"), member.put_member(email, Role.ADMIN), member.remove_member(email)):
        with pytest.raises(Forbidden):
            await attempt
    assert fakes.intake.accepted == []


async def test_a_member_may_leave_and_the_owner_may_not(fakes: Fakes) -> None:
    await (await enter(fakes, MEMBER)).remove_member(" USER3@example.com ")
    with pytest.raises(Forbidden, match="Hand it over first"):
        await (await enter(fakes, OWNER)).remove_member(user(1).email)
    assert fakes.intake.accepted == [RemoveMember(TOKEN, 3, by=3)]


@pytest.mark.parametrize("caller", [ADMIN, MEMBER])
async def test_the_owner_alone_hands_over_and_deletes(fakes: Fakes, caller: Caller) -> None:
    for attempt in ((await enter(fakes, caller)).hand_over(user(2).email), (await enter(fakes, caller)).delete()):
        with pytest.raises(Forbidden):
            await attempt
    owner = await enter(fakes, OWNER)
    await owner.hand_over(user(2).email)
    await owner.delete()
    assert fakes.intake.accepted == [HandOver(TOKEN, 1, 2), DeleteApplication(TOKEN, by=1)]


async def test_nobody_becomes_a_member_without_an_account(fakes: Fakes) -> None:
    owner = await enter(fakes, OWNER)
    with pytest.raises(Invalid):
        await owner.put_member("nobody@example.com", Role.MEMBER)


async def test_removing_and_handing_over_do_not_reveal_accounts(fakes: Fakes) -> None:
    owner = await enter(fakes, OWNER)
    for email in ("nobody@example.com", user(5).email):
        for attempt in (owner.remove_member(email), owner.hand_over(email)):
            with pytest.raises(NotFound, match="no such member"):
                await attempt
    assert fakes.intake.accepted == [], "a command takes longer"


async def test_what_a_member_sees_and_adds(fakes: Fakes) -> None:
    member = await enter(fakes, MEMBER)
    assert (await member.get()).name == "Ours"
    assert [each.role for each in await member.members(offset=0, limit=9)] == [Role.OWNER, Role.ADMIN, Role.MEMBER]
    assert [each.role for each in await member.members(offset=1, limit=1)] == [Role.ADMIN]
    fakes.intake.outcome = 31
    assert await member.add_chat("New") == 31
    assert fakes.intake.accepted == [AddChat(TOKEN, "New", NOW)]


async def test_the_newest_chats_come_from_hot_data(fakes: Fakes) -> None:
    member = await enter(fakes, MEMBER)
    assert [chat["title"] for chat in json.loads(await member.chats(limit=10))] == ["newest"]
    assert [chat["chatNumber"] for chat in json.loads(await member.chats(offset=10, limit=3))] == [20, 19, 18]
    assert fakes.view.asked.count("chats") == 1


async def test_a_new_application_belongs_to_its_creator(fakes: Fakes) -> None:
    token = await Applications(fakes.ports).add(STRANGER, "Theirs")
    assert is_token(token)
    assert fakes.intake.accepted == [AddApplication(token, "Theirs", 4, NOW)]
