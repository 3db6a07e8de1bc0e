"""The suite of the Store port for operators, links and invites."""

from __future__ import annotations

import pytest

from hubbub.chat.codes import hash_of
from hubbub.chat.commands import (
    AcceptInvite,
    AddInvite,
    AddInvitedUser,
    AddLink,
    AddOperator,
    AddUser,
    DeleteApplication,
    DeleteUser,
    EndSessions,
    PutMember,
    RemoveInvite,
    RemoveMember,
    ResetPassword,
    SetOperator,
    SetPassword,
)
from hubbub.chat.errors import Forbidden, Invalid, NotFound, Unauthenticated, WrongCode
from hubbub.chat.model import Invite, Joined, Purpose, Role, User
from hubbub.chat.ports import Store
from tests.ports.conftest import Erasable

NOW, LATER = 1000, 2000


def somebody(name: str) -> AddUser:
    return AddUser(f"ref-{name}", f"{name}@x", name, "hash", NOW)


def invite(store: Store, code: str, role: Role = Role.MEMBER, uses: int = 1, expires_at: int = LATER) -> str:
    ref = f"ref of {code}"
    assert store.apply([AddInvite("token", Invite(ref, role, uses, 0, NOW, expires_at), hash_of(code), 1)]) == [None]
    return ref


async def used(store: Store, ref: str) -> int:
    return next(each.used for each in await store.invites("token", NOW, offset=0, limit=100) if each.ref == ref)


async def test_nobody_is_an_operator_until_made_one(store: Store) -> None:
    assert not await store.is_operator(1)
    assert store.apply([SetOperator("b@x", operator=True)] * 2) == [None, None]
    assert [await store.is_operator(user) for user in (1, 2, 3)] == [False, True, False]
    assert [user.email for user in await store.operators()] == ["b@x"]
    assert store.apply([SetOperator("b@x", operator=False)] * 2) == [None, None]
    assert not await store.is_operator(2)
    assert isinstance(store.apply([SetOperator("c@x", operator=True)])[0], NotFound)
    assert isinstance(store.apply([SetOperator("c@x", operator=False)])[0], NotFound)


@pytest.mark.parametrize("email", ["", "c@x"])
async def test_a_link_makes_one_operator(store: Store, email: str) -> None:
    assert store.apply([AddLink(Purpose.OPERATOR, email, hash_of("code"), LATER)]) == [None]
    assert await store.link(Purpose.OPERATOR, hash_of("code"), NOW) == email
    for purpose, code, at in (
        (Purpose.RESET, "code", NOW),
        (Purpose.OPERATOR, "no", NOW),
        (Purpose.OPERATOR, "code", LATER),
    ):
        assert await store.link(purpose, hash_of(code), at) is None
    (taken,) = store.apply([AddOperator(AddUser("r", "a@x", "A", "h", NOW), hash_of("code"))])
    assert isinstance(taken, WrongCode if email else Invalid)
    (user, again) = store.apply([AddOperator(somebody(name), hash_of("code")) for name in ("c", "d")])
    assert isinstance(user, User)
    assert await store.is_operator(user.id)
    assert isinstance(again, WrongCode)
    assert await store.user_by_email("d@x") is None
    assert await store.link(Purpose.OPERATOR, hash_of("code"), NOW) is None


async def test_a_new_link_ends_the_one_before_and_others_stay(store: Store) -> None:
    for email, code in (("c@x", "one"), ("c@x", "two"), ("d@x", "three"), ("", "four")):
        store.apply([AddLink(Purpose.OPERATOR, email, hash_of(code), LATER)])
    store.apply([AddLink(Purpose.RESET, "c@x", hash_of("five"), LATER)])
    found = [await store.link(Purpose.OPERATOR, hash_of(code), NOW) for code in ("one", "two", "three", "four")]
    assert found == [None, "c@x", "d@x", ""]
    assert store.apply([SetOperator("c@x", operator=False)]) == [None]
    assert await store.link(Purpose.OPERATOR, hash_of("two"), NOW) is None
    assert await store.link(Purpose.RESET, hash_of("five"), NOW) == "c@x"


