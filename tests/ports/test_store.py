"""The suite of the Store port. A new adapter is one more fixture parameter."""

from __future__ import annotations

from itertools import product

import pytest

from hubbub.chat.commands import (
    AddApplication,
    AddChat,
    AddInvite,
    AddUser,
    Command,
    DeleteApplication,
    DeleteChat,
    DeleteMessage,
    DeleteUser,
    EditMessage,
    EndErasure,
    EndSession,
    EndSessions,
    HandOver,
    PostMessage,
    PutMember,
    RemoveInvite,
    RemoveMember,
    RenameApplication,
    RenameChat,
    RenameUser,
    SetPassword,
)
from hubbub.chat.errors import Forbidden, Invalid, KeyReused, NotFound, Unauthenticated
from hubbub.chat.model import ChatKey, Invite, Role, User
from hubbub.chat.ports import Place, Sent
from tests.ports.conftest import Erasable as Store

CHAT = ChatKey("token", 1)


def post(number: int, body: str = "x", key: str | None = None, body_hash: bytes | None = None) -> PostMessage:
    return PostMessage(CHAT, number, 1, "ref", "A", body, 1000 + number, key, body_hash)


async def numbers(store: Store, **where: int) -> list[int]:
    return [message.number for message in await store.messages(CHAT, limit=1000, **where)]


async def test_a_session_ends_alone_or_with_all_of_its_user(store: Store) -> None:
    ann = await store.user_by_ref("ref")
    assert ann is not None
    assert await store.session_lives(ann.id, ann.era, "one")
    assert not await store.session_lives(99, ann.era, "one")
    assert store.apply([EndSession("one", 5), EndSession("one", 5)]) == [None, None]
    assert not await store.session_lives(ann.id, ann.era, "one")
    assert await store.session_lives(ann.id, ann.era, "two")
    assert store.apply([EndSessions(ann.id, "later")]) == [None]
    assert not await store.session_lives(ann.id, ann.era, "two")
    assert not await store.session_lives(ann.id, "later ", "two")
    assert await store.session_lives(ann.id, "later", "two")
    again, by_email = await store.user_by_ref("ref"), await store.user_by_email("a@x")
    assert again is not None
    assert by_email is not None
    assert (again.era, by_email[0].era, by_email[1]) == ("later", "later", "hash")
    bob = await store.user_by_ref("ref2")
    assert bob is not None
    assert await store.session_lives(bob.id, "", "two")


async def test_an_ended_session_is_known_for_long_after_its_time(store: Store) -> None:
    """Otherwise a clock that is ahead for a while would bring a session back."""
    day = 24 * 3600 * 1000
    store.apply([EndSession("one", 7 * day)])
    store.forget_sessions((7 + 89) * day)
    assert not await store.session_lives(1, "", "one")
    store.forget_sessions((7 + 91) * day)
    assert await store.session_lives(1, "", "one")


async def test_a_batch_is_there_in_order(store: Store) -> None:
    assert store.apply([post(number) for number in range(1, 251)]) == list(range(1, 251))
    assert await numbers(store) == list(range(250, 0, -1))
    assert await numbers(store, before=3) == [2, 1]
    assert await numbers(store, after=248) == [250, 249]
    assert await numbers(store, offset=249) == [1]
    chat = await store.chat(CHAT)
    assert chat is not None
    assert (chat.messages_count, chat.last_number) == (250, 250)


async def test_commands_of_one_batch_see_each_other(store: Store) -> None:
    outcomes = store.apply([post(1), EditMessage(CHAT, 1, 1, "edited", 9), post(2), DeleteMessage(CHAT, 2, 1, False)])
    assert outcomes == [1, None, 2, None]
    assert [(m.body, m.edited_at) for m in await store.messages(CHAT, limit=9)] == [("edited", 9)]


