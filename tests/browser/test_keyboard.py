"""Who uses the keyboard alone keeps their place."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from playwright.sync_api import expect

from tests.browser.visitor import SIZES, Visitor, in_a_chat_of
from tests.conftest import Person, Service


def test_the_focus_stays_on_a_chat_when_the_list_is_made_anew(visit: Callable[[], Visitor], embedded: Service) -> None:
    ann = visit()
    with closing(Person(embedded.url)) as bob:
        token = bob.application()
        bob.post(f"/applications/{token}/members", json={"email": ann.sign_up("Ann"), "role": "member"})
        chats = [bob.chat(token) for _ in range(2)]
        ann.page.reload()
        ann.page.get_by_role("button", name="Chat 2").press("Enter")
        expect(ann.page.get_by_label("Message", exact=True)).to_be_focused()
        ann.page.get_by_role("button", name="Chat 1").focus()
        bob.post(f"{chats[1]}/messages", json={"body": "Hello"})
        expect(ann.page.get_by_role("button", name="Chat 2")).to_contain_text("1")
        expect(ann.page.get_by_role("button", name="Chat 1")).to_be_focused()


def test_a_new_application_leads_to_its_first_chat(visit: Callable[[], Visitor]) -> None:
    ann = visit()
    ann.sign_up("Ann")
    ann.page.get_by_label("New application").fill("Ours")
    ann.page.get_by_label("New application").press("Enter")
    expect(ann.page.get_by_label("New chat")).to_be_focused()


def test_the_way_back_to_the_list_leads_to_the_chat(visit: Callable[[], Visitor]) -> None:
    ann = visit()
    width, height = SIZES["phone"]
    ann.page.set_viewport_size({"width": width, "height": height})
    ann.sign_up("Ann")
    ann.make_application("Ours")
    ann.open_new_chat("General")
    ann.page.get_by_role("button", name="Back to the list of chats").press("Enter")
    expect(ann.page.locator("#chats").get_by_role("button", name="General")).to_be_focused()


def test_the_last_older_messages_leave_the_focus_among_them(visit: Callable[[], Visitor], embedded: Service) -> None:
    ann = visit()
    with closing(Person(embedded.url)) as bob:
        in_a_chat_of(bob, ann, messages=60)
    ann.page.get_by_role("button", name="Older messages").press("Enter")
    expect(ann.page.locator("#messages li")).to_have_count(60)
    expect(ann.page.get_by_role("region", name="Messages")).to_be_focused()