async def test_a_link_that_expired_or_is_for_another_email_does_nothing(store: Store) -> None:
    store.apply([AddLink(Purpose.OPERATOR, "c@x", hash_of("other"), LATER)])
    store.apply([AddLink(Purpose.OPERATOR, "d@x", hash_of("over"), NOW)])
    outcomes = store.apply([AddOperator(somebody("d"), hash_of(code)) for code in ("other", "over")])
    assert [type(outcome) for outcome in outcomes] == [WrongCode, WrongCode]
    assert await store.user_by_email("d@x") is None
    assert await store.operators() == []


async def test_an_email_with_an_operator_link_cannot_be_registered_otherwise(store: Store) -> None:
    invite(store, "invite")
    store.apply([AddLink(Purpose.OPERATOR, "c@x", hash_of("code"), LATER)])
    store.apply([AddLink(Purpose.OPERATOR, "d@x", hash_of("over"), NOW)])
    invited = AddInvitedUser(somebody("c"), "token", hash_of("invite"))
    assert [type(each) for each in store.apply([somebody("c"), invited])] == [Forbidden, Forbidden]
    assert isinstance(store.apply([somebody("d")])[0], User), "a link that has expired keeps nobody out"
    (made,) = store.apply([AddOperator(somebody("c"), hash_of("code"))])
    assert isinstance(made, User)
    store.apply([AddLink(Purpose.OPERATOR, "e@x", hash_of("other"), LATER), SetOperator("e@x", operator=False)])
    assert isinstance(store.apply([somebody("e")])[0], User)


async def test_a_password_is_set_once_and_ends_all_sessions(store: Store) -> None:
    store.apply([AddLink(Purpose.RESET, "a@x", hash_of("code"), LATER)])
    (late,) = store.apply([ResetPassword(hash_of("code"), "new", "era", LATER)])
    (wrong,) = store.apply([ResetPassword(hash_of("other"), "new", "era", NOW)])
    assert (type(late), type(wrong)) == (WrongCode, WrongCode)
    assert await store.session_lives(1, "", "one")
    (done, again) = store.apply([ResetPassword(hash_of("code"), word, word, NOW) for word in ("new", "newer")])
    assert done is None
    assert isinstance(again, WrongCode)
    assert not await store.session_lives(1, "", "one")
    assert await store.session_lives(1, "new", "one")
    assert await store.session_lives(2, "", "one")
    found = await store.user_by_email("a@x")
    assert found is not None
    assert found[1] == "new"


async def test_an_invite_is_used_as_often_as_it_says(store: Store) -> None:
    ref = invite(store, "code", uses=2)
    assert await store.invite_token(hash_of("code")) == "token"
    assert await store.invite_token(hash_of("other")) is None
    users = [user.id for user in store.apply([somebody(name) for name in "cde"]) if isinstance(user, User)]
    accept = [AcceptInvite("token", hash_of("code"), user, NOW) for user in users]
    joined = Joined("token", Role.MEMBER)
    outcomes = store.apply([accept[0], accept[0], accept[1], accept[2]])
    assert outcomes[:3] == [joined, joined, joined], "a retry is answered again, and uses nothing up"
    assert isinstance(outcomes[3], WrongCode)
    assert [await store.role("token", user) for user in users] == [Role.MEMBER, Role.MEMBER, None]
    assert await used(store, ref) == 2
    assert store.apply([accept[1]]) == [joined], "also once it is used up"
    assert [each.token for each in await store.applications_of(users[0], offset=0, limit=9)] == ["token"]