async def test_every_read_has_the_senders_public_id(store: Store) -> None:
    store.apply([post(number) for number in range(1, 6)])
    one = await store.message(CHAT, 1)
    assert one is not None
    found = [one, *await store.numbered(CHAT, [1, 2]), *await store.messages(CHAT, limit=5, before=4, offset=1)]
    found += [*await store.messages(CHAT, limit=5), *await store.messages(CHAT, limit=5, after=3)]
    assert [message.sender_ref for message in found] == ["ref"] * 12
    assert [(member.ref, member.email) for member in await store.members("token", offset=0, limit=9)] == [
        ("ref", "a@x")
    ]


async def test_only_the_sender_edits(store: Store) -> None:
    store.apply([post(1)])
    (edited, deleted) = store.apply([EditMessage(CHAT, 1, 2, "stolen", 9), DeleteMessage(CHAT, 1, 2, False)])
    assert isinstance(edited, NotFound)
    assert isinstance(deleted, NotFound)
    assert await numbers(store) == [1]


@pytest.mark.parametrize("counted_before", [False, True])
async def test_counts_follow_deletes_whenever_they_are_folded(store: Store, counted_before: bool) -> None:
    store.apply([post(number) for number in range(1, 11)])
    if counted_before:
        store.count_messages()
    store.apply([DeleteMessage(CHAT, 10, 2, True), DeleteMessage(CHAT, 3, 2, True)])
    for _ in range(2):
        chat = await store.chat(CHAT)
        assert chat is not None
        assert (chat.messages_count, chat.last_number) == (8, 10)
        store.count_messages()


async def test_keys_are_remembered_for_good(store: Store) -> None:
    assert store.apply([post(1, key="k", body_hash=b"h"), post(2, key="k", body_hash=b"h")]) == [1, 1]
    store.apply([DeleteMessage(CHAT, 1, 1, False)])
    assert await store.posted(CHAT, 1, "k") == (1, b"h")
    assert await store.posted(CHAT, 2, "k") is None
    assert isinstance(store.apply([post(3, key="k", body_hash=b"other")])[0], KeyReused)


async def test_names_roles_and_chats_are_stored(store: Store) -> None:
    assert isinstance(store.apply([AddUser("ref3", "a@x", "Again", "hash", 1)])[0], Invalid)
    assert await store.role("token", 1) is Role.OWNER
    assert await store.role("token", 2) is None
    store.apply([PutMember("token", 2, Role.ADMIN), AddChat("token", "Two", 5)])
    assert await store.role("token", 2) is Role.ADMIN
    assert [chat.number for chat in await store.chats("token", offset=0, limit=9)] == [2, 1]
    application = await store.application("token")
    assert application is not None
    assert application.chats_count == 2


async def test_a_deep_page_is_the_same_with_and_without_missing_numbers(store: Store) -> None:
    for start in range(1, 3001, 500):
        store.apply([post(number) for number in range(start, start + 500)])
    for offset in (1001, 2500, 2995, 3000, 5000):
        assert await numbers(store, offset=offset) == list(range(3000 - offset, 0, -1))[:1000]
    store.apply([DeleteMessage(CHAT, 2990, 1, any_sender=False)])
    for offset in (1001, 2500, 2994, 3000):
        assert await numbers(store, offset=offset) == list(range(2999 - offset, 0, -1))[:1000]


async def test_an_offset_counts_from_where_the_page_begins(store: Store) -> None:
    store.apply([post(number) for number in range(1, 41)])
    there = list(range(40, 0, -1))
    for gone in ([], [1, 19, 20, 40]):
        store.apply([DeleteMessage(CHAT, number, 1, any_sender=False) for number in gone])
        there = [number for number in there if number not in gone]
        for before, offset in product((None, 1, 2, 20, 41, 1000), (0, 1, 18, 19, 39, 100)):
            found = await store.messages(CHAT, limit=5, before=before, offset=offset)
            below = [number for number in there if before is None or number < before]
            assert [message.number for message in found] == below[offset : offset + 5], (gone, before, offset)


