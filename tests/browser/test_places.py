"""The address says where the reader is: reload, back and forward lead there."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.visitor import SIZES, Visitor


def with_two_applications(visitor: Visitor) -> None:
    visitor.sign_up("Ann")
    visitor.make_application("First")
    visitor.open_new_chat("One")
    visitor.page.get_by_text("New application, members").click()
    visitor.make_application("Second")
    visitor.open_new_chat("Two")
    visitor.open_new_chat("Three")


def is_at(page: Page, application: str, chat: str | None) -> None:
    expect(page.locator("#applications option:checked")).to_have_text(application)
    if chat is None:
        expect(page.locator("#thread")).to_be_hidden()
    else:
        expect(page.locator("#title")).to_have_text(chat)


def test_a_reload_stays_in_its_chat_and_back_and_forward_go_through_them(visit: Callable[[], Visitor]) -> None:
    ann = visit()
    with_two_applications(ann)
    is_at(ann.page, "Second", "Three")
    ann.page.reload()
    is_at(ann.page, "Second", "Three")
    ann.page.go_back()
    is_at(ann.page, "Second", "Two")
    ann.page.go_back()
    is_at(ann.page, "Second", None)
    ann.page.go_back()
    is_at(ann.page, "First", "One")
    ann.page.go_forward()
    ann.page.go_forward()
    is_at(ann.page, "Second", "Two")
    ann.page.get_by_role("link", name="Skip to the content").press("Enter")
    expect(ann.page.locator("#main")).to_be_focused()
    ann.page.reload()
    is_at(ann.page, "Second", "Two")


def test_on_a_phone_the_way_back_leads_to_the_list(visit: Callable[[], Visitor]) -> None:
    ann = visit()
    with_two_applications(ann)
    width, height = SIZES["phone"]
    ann.page.set_viewport_size({"width": width, "height": height})
    ann.page.get_by_role("button", name="Back to the list of chats").click()
    ann.page.get_by_role("button", name="Two").click()
    is_at(ann.page, "Second", "Two")
    ann.page.go_back()
    expect(ann.page.get_by_role("button", name="Two")).to_be_visible()
    is_at(ann.page, "Second", None)


def test_a_link_to_a_chat_waits_for_the_login_and_a_wrong_one_does_no_harm(visit: Callable[[], Visitor]) -> None:
    ann, bob = visit(), visit()
    with_two_applications(ann)
    link = ann.page.url
    bob.page.goto("about:blank")
    bob.page.goto(link)
    bob.sign_up("Bob")
    bob.make_application("Bob's")
    bob.open_new_chat("Four")
    is_at(bob.page, "Bob's", "Four")
    bob.page.goto(bob.page.url.rpartition("/")[0] + "/99")
    expect(bob.page.locator("#notice")).not_to_have_text("")
    ann.page.context.clear_cookies()
    ann.page.goto("about:blank")
    ann.page.goto(link)
    expect(ann.page.get_by_role("heading", name="A chat backend")).to_be_visible()
    assert ann.page.url == link
    bob.complaints.clear()  # the 404
