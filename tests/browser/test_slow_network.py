"""On a slow network, what is shown belongs together, and what was pressed twice happens once."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, Route, expect

from tests.browser.visitor import Visitor, take


def hold(page: Page, path: str, method: str = "GET") -> list[Route]:
    """Hold such requests from now on, until the test lets them continue."""
    held: list[Route] = []
    take(page, re.compile(path + "$"), method, held.append)
    return held


def with_two_chats(visitor: Visitor) -> None:
    visitor.sign_up("Ann")
    visitor.make_application("Ours")
    for title in ("One", "Two"):
        visitor.open_new_chat(title)
        visitor.write(f"in {title}")
        expect(visitor.page.locator("#messages li p")).to_have_text([f"in {title}"])


def test_no_chat_shows_anothers_messages_while_it_loads(visit: Callable[[], Visitor]) -> None:
    ann = visit()
    with_two_chats(ann)
    held = hold(ann.page, r"chats/1/messages\?limit=50")
    with ann.page.expect_request("**/chats/1/messages?limit=50"):
        ann.page.get_by_role("button", name="One").click()
    expect(ann.page.get_by_role("heading", name="One")).to_be_visible()
    expect(ann.page.get_by_label("Message", exact=True)).to_be_focused()
    assert ann.messages == []
    ann.page.get_by_role("searchbox").focus()
    held[0].continue_()
    expect(ann.page.locator("#messages li p")).to_have_text(["in One"])
    expect(ann.page.get_by_role("searchbox")).to_be_focused()


def test_no_application_shows_anothers_chats_while_it_loads(visit: Callable[[], Visitor]) -> None:
    ann = visit()
    with_two_chats(ann)
    ann.page.get_by_text("New application, members").click()
    ann.make_application("Other")
    expect(ann.page.locator("#chats button")).to_have_count(0)
    ann.page.get_by_label("Application", exact=True).select_option("Ours")
    expect(ann.page.locator("#chats button")).to_have_count(2)
    held = hold(ann.page, r"chats\?.*")
    ann.page.get_by_label("Application", exact=True).select_option("Other")
    expect(ann.page.locator("#chats button")).to_have_count(0)
    for route in held:
        route.continue_()


def test_a_late_list_does_not_replace_what_a_search_found(visit: Callable[[], Visitor]) -> None:
    ann = visit()
    with_two_chats(ann)
    ann.write("another")
    search = ann.page.get_by_role("searchbox")
    search.fill("another")
    expect(ann.page.locator("#messages li")).to_have_count(1)
    held = hold(ann.page, r"messages\?limit=50")
    with ann.page.expect_request("**/messages?limit=50"):
        search.fill("")
    with ann.page.expect_response("**/search?*"):
        search.fill("another")
    expect(ann.page.locator("#messages li p")).to_have_text(["another"])
    with ann.page.expect_response("**/messages?limit=50"):
        held[0].continue_()
    ann.page.wait_for_timeout(100)
    assert ann.messages == ["another"]
    ann.page.unroute_all()
    ann.write("written while searching")
    expect(ann.page.locator("#messages li p")).to_have_text(["in Two", "another", "written while searching"])
    expect(search).to_have_value("")


def test_a_double_click_makes_one(visit: Callable[[], Visitor]) -> None:
    ann = visit()
    ann.fill("Ann")
    held = hold(ann.page, "auth/register", "POST")
    with ann.page.expect_request("**/auth/register"):
        ann.page.get_by_role("button", name="Sign up").dblclick()
    ann.page.wait_for_timeout(100)
    assert len(held) == 1
    held[0].continue_()
    expect(ann.page.get_by_role("button", name="Log out")).to_be_visible()
    held = hold(ann.page, "applications", "POST")
    ann.page.get_by_label("New application").fill("Ours")
    with ann.page.expect_request("**/applications"):
        ann.page.get_by_role("button", name="Create").dblclick()
    ann.page.wait_for_timeout(100)
    assert len(held) == 1
    held[0].continue_()
    expect(ann.page.get_by_label("Application", exact=True)).to_have_value(re.compile(".{10}"))


def test_a_list_that_fails_after_the_login_is_told(visit: Callable[[], Visitor]) -> None:
    ann = visit()
    ann.page.route("**/applications?*", lambda route: route.fulfill(status=503, json={"error": "It is busy."}))
    ann.sign_up("Ann")
    expect(ann.page.locator("#notice")).to_have_text("It is busy.")
    ann.page.reload()
    expect(ann.page.locator("#notice")).to_have_text("It is busy.")
    ann.complaints.clear()  # the 503


def test_who_goes_back_while_a_chat_loads_after_a_reload_gets_there(visit: Callable[[], Visitor]) -> None:
    ann = visit()
    with_two_chats(ann)
    loading = hold(ann.page, r"chats/2/messages\?limit=50")
    ann.page.reload()
    expect(ann.page.locator("#title")).to_have_text("Two")
    going = hold(ann.page, r"chats/1")
    with ann.page.expect_request(re.compile("chats/1$")):
        ann.page.go_back()
    loading[0].continue_()
    expect(ann.page.locator("#messages li p")).to_have_text(["in Two"])
    going[0].continue_()
    expect(ann.page.locator("#messages li p")).to_have_text(["in One"])