async def test_members_come_page_by_page(store: Store) -> None:
    users = [
        user.id
        for user in store.apply([AddUser(f"m{n}", f"m{n}@x", f"M{n}", "hash", 1) for n in range(1200)])
        if isinstance(user, User)
    ]
    store.apply([PutMember("token", user, Role.MEMBER) for user in users])
    store.apply([AddApplication("other", "O", users[0], 2)])
    emails: list[str | None] = []
    while page := await store.members("token", offset=len(emails), limit=100):
        emails += [member.email for member in page]
    assert emails == ["a@x", *(f"m{n}@x" for n in range(1200))]
    assert [member.role for member in await store.members("token", offset=0, limit=2)] == [Role.OWNER, Role.MEMBER]
    assert [member.email for member in await store.members("other", offset=0, limit=9)] == ["m0@x"]


async def test_a_member_is_found_by_email_and_nobody_else(store: Store) -> None:
    assert [await store.member("token", email) for email in ("a@x", "b@x", "c@x")] == [1, None, None]
    store.apply([PutMember("token", 2, Role.MEMBER)])
    assert [await store.member(token, "b@x") for token in ("token", "other")] == [2, None]
    store.apply([DeleteUser(2, "era", erase=False)])
    assert [await store.member("token", email) for email in ("b@x", "deleted 2")] == [None, None]


async def test_a_deleted_chat_is_gone_at_once_and_its_number_is_never_given_again(store: Store) -> None:
    store.apply([post(1, key="k", body_hash=b"h"), post(2), AddChat("token", "Two", 4)])
    assert store.apply([DeleteChat(ChatKey("token", 2)), DeleteChat(CHAT)]) == [None, None]
    assert isinstance(store.apply([DeleteChat(CHAT)])[0], NotFound)
    assert await store.chat(CHAT) is None
    assert await store.chats("token", offset=0, limit=9) == []
    application = await store.application("token")
    assert application is not None
    assert application.chats_count == 0
    late: list[Command] = [
        post(3),
        post(4, key="k", body_hash=b"h"),
        EditMessage(CHAT, 1, 1, "edited", 9),
        DeleteMessage(CHAT, 1, 1, any_sender=True),
    ]
    assert [type(outcome) for outcome in store.apply(late)] == [NotFound] * 4
    store.apply([RenameChat(CHAT, "Back")])
    assert await store.chat(CHAT) is None
    assert store.apply([AddChat("token", "Three", 5)]) == [3]
    store.erase()
    store.count_messages()
    assert await numbers(store) == []
    assert await store.posted(CHAT, 1, "k") is None
    assert store.apply([AddChat("token", "Four", 5)]) == [4]


