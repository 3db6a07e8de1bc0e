"""The console shows nobody what is another's: neither as their own message, nor an email, nor what was typed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.test_console import Visitor
from tests.conftest import Person, Service


@pytest.fixture
def visit(browser: Browser, embedded: Service) -> Iterator[Callable[[], Visitor]]:
    """Opens the console in a browser of its own."""
    contexts = []

    def open_console() -> Visitor:
        contexts.append(browser.new_context())
        return Visitor(contexts[-1], embedded.url)

    yield open_console
    for context in contexts:
        context.close()


def test_a_message_of_a_namesake_is_not_mine_and_emails_are_not_everybodys(
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
