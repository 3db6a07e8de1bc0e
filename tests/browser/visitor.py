"""A person who uses the console, and what is checked of each page."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Locator, Page, Route, expect

from tests.conftest import Person

_numbers = itertools.count(1)
SIZES = {"phone": (390, 844), "desktop": (1440, 900)}


class Visitor:
    """A person with their own browser. ``complaints`` are the errors in the page's console."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)

    def _note(self, kind: str, text: str) -> None:
        if kind == "error" and "401" not in text:  # the page asks who is logged in, and a visitor gets a 401
            self.complaints.append(text)

    def field(self, label: str) -> Locator:
        """Return a field of the form that is shown; a page may have hidden ones."""
        return self.page.get_by_label(label, exact=True).locator("visible=true")

    def fill(self, name: str) -> str:
        """Fill a new account into the form that is shown, and return its email."""
        email = f"visitor{next(_numbers)}.{id(self)}@example.com"
        self.field("Name").fill(name)
        self.field("Email").fill(email)
        self.field("Password").fill("a good password")
        return email

    def sign_up(self, name: str) -> str:
        email = self.fill(name)
        self.page.get_by_role("button", name="Sign up").click()
        expect(self.page.get_by_role("button", name="Log out")).to_be_visible()
        return email

    def make_application(self, name: str) -> None:
        self.page.get_by_label("New application").fill(name)
        self.page.get_by_role("button", name="Create").click()
        expect(self.page.get_by_label("Application", exact=True)).to_have_value(re.compile(".{10}"))

    def open_new_chat(self, title: str) -> None:
        self.page.get_by_label("New chat").fill(title)
        self.page.get_by_role("button", name="Open").click()
        expect(self.page.get_by_role("heading", name=title)).to_be_visible()

    def write(self, text: str) -> None:
        self.page.get_by_label("Message", exact=True).fill(text)
        self.page.get_by_label("Message", exact=True).press("Enter")

    @property
    def messages(self) -> list[str]:
        return self.page.locator("#messages li p").all_inner_texts()


def in_a_chat_of(owner: Person, visitor: Visitor, messages: int) -> str:
    """Sign up as Ann, a member of the owner's application, open its chat with so many messages, and return the path."""
    token = owner.application()
    owner.post(f"/applications/{token}/members", json={"email": visitor.sign_up("Ann"), "role": "member"})
    chat = owner.chat(token)
    for number in range(messages):
        owner.post(f"{chat}/messages", json={"body": str(number)})
    visitor.page.reload()
    visitor.page.get_by_role("button", name="Chat 1").click()
    return chat


def take(page: Page, path: str | re.Pattern[str], method: str, work: Callable[[Route], object]) -> None:
    """Let ``work`` answer such requests from now on; those of other methods go on."""
    page.route(path, lambda route: work(route) if route.request.method == method else route.fallback())


def look_at(page: Page, name: str, screenshots: Path | None) -> None:
    """Check that axe has no serious finding, and that the page is not wider than the screen."""
    page.wait_for_timeout(100)
    if screenshots is not None:
        page.screenshot(path=screenshots / f"{name}.png")
    found = Axe().run(page).response["violations"]
    serious = [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")]
    assert not serious, name
    assert page.viewport_size is not None
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"], f"{name} is wider than the screen"
