"""Text of any length and script stays in its box, and reads in its own direction."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from typing import Literal

import pytest
from playwright.sync_api import expect

from tests.browser.visitor import SIZES, Visitor, in_a_chat_of
from tests.conftest import Person, Service

# The elements that are cut off by the edge of a box, or reach over it.
_OVER = """() => [...document.querySelectorAll('#chats small, #chats span, #messages time, #messages b, #messages p')]
    .filter((each) => each.checkVisibility()
        && each.getBoundingClientRect().right > each.closest('li').getBoundingClientRect().right)
    .map((each) => each.tagName + ' ' + each.textContent.slice(0, 20))"""


@pytest.mark.parametrize("size", SIZES)
def test_long_words_stay_in_their_box(visit: Callable[[], Visitor], size: str) -> None:
    ann = visit()
    width, height = SIZES[size]
    ann.page.set_viewport_size({"width": width, "height": height})
    ann.sign_up("W" * 255)
    ann.make_application("A" * 255)
    ann.open_new_chat("X" * 255)
    ann.write("Y" * 3000)
    expect(ann.page.locator("#messages li")).to_have_count(1)
    assert ann.page.evaluate(_OVER) == []
    if size == "phone":
        ann.page.get_by_role("button", name="Back to the list of chats").click()
    expect(ann.page.locator("#chats small")).to_have_text("1")
    assert ann.page.evaluate(_OVER) == []


def test_text_reads_in_its_own_direction(visit: Callable[[], Visitor], embedded: Service) -> None:
    ann, layla = visit(), Person(embedded.url, "ليلى!")
    email = ann.sign_up("Ann")
    token = layla.application()
    layla.post(f"/applications/{token}/members", json={"email": email, "role": "member"})
    chat = layla.post(f"/applications/{token}/chats", json={"title": "محادثة (1)!"}).json()["chatNumber"]
    for body in ("مرحبا (5)!", "Hello!"):
        layla.post(f"/applications/{token}/chats/{chat}/messages", json={"body": body})
    ann.page.reload()
    ann.page.locator("#chats button").click()
    expect(ann.page.locator("#messages li")).to_have_count(2)
    ann.page.get_by_label("Message", exact=True).fill("مرحبا")

    def direction(selector: str) -> str:
        found = ann.page.locator(selector).first.evaluate("each => getComputedStyle(each).direction")
        assert isinstance(found, str)
        return found

    for selector in ("#messages p", "#messages b", "#title", "#chats span", "#body", "#members bdi"):
        assert direction(selector) == "rtl", selector
    assert direction("#messages li:last-child p") == "ltr"
    layla.close()


def test_the_last_message_stays_in_sight(visit: Callable[[], Visitor], embedded: Service) -> None:
    ann = visit()
    ann.page.set_viewport_size({"width": 390, "height": 844})
    with closing(Person(embedded.url)) as bob:
        chat = in_a_chat_of(bob, ann, messages=40)
        last = ann.page.locator("#messages li").last
        expect(last).to_be_in_viewport(ratio=1)
        ann.page.set_viewport_size({"width": 390, "height": 450})  # a keyboard is shown
        expect(last).to_be_in_viewport(ratio=1)
        ann.page.locator("#scroll").evaluate("each => { each.scrollTop = 0 }")
        bob.post(f"{chat}/messages", json={"body": "from Bob"})
        expect(ann.page.locator("#messages li")).to_have_count(41)
        expect(ann.page.locator("#messages li").first).to_be_in_viewport()
        ann.write("from Ann")
        expect(ann.page.get_by_text("from Ann")).to_be_in_viewport()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_words_in_an_empty_field_can_be_read(
    visit: Callable[[], Visitor], scheme: Literal["light", "dark"]
) -> None:
    ann = visit()
    ann.page.emulate_media(color_scheme=scheme)
    ann.sign_up("Ann")
    ann.make_application("Ours")
    ann.open_new_chat("General")
    for selector in ("#body", "#q"):
        colours: list[str] = ann.page.locator(selector).evaluate(
            "each => [getComputedStyle(each, '::placeholder').color, getComputedStyle(each).backgroundColor]"
        )
        darker, lighter = sorted(map(_luminance, colours))
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, selector


def _luminance(colour: str) -> float:
    """The relative luminance (WCAG 2.2) of rgb(R, G, B)."""
    parts = [int(each) / 255 for each in re.findall(r"\d+", colour)]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