async def test_an_invite_never_lowers_a_role(store: Store) -> None:
    member, admin = invite(store, "member", uses=9), invite(store, "admin", Role.ADMIN, uses=9)
    accept = {code: AcceptInvite("token", hash_of(code), 2, NOW) for code in ("member", "admin")}
    for code, role in (("member", Role.MEMBER), ("admin", Role.ADMIN), ("member", Role.ADMIN), ("admin", Role.ADMIN)):
        assert store.apply([accept[code]]) == [Joined("token", role)]
        assert await store.role("token", 2) is role
    assert store.apply([AcceptInvite("token", hash_of("admin"), 1, NOW)]) == [Joined("token", Role.OWNER)]
    assert await store.role("token", 1) is Role.OWNER
    assert (await used(store, member), await used(store, admin)) == (1, 1)


async def test_a_user_who_signs_up_by_an_invite_is_a_member_at_once(store: Store) -> None:
    ref = invite(store, "code", Role.ADMIN)
    (taken,) = store.apply([AddInvitedUser(AddUser("r", "a@x", "A", "h", NOW), "token", hash_of("code"))])
    assert isinstance(taken, Invalid)
    assert await used(store, ref) == 0, "nothing is used up by one that is refused"
    (user, late) = store.apply([AddInvitedUser(somebody(name), "token", hash_of("code")) for name in "cd"])
    assert isinstance(user, User)
    assert await store.role("token", user.id) is Role.ADMIN
    assert isinstance(late, WrongCode)
    assert await store.user_by_email("d@x") is None


async def test_an_invite_that_expired_or_was_revoked_does_nothing(store: Store) -> None:
    invite(store, "over", expires_at=NOW)
    ref = invite(store, "revoked")
    assert isinstance(store.apply([RemoveInvite("other", ref)])[0], NotFound)
    assert store.apply([RemoveInvite("token", ref)]) == [None]
    assert isinstance(store.apply([RemoveInvite("token", ref)])[0], NotFound)
    for code in ("over", "revoked", "none"):
        accepted, signed_up = store.apply(
            [AcceptInvite("token", hash_of(code), 2, NOW), AddInvitedUser(somebody("c"), "token", hash_of(code))]
        )
        assert (type(accepted), type(signed_up)) == (WrongCode, WrongCode)
    assert await store.role("token", 2) is None
    assert await store.invites("token", NOW, offset=0, limit=9) == []


async def test_invites_come_page_by_page_the_newest_first(store: Store) -> None:
    refs = [invite(store, f"code {number}") for number in range(5)][::-1]
    pages = [await store.invites("token", NOW, offset=offset, limit=2) for offset in (0, 2, 4)]
    assert [each.ref for page in pages for each in page] == refs
    assert pages[0][0] == Invite(refs[0], Role.MEMBER, 1, 0, NOW, LATER)
    assert await store.invites("other", NOW, offset=0, limit=9) == []


async def test_expired_links_and_invites_are_forgotten(store: Store) -> None:
    invite(store, "one")
    store.apply([AddLink(Purpose.RESET, "a@x", hash_of("two"), LATER)])
    store.forget_links(LATER)
    assert await store.invite_token(hash_of("one")) == "token"
    assert await store.link(Purpose.RESET, hash_of("two"), NOW) == "a@x"
    store.forget_links(LATER + 1)
    assert await store.invite_token(hash_of("one")) is None
    assert await store.link(Purpose.RESET, hash_of("two"), NOW) is None


async def test_a_deleted_account_leaves_no_operator_and_no_link(store: Store) -> None:
    store.apply([SetOperator("b@x", operator=True)])
    for purpose, email, code in (
        (Purpose.RESET, "b@x", "one"),
        (Purpose.OPERATOR, "b@x", "two"),
        (Purpose.OPERATOR, "", "three"),
    ):
        store.apply([AddLink(purpose, email, hash_of(code), LATER)])
    assert store.apply([DeleteUser(2, "gone", False)]) == [None]
    assert not await store.is_operator(2)
    assert await store.operators() == []
    assert await store.link(Purpose.RESET, hash_of("one"), NOW) is None
    assert await store.link(Purpose.OPERATOR, hash_of("two"), NOW) is None
    assert await store.link(Purpose.OPERATOR, hash_of("three"), NOW) == ""
    refused = store.apply([SetOperator(email, operator=True) for email in ("b@x", "deleted 2")])
    assert [type(outcome) for outcome in refused] == [NotFound, NotFound]
    store.apply([AddLink(Purpose.RESET, "b@x", hash_of("late"), LATER)])
    assert isinstance(store.apply([ResetPassword(hash_of("late"), "new", "era", NOW)])[0], WrongCode)
    (again,) = store.apply([AddUser("ref3", "b@x", "B", "hash", NOW)])
    assert isinstance(again, User)
    assert not await store.is_operator(again.id), "the email alone makes none"