async def test_a_long_chat_is_erased_in_slices(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for mode in ("embedded", "cluster"):
        monkeypatch.setattr(f"hubbub.{mode}.erasing._ROWS", 10)
    store.apply([post(number, key=f"{number}", body_hash=b"h") for number in range(1, 26)])
    store.apply([AddChat("token", "Two", 4), DeleteChat(CHAT)])
    other = ChatKey("token", 2)
    store.apply([PostMessage(other, 1, 1, "ref", "A", "stays", 1, "k", b"h")])
    store.erase()
    assert await numbers(store) == []
    assert await store.posted(CHAT, 1, "25") is None
    assert [message.body for message in await store.messages(other, limit=9)] == ["stays"]
    assert await store.posted(other, 1, "k") == (1, b"h")


async def test_a_deleted_application_is_gone(store: Store) -> None:
    store.apply([PutMember("token", 2, Role.ADMIN), post(1), AddChat("token", "Two", 4)])
    store.apply([AddApplication("other", "O", 2, 3)])
    assert store.apply([DeleteApplication("token")]) == [None]
    for _ in range(2):
        assert await store.application("token") is None
        assert await store.role("token", 1) is None
        assert await store.applications_of(1, offset=0, limit=9) == []
        assert [each.token for each in await store.applications_of(2, offset=0, limit=9)] == ["other"]
        assert await store.chat(CHAT) is None
        assert await store.chats("token", offset=0, limit=9) == []
        late: list[Command] = [
            DeleteApplication("token"),
            PutMember("token", 2, Role.MEMBER),
            AddChat("token", None, 5),
            DeleteChat(CHAT),
        ]
        store.apply([RenameApplication("token", "Back")])
        assert [type(outcome) for outcome in store.apply(late)][:3] == [NotFound] * 3
        store.erase()
    assert await numbers(store) == []
    assert await store.members("token", offset=0, limit=9) == []
    assert isinstance(store.apply([post(2)])[0], NotFound)
    assert await store.role("other", 2) is Role.OWNER


async def test_the_role_at_the_time_a_command_is_applied_counts(store: Store) -> None:
    """The request was checked earlier, and its user may have been removed or demoted since."""
    (cat,) = store.apply([AddUser("ref3", "c@x", "C", "hash", 1)])
    assert isinstance(cat, User)
    kept = Invite("kept", Role.MEMBER, 1, 0, 1, 9)
    store.apply([PutMember("token", cat.id, Role.MEMBER), AddInvite("token", kept, b"0" * 32, 1)])

    def asked(by: int) -> list[Command]:
        made = Invite(f"made {by}", Role.ADMIN, 1, 0, 1, 9)
        return [
            DeleteApplication("token", by),
            DeleteChat(CHAT, by),
            RenameApplication("token", "X", by),
            PutMember("token", cat.id, Role.ADMIN, by),
            RemoveMember("token", cat.id, by),
            AddInvite("token", made, bytes([by]) * 32, by),
            RemoveInvite("token", "kept", by),
        ]

    async def left() -> tuple[object, ...]:
        members = [(each.email, each.role) for each in await store.members("token", offset=0, limit=9)]
        invites = [each.ref for each in await store.invites("token", 1, offset=0, limit=9)]
        return await store.application("token"), members, invites, await store.chat(CHAT)

    store.apply([PutMember("token", 2, Role.ADMIN)])
    for change, refused in ((PutMember("token", 2, Role.MEMBER), Forbidden), (RemoveMember("token", 2), NotFound)):
        store.apply([change])
        before = await left()
        assert {type(outcome) for outcome in store.apply(asked(2))} == {refused}
        assert await left() == before
    store.apply([PutMember("token", 2, Role.ADMIN)])
    not_the_owner, *others = store.apply(asked(2))
    assert isinstance(not_the_owner, Forbidden)
    assert others == [None] * 6
    store.apply([HandOver("token", 1, 2)])
    outcomes = store.apply([DeleteApplication("token", 1), RemoveMember("token", 1, 1), DeleteApplication("token", 1)])
    assert [type(outcome) for outcome in outcomes] == [Forbidden, type(None), NotFound]
    assert store.apply([DeleteApplication("token", 2)]) == [None]


async def test_a_deleted_account_is_gone_and_its_messages_stay_under_another_name(store: Store) -> None:
    store.apply([PutMember("token", 2, Role.MEMBER), PostMessage(CHAT, 1, 2, "ref", "B", "bob's", 1001), post(2)])
    assert isinstance(store.apply([DeleteUser(1, "era", erase=False)])[0], Invalid)
    assert await store.user_by_ref("ref") is not None
    assert store.apply([DeleteUser(2, "era", erase=False)]) == [None]
    assert isinstance(store.apply([DeleteUser(2, "era2", erase=False)])[0], Unauthenticated)
    assert await store.user_by_ref("ref2") is None
    assert await store.user_by_email("b@x") is None
    assert await store.user_by_email("deleted 2") is None
    assert not await store.session_lives(2, "", "one")
    assert await store.role("token", 2) is None
    assert [each.email for each in await store.members("token", offset=0, limit=9)] == ["a@x"]
    assert [(each.number, each.sender_name) for each in await store.messages(CHAT, limit=9)] == [
        (2, "A"),
        (1, "Deleted user"),
    ]
    again = store.apply([AddUser("ref3", "b@x", "B", "hash", 1), PutMember("token", 2, Role.MEMBER)])
    assert isinstance(again[0], User)
    assert again[0].id != 2
    assert isinstance(again[1], NotFound)
    assert isinstance(store.apply([AddApplication("theirs", "T", 2, 9)])[0], Unauthenticated)
    assert await store.application("theirs") is None


async def test_a_user_who_deleted_an_application_does_not_own_it(store: Store) -> None:
    store.apply([DeleteApplication("token")])
    assert store.apply([DeleteUser(1, "era", erase=False)]) == [None]


async def test_all_messages_of_an_erased_user_are_listed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.embedded.store._AT_ONCE", 3)
    monkeypatch.setattr("hubbub.cluster.store._WALKED_AT_ONCE", 3)
    monkeypatch.setattr("hubbub.embedded.store._UNDER_WAY_MS", -1000)
    monkeypatch.setattr("hubbub.cluster.store.UNDER_WAY_S", -1)
    store.apply([AddChat("token", "Two", 4), AddApplication("other", "O", 1, 2), AddChat("other", None, 3)])
    places = [CHAT, ChatKey("token", 2), ChatKey("other", 1)]
    store.apply([PostMessage(chat, n, 1 + n % 2, "ref", "N", "x", 1) for chat in places for n in range(1, 8)])
    assert await store.users_to_erase("one") == []
    assert store.apply([DeleteUser(2, "era", erase=True)]) == [None]
    assert await store.users_to_erase("one") == [2]
    assert await store.users_to_erase("one") == [2]
    place: Place | None = ()
    found: list[Sent] = []
    while place is not None:
        place, some = await store.sent_by([2, 99], place)
        found += some
    assert sorted(found) == sorted(Sent(chat, n, 2) for chat in places for n in (1, 3, 5, 7))
    assert store.apply([EndErasure((2, 99))]) == [None]
    assert await store.users_to_erase("one") == []


async def test_a_name_and_a_password_are_changed(store: Store) -> None:
    store.apply([post(1), PostMessage(CHAT, 2, 2, "ref", "B", "bob's", 1002)])
    assert store.apply([RenameUser(2, "Robert"), SetPassword(2, "another hash", "later")]) == [None, None]
    assert [each.sender_name for each in await store.messages(CHAT, limit=9)] == ["Robert", "A"]
    found = await store.user_by_email("b@x")
    assert found is not None
    assert (found[0].name, found[0].era, found[1]) == ("Robert", "later", "another hash")
    assert not await store.session_lives(2, "", "one")
    store.apply([DeleteUser(2, "last", erase=False)])
    refused = store.apply([RenameUser(2, "Back"), SetPassword(2, "hash", "era")])
    assert [type(outcome) for outcome in refused] == [Unauthenticated, Unauthenticated]
    assert [each.sender_name for each in await store.messages(CHAT, limit=9)] == ["Deleted user", "A"]


async def test_an_application_is_handed_over(store: Store) -> None:
    assert isinstance(store.apply([HandOver("token", 1, 2)])[0], NotFound)
    store.apply([PutMember("token", 2, Role.MEMBER)])
    for command in (HandOver("token", 2, 2), HandOver("other", 1, 2)):
        assert isinstance(store.apply([command])[0], Forbidden)
    assert store.apply([HandOver("token", 1, 1)]) == [None]
    assert await store.role("token", 1) is Role.OWNER
    assert store.apply([HandOver("token", 1, 2)]) == [None]
    assert (await store.role("token", 1), await store.role("token", 2)) == (Role.ADMIN, Role.OWNER)
    assert isinstance(store.apply([RemoveMember("token", 2)])[0], Forbidden)
    assert isinstance(store.apply([DeleteUser(2, "era", erase=False)])[0], Invalid)
    assert store.apply([RemoveMember("token", 1), DeleteUser(1, "era", erase=False)]) == [None, None]
