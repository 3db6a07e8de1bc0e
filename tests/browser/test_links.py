"""The pages that links lead to. An operator's link makes one account, and an invite lets a user join."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.visitor import SIZES, Visitor, look_at
from tests.conftest import Person, Service
from tests.mailbox import Mailbox


def test_the_set_up_link_makes_an_operator_once(browser: Browser, own_service: Service) -> None:
    link = own_service.setup_link()
    first, second = browser.new_context(), browser.new_context()
    ann, late = Visitor(first, link), Visitor(second, link)
    for visitor in (ann, late):
        visitor.fill("Ann")
        visitor.page.get_by_role("button", name="Create the account").click()
        if visitor is ann:
            expect(ann.page.get_by_role("button", name="Operator")).to_be_visible()
            assert not ann.page.url.endswith(link.partition("#")[2])
    expect(late.page.get_by_role("alert")).to_contain_text("used up")
    late.complaints.clear()  # the 404
    assert not ann.complaints
    first.close()
    second.close()


@pytest.mark.parametrize("way", ["signs up", "logs in", "is logged in"])
def test_an_invite_joins(browser: Browser, embedded: Service, way: str) -> None:
    with closing(Person(embedded.url)) as owner, browser.new_context() as context:
        token = owner.application()
        link = owner.post(f"/applications/{token}/invites", json={"role": "member"}).json()["link"]
        bob = Visitor(context, link.replace(Mailbox.url, embedded.url))
        assert "Ours" not in bob.page.content(), "a stranger learns nothing"
        if way == "signs up":
            bob.fill("Bob")
            bob.page.get_by_role("button", name="Sign up and join").click()
        else:
            with closing(Person(embedded.url)) as person:
                if way == "logs in":
                    bob.page.get_by_label("Log in").check()
                    bob.field("Email").fill(person.email)
                    bob.field("Password").fill("correct horse")
                    bob.page.get_by_role("button", name="Log in and join").click()
                else:
                    cookie = {"name": "auth_token", "value": person.cookies["auth_token"], "url": embedded.url}
                    context.add_cookies([cookie])  # type: ignore[list-item]
                    bob.page.reload()
                    bob.page.get_by_role("button", name="Join", exact=True).click()
        expect(bob.page.get_by_role("heading", name="You are a member of Ours.")).to_be_visible()
        bob.page.get_by_role("link", name="Go to its chats").click()
        expect(bob.page.get_by_label("Application", exact=True)).to_have_value(token)
        assert not bob.complaints


def test_a_logout_that_fails_is_told_unless_the_session_has_ended(browser: Browser, embedded: Service) -> None:
    with closing(Person(embedded.url)) as owner, browser.new_context() as context:
        link = owner.post(f"/applications/{owner.application()}/invites", json={"role": "member"}).json()["link"]
        context.add_cookies([{"name": "auth_token", "value": owner.cookies["auth_token"], "url": embedded.url}])
        visitor = Visitor(context, link.replace(Mailbox.url, embedded.url))
        visitor.page.route("**/auth/logout", lambda route: route.abort())
        visitor.page.get_by_role("button", name="Join with another account").click()
        expect(visitor.page.get_by_role("alert")).to_contain_text("can't be reached")
        visitor.page.unroute_all()
        assert owner.delete("/auth/logout").status_code == 200
        visitor.page.get_by_role("button", name="Join with another account").click()
        expect(visitor.page.get_by_role("button", name="Sign up and join")).to_be_visible()


def test_the_second_of_two_links_opened_in_a_tab_counts(browser: Browser, embedded: Service) -> None:
    with closing(Person(embedded.url)) as owner, browser.new_context() as context:
        links = []
        for name in ("One", "Two"):
            token = owner.post("/applications", json={"name": name}).json()["token"]
            link = owner.post(f"/applications/{token}/invites", json={"role": "member"}).json()["link"]
            links.append(link.replace(Mailbox.url, embedded.url))
        bob = Visitor(context, links[0])
        with bob.page.expect_event("load"):
            bob.page.evaluate("link => { location.href = link }", links[1])
        bob.fill("Bob")
        bob.page.get_by_role("button", name="Sign up and join").click()
        expect(bob.page.get_by_role("heading", name="You are a member of Two.")).to_be_visible()
        assert not bob.complaints


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_no_serious_findings_at_any_size(
    browser: Browser, own_service: Service, size: str, scheme: str, screenshots: Path | None
) -> None:
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    with closing(Person(own_service.url)) as owner:
        made = owner.post(f"/applications/{owner.application()}/invites", json={"role": "member"}).json()
    visitor = Visitor(context, own_service.setup_link())

    def look(name: str, button: str) -> None:
        expect(visitor.page.get_by_role("button", name=button, exact=True)).to_be_visible()
        look_at(visitor.page, f"{name}-{size}-{scheme}", screenshots)

    look("setup", "Create the account")
    visitor.page.goto(made["link"])
    look("invite", "Sign up and join")
    visitor.page.get_by_label("Log in").check()
    visitor.field("Email").fill("nobody@example.com")
    visitor.field("Password").fill("a wrong password")
    visitor.page.get_by_role("button", name="Log in and join").click()
    expect(visitor.page.get_by_role("alert")).to_contain_text("wrong")
    look("invite-refused", "Log in and join")
    visitor.page.get_by_label("Sign up").check()
    visitor.fill("Bob Example")
    visitor.page.get_by_role("button", name="Sign up and join").click()
    expect(visitor.page.get_by_role("heading", name="You are a member of Ours.")).to_be_visible()
    look_at(visitor.page, f"joined-{size}-{scheme}", screenshots)
    visitor.page.reload()
    expect(visitor.page.get_by_text("Bob Example")).to_be_visible()
    look("join", "Join")
    visitor.page.goto(f"{own_service.url}/reset")
    look("lost", "Send the link")
    visitor.page.goto("about:blank")
    visitor.page.goto(f"{own_service.url}/reset#code")
    look("reset", "Set the password")
    context.close()
