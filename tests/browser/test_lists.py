"""Every application and chat can be reached, however many there are, and an empty list says what to do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta

import httpx
from playwright.sync_api import Route, expect

from tests.browser.visitor import SIZES, Visitor
from tests.conftest import Person, Service


def test_chats_after_the_first_hundred_are_reached(visit: Callable[[], Visitor], embedded: Service) -> None:
    ann = visit()
    with closing(Person(embedded.url)) as bob:
        token = bob.application()
        bob.post(f"/applications/{token}/members", json={"email": ann.sign_up("Ann"), "role": "member"})
        for _ in range(103):
            chat = bob.chat(token)
        ann.page.reload()
        expect(ann.page.locator("#chats button")).to_have_count(100)
        ann.page.get_by_role("button", name="More chats").press("Enter")
        expect(ann.page.locator("#chats button")).to_have_count(103)
        expect(ann.page.get_by_role("button", name="More chats")).to_be_hidden()
        expect(ann.page.get_by_role("button", name="Chat 3", exact=False).last).to_be_focused()
        ann.page.get_by_role("button", name="Chat 103").click()
        bob.post(f"{chat}/messages", json={"body": "Hello"})
        expect(ann.page.get_by_role("button", name="Chat 103")).to_contain_text("1", timeout=15_000)
        expect(ann.page.locator("#chats button")).to_have_count(103)


def test_applications_after_the_first_hundred_are_listed(visit: Callable[[], Visitor]) -> None:
    ann = visit()
    ann.sign_up("Ann")

    def answer(route: Route) -> None:
        page = int(httpx.URL(route.request.url).params["page"])
        numbers = range(100) if page == 1 else range(100, 103)
        route.fulfill(json=[{"token": f"token{each}", "name": f"App {each}", "chatsCount": 0} for each in numbers])

    ann.page.route("**/applications?*", answer)
    ann.page.reload()
    expect(ann.page.locator("#applications option")).to_have_count(103)
    ann.complaints.clear()  # their chats are not there


def test_an_empty_list_says_what_to_do(visit: Callable[[], Visitor]) -> None:
    ann = visit()
    for width, height in SIZES.values():
        ann.page.set_viewport_size({"width": width, "height": height})
        if width == SIZES["phone"][0]:
            ann.sign_up("Ann")
        expect(ann.page.get_by_text("Create an application; its chats are listed here.")).to_be_visible()
        expect(ann.page.get_by_text("Choose a chat, or open a new one.")).to_be_hidden()
    ann.make_application("Ours")
    expect(ann.page.get_by_text("None yet. Open the first one.")).to_be_visible()
    ann.open_new_chat("General")
    expect(ann.page.get_by_text("None yet. Open the first one.")).to_be_hidden()


def test_the_time_of_another_day_has_its_date(visit: Callable[[], Visitor]) -> None:
    ann = visit()
    ann.sign_up("Ann")
    ann.make_application("Ours")
    ann.open_new_chat("General")
    ann.write("Hello")
    time = ann.page.locator("#messages time")
    year = str(datetime.now(UTC).year)
    expect(time).not_to_contain_text(year)
    ann.page.clock.set_fixed_time(datetime.now(UTC) + timedelta(days=2))
    ann.page.reload()
    expect(time).to_contain_text(year)
