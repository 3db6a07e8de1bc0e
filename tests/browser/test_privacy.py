"""The console shows no user another's data: no message as their own, no email, and no typed text."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Route, expect

from tests.browser.visitor import Visitor, take
from tests.conftest import Person, Service


def test_a_message_of_a_namesake_is_not_mine_and_emails_are_not_shown_to_all(
    visit: Callable[[], Visitor], embedded: Service
) -> None:
    visitor, other = visit(), Person(embedded.url, "Ann Lee")
    email = visitor.sign_up("Ann Lee")
    token = other.application()
    other.post(f"/applications/{token}/members", json={"email": email, "role": "member"})
    chat = other.post(f"/applications/{token}/chats", json={"title": "General"}).json()["chatNumber"]
    other.post(f"/applications/{token}/chats/{chat}/messages", json={"body": "not hers"})
    visitor.page.reload()
    visitor.page.get_by_role("button", name="General").click()
    visitor.write("hers")
    expect(visitor.page.locator("#messages li p")).to_have_text(["not hers", "hers"])
    assert visitor.page.locator("#messages li.mine p").all_inner_texts() == ["hers"]
    visitor.page.get_by_text("New application, members").click()
    expect(visitor.page.locator("#members li")).to_have_text(["Ann Lee (owner)", "Ann Lee (member)"])
    other.post(f"/applications/{token}/members", json={"email": email, "role": "admin"})
    visitor.page.reload()
    visitor.page.get_by_text("New application, members").click()
    expect(visitor.page.locator("#members")).to_contain_text(other.email)
    other.close()


class Held:
    """Posts of messages, which wait until a test refuses them. ``count`` is how many were sent."""

    def __init__(self, visitor: Visitor) -> None:
        self.count = 0
        self._routes: list[Route] = []
        take(visitor.page, "**/messages", "POST", self._take)

    def _take(self, route: Route) -> None:
        self.count += 1
        self._routes.append(route)

    def refuse(self, status: int) -> None:
        self._routes.pop().fulfill(status=status, json={"error": "It was refused."})


def with_two_chats(visitor: Visitor, name: str) -> None:
    """Sign up, make an application with the chats One and Two, and leave Two open."""
    visitor.sign_up(name)
    visitor.make_application(f"{name}'s")
    visitor.open_new_chat("One")
    visitor.open_new_chat("Two")


def switch(visitor: Visitor, title: str) -> None:
    visitor.page.locator("#chats").get_by_role("button", name=title).click()
    expect(visitor.page.get_by_role("heading", name=title)).to_be_visible()


def test_a_draft_shows_only_in_its_own_chat(visit: Callable[[], Visitor]) -> None:
    ann = visit()
    with_two_chats(ann, "Ann")
    text = ann.page.get_by_label("Message", exact=True)
    text.fill("for the second")
    switch(ann, "One")
    expect(text).to_have_value("")
    text.fill("for the first")
    switch(ann, "Two")
    expect(text).to_have_value("for the second")
    text.press("Enter")
    expect(ann.page.locator("#messages li p")).to_have_text(["for the second"])
    switch(ann, "One")
    expect(text).to_have_value("for the first")
    switch(ann, "Two")
    expect(text).to_have_value("")


def test_a_failed_send_comes_back_to_its_own_chat_and_overwrites_nothing(visit: Callable[[], Visitor]) -> None:
    ann = visit()
    with_two_chats(ann, "Ann")
    text, held = ann.page.get_by_label("Message", exact=True), Held(ann)
    with ann.page.expect_request("**/messages"):
        ann.write("refused")
    text.fill("typed since, in the same chat")
    switch(ann, "One")
    text.fill("typed in another chat")
    held.refuse(422)
    expect(ann.page.locator("#notice")).to_have_text("It was refused.")
    expect(text).to_have_value("typed in another chat")
    switch(ann, "Two")
    expect(text).to_have_value("refused\ntyped since, in the same chat")
    switch(ann, "One")
    expect(text).to_have_value("typed in another chat")


def test_after_logout_nobody_sees_what_was_typed(visit: Callable[[], Visitor]) -> None:
    ann = visit()
    with_two_chats(ann, "Ann")
    text, title = ann.page.get_by_label("Message", exact=True), ann.page.get_by_label("New chat")
    text.fill("a secret of the second chat")
    switch(ann, "One")
    text.fill("a secret of the first chat")
    title.fill("a secret title")
    ann.page.get_by_role("button", name="Log out").click()
    expect(ann.page.get_by_role("heading", name="A chat backend")).to_be_visible()
    assert "secret" not in ann.page.evaluate("document.body.innerHTML + JSON.stringify([localStorage, sessionStorage])")
    typed = ann.page.locator("textarea, input").evaluate_all("all => all.map(each => each.value)")
    assert not any("secret" in each for each in typed)
    ann.sign_up("Bob")
    ann.make_application("Bob's")
    expect(title).to_have_value("")
    for chat in ("One", "Two"):
        ann.open_new_chat(chat)
        expect(text).to_have_value("")


def test_a_message_refused_after_its_sender_left_is_shown_to_nobody(visit: Callable[[], Visitor]) -> None:
    ann = visit()
    with_two_chats(ann, "Ann")
    text, held = ann.page.get_by_label("Message", exact=True), Held(ann)
    with ann.page.expect_request("**/messages"):
        ann.write("a secret")
    ann.page.get_by_role("button", name="Log out").click()
    with_two_chats(ann, "Bob")
    ann.page.clock.install()
    with ann.page.expect_response("**/messages"):
        held.refuse(503)
    ann.page.clock.run_for(20_000)
    expect(text).to_have_value("")
    expect(ann.page.locator("#notice")).to_have_text("")
    assert held.count == 1, "it is not sent again as Bob"
