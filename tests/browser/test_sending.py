"""A message that someone writes is sent once, in its turn, and never lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Dialog, Route, expect

from tests.browser.visitor import Visitor, take
from tests.conftest import Service


@pytest.fixture
def ann(visit: Callable[[], Visitor]) -> Visitor:
    """A visitor in a chat."""
    visitor = visit()
    visitor.sign_up("Ann")
    visitor.make_application("Ours")
    visitor.open_new_chat("General")
    return visitor


class Posts:
    """Answers the first posts of messages with ``answers``, a status each (0 breaks the connection), and lets the
    service answer the others. If ``stored``, the service gets the first ones too, and its answers are dropped."""

    def __init__(self, visitor: Visitor, *answers: int, stored: bool = False) -> None:
        self.answers, self._stored = list(answers), stored
        self.count = 0  # of all posts
        take(visitor.page, "**/messages", "POST", self._take)

    def _take(self, route: Route) -> None:
        self.count += 1
        if not self.answers:
            route.continue_()
            return
        if self._stored:
            assert route.fetch().status == 200
        status = self.answers.pop(0)
        if status == 0:
            route.abort()
        else:
            route.fulfill(status=status, content_type="text/html", body="<h1>An error of a proxy</h1>")


def shown(visitor: Visitor, *messages: str, within_s: int = 5) -> None:
    expect(visitor.page.locator("#messages li p")).to_have_text(list(messages), timeout=1000 * within_s)


def test_a_proxys_error_while_the_service_restarts_is_tried_again(ann: Visitor) -> None:
    posts = Posts(ann, 502, 504)
    ann.write("Hello")
    shown(ann, "Hello")
    assert posts.count == 3
    expect(ann.page.locator("#notice")).to_have_text("")
    ann.complaints.clear()  # the 502 and the 504


def test_a_page_of_a_proxy_is_never_shown_as_a_fault_of_syntax(ann: Visitor) -> None:
    Posts(ann, 500)
    ann.write("Hello")
    expect(ann.page.locator("#notice")).to_have_text(
        "Hubbub can't be reached: something before it answered with status 500. Try again."
    )
    ann.complaints.clear()


def test_the_sentences_of_a_refusal_are_told_as_they_are(ann: Visitor) -> None:
    errors = ["One is wrong.", "Two is too long."]
    ann.page.route("**/chats", lambda route: route.fulfill(status=422, json={"errors": errors}))
    ann.page.get_by_label("New chat").fill("x")
    ann.page.get_by_role("button", name="Open").click()
    expect(ann.page.locator("#notice")).to_have_text("One is wrong. Two is too long.")
    ann.complaints.clear()


def test_a_text_that_came_back_and_was_stored_is_not_there_twice(ann: Visitor) -> None:
    Posts(ann, *[0] * 5, stored=True)
    ann.write("Hello")
    text = ann.page.get_by_label("Message", exact=True)
    expect(text).to_have_value("Hello", timeout=15_000)
    shown(ann, "Hello")
    text.press("End")
    text.press("Shift+Enter")
    ann.page.keyboard.type("How are you?")
    text.press("Enter")
    shown(ann, "Hello", "How are you?")
    text.fill("Hello")  # written anew, so it is another message
    text.press("Enter")
    shown(ann, "Hello", "How are you?", "Hello")
    ann.complaints.clear()


def test_messages_keep_their_order_when_the_first_is_tried_again(ann: Visitor) -> None:
    Posts(ann, 0, 0)
    ann.write("first")
    ann.write("second")
    shown(ann, "first", "second")
    Posts(ann, *[0] * 5)
    ann.write("third")
    ann.write("fourth")
    expect(ann.page.get_by_label("Message", exact=True)).to_have_value("third\nfourth", timeout=15_000)
    ann.complaints.clear()


def test_a_slow_send_is_said_and_a_reload_asks_first(ann: Visitor) -> None:
    held: list[Route] = []
    take(ann.page, "**/messages", "POST", held.append)
    asked: list[str] = []

    def answer(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    ann.page.on("dialog", answer)
    ann.write("Hello")
    expect(ann.page.get_by_text("Sending…")).to_be_visible()
    with ann.page.expect_event("dialog"):
        ann.page.evaluate("setTimeout(() => location.reload())")
    assert asked == ["beforeunload"]
    held[0].continue_()
    shown(ann, "Hello")
    expect(ann.page.get_by_text("Sending…")).to_be_hidden()
    ann.page.get_by_label("Message", exact=True).fill("a draft")
    with ann.page.expect_event("dialog"):
        ann.page.evaluate("setTimeout(() => location.reload())")
    assert asked == ["beforeunload"] * 2
    expect(ann.page.get_by_label("Message", exact=True)).to_have_value("a draft")
    ann.page.get_by_label("Message", exact=True).fill("")


def test_a_pasted_text_is_never_cut_off(ann: Visitor) -> None:
    text = ann.page.get_by_label("Message", exact=True)
    text.focus()
    ann.page.keyboard.insert_text("y" * 10_001)
    text.press("Enter")
    expect(ann.page.locator("#notice")).to_contain_text("10,000 characters at most, and this has 10,001")
    expect(text).to_have_value("y" * 10_001)
    text.fill("😀" * 10_000)
    text.press("Enter")
    shown(ann, "😀" * 10_000)


@pytest.fixture
def patient(browser: Browser, own_service: Service) -> Iterator[Visitor]:
    """A visitor in a chat of a service that the test may end."""
    own_service.stop()
    own_service.port = int(own_service.url.rpartition(":")[2])
    own_service.start()
    with browser.new_context() as context:
        visitor = Visitor(context, own_service.url)
        visitor.sign_up("Ann")
        visitor.make_application("Ours")
        visitor.open_new_chat("General")
        yield visitor


def test_what_is_written_while_the_service_restarts_is_there_once(patient: Visitor, own_service: Service) -> None:
    patient.write("before")
    shown(patient, "before")
    # A slow machine starts the service in more seconds than the page would go on trying.
    patient.page.evaluate(
        "{ const real = setTimeout; setTimeout = (work, ms, ...rest) => real(work, 4 * ms, ...rest) }"
    )
    own_service.kill()
    for number in range(3):
        patient.write(f"during {number}")
    own_service.start()
    shown(patient, "before", "during 0", "during 1", "during 2", within_s=20)
    expect(patient.page.get_by_label("Message", exact=True)).to_have_value("")