async def test_a_deleted_user_joins_nothing(store: Store) -> None:
    ref = invite(store, "code", uses=9)
    store.apply([DeleteUser(2, "gone", False)])
    assert isinstance(store.apply([AcceptInvite("token", hash_of("code"), 2, NOW)])[0], Unauthenticated)
    assert await store.role("token", 2) is None
    assert await used(store, ref) == 0


async def test_invites_of_a_deleted_application_are_gone(store: Erasable) -> None:
    ref = invite(store, "code", uses=9)
    assert store.apply([DeleteApplication("token")]) == [None]
    assert await store.invite_token(hash_of("code")) is None
    assert await store.invites("token", NOW, offset=0, limit=9) == []
    accepted, signed_up, added = store.apply(
        [
            AcceptInvite("token", hash_of("code"), 2, NOW),
            AddInvitedUser(somebody("c"), "token", hash_of("code")),
            AddInvite("token", Invite("late", Role.MEMBER, 1, 0, NOW, LATER), hash_of("late"), 1),
        ]
    )
    assert [type(outcome) for outcome in (accepted, signed_up, added)] == [WrongCode, WrongCode, NotFound]
    assert await store.user_by_email("c@x") is None
    store.erase()
    assert isinstance(store.apply([RemoveInvite("token", ref)])[0], NotFound), "and no row of it is left"


def test_an_invite_counts_while_its_creator_manages_the_application(store: Store) -> None:
    made = Invite("of an admin", Role.ADMIN, 5, 0, NOW, LATER)
    store.apply([somebody("c"), PutMember("token", 2, Role.ADMIN), AddInvite("token", made, hash_of("code"), 2)])
    accepted = AcceptInvite("token", hash_of("code"), 2, NOW)
    for change in (RemoveMember("token", 2), PutMember("token", 2, Role.MEMBER)):
        refused = store.apply([change, accepted])[1]
        assert isinstance(refused, WrongCode), "nobody comes back by an invite of their own"
    joined = store.apply([PutMember("token", 2, Role.ADMIN), AcceptInvite("token", hash_of("code"), 3, NOW)])[1]
    assert joined == Joined("token", Role.ADMIN)


async def test_a_request_of_a_session_that_has_ended_is_refused(store: Store) -> None:
    assert store.apply([SetPassword(2, "first", "era 1", asked_in=""), EndSessions(2, "era 2")]) == [None, None]
    late = store.apply([SetPassword(2, "late", "era 3", asked_in="era 1"), DeleteUser(2, "era 3", False, asked_in="")])
    assert [type(each) for each in late] == [Unauthenticated, Unauthenticated]
    found = await store.user_by_email("b@x")
    assert found is not None
    assert (found[0].era, found[1]) == ("era 2", "first")


async def test_a_new_password_ends_the_links_that_would_set_another(store: Store) -> None:
    store.apply([AddLink(Purpose.RESET, email, hash_of(email), LATER) for email in ("a@x", "b@x")])
    store.apply([SetPassword(2, "hash", "era")])
    assert await store.link(Purpose.RESET, hash_of("b@x"), NOW) is None
    assert await store.link(Purpose.RESET, hash_of("a@x"), NOW) == "a@x"


async def test_the_link_for_the_first_operator_is_over_once_there_is_one(store: Store) -> None:
    store.apply([AddLink(Purpose.OPERATOR, "", hash_of("code"), LATER)])
    store.apply([SetOperator("b@x", operator=True)])
    assert await store.link(Purpose.OPERATOR, hash_of("code"), NOW) is None
