"""What an operator sees over time: after a restart, and after the operator has left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Route, expect

from tests.browser.visitor import Visitor
from tests.conftest import Service


@pytest.fixture
def operator(browser: Browser, own_service: Service) -> Iterator[Visitor]:
    """An operator who looks at the page."""
    with browser.new_context() as context:
        visitor = Visitor(context, own_service.setup_link())
        visitor.fill("Operator")
        visitor.page.get_by_role("button", name="Create the account").click()
        visitor.page.get_by_role("button", name="Operator").click()
        expect(visitor.page.locator(".tile")).to_have_count(10)
        yield visitor
    assert not visitor.complaints


def test_no_rate_is_below_zero_after_a_restart(operator: Visitor) -> None:
    factors = iter([1000])

    def answer(route: Route) -> None:
        reading: dict[str, Any] = route.fetch().json()
        factor = next(factors, 1)
        for each in reading["requests"]:
            each["counts"] = [factor * count for count in each["counts"]]
        route.fulfill(body=json.dumps(reading))

    operator.page.route("**/operator", answer)
    rate = operator.page.locator("#routes tr", has_text="operatorState").locator("td").first
    rates = []
    for _ in range(4):
        with operator.page.expect_response("**/operator"):
            pass
        operator.page.wait_for_timeout(50)
        rates.append(rate.inner_text())
    assert not [each for each in rates if each.startswith("-")], rates
    operator.page.unroute_all(behavior="ignoreErrors")


def test_a_line_of_the_log_can_be_selected(operator: Visitor) -> None:
    def answer(route: Route) -> None:  # a busy machine would add lines about itself
        route.fulfill(body=json.dumps({**route.fetch().json(), "errors": ["the first", "the second"]}))

    operator.page.route("**/operator", answer)
    line = operator.page.locator("#errors li", has_text="the first")
    line.evaluate("each => getSelection().selectAllChildren(each)")
    text = line.inner_text()
    for _ in range(2):
        with operator.page.expect_response("**/operator"):
            pass
    operator.page.wait_for_timeout(50)
    assert operator.page.evaluate("getSelection().toString()") == text
    operator.page.unroute_all(behavior="ignoreErrors")


def test_the_page_fits_320_pixels(operator: Visitor) -> None:
    operator.page.set_viewport_size({"width": 320, "height": 640})
    assert operator.page.evaluate("document.documentElement.scrollWidth") == 320


def test_a_reload_stays_on_the_page(operator: Visitor) -> None:
    operator.page.reload()
    expect(operator.page.locator(".tile")).to_have_count(10)
    operator.page.go_back()
    expect(operator.page.locator("#chat")).to_be_visible()


def test_nothing_of_the_page_stays_when_the_operator_leaves(operator: Visitor) -> None:
    operator.page.get_by_role("button", name="Log out").click()
    operator.page.wait_for_timeout(1200)
    for part in ("#tiles", "#routes", "#errors", "#dead"):
        assert operator.page.locator(part).evaluate("each => each.children.length") == 0, part


def test_the_end_of_the_session_ends_the_page(operator: Visitor) -> None:
    operator.page.context.clear_cookies()
    expect(operator.page.get_by_role("heading", name="A chat backend")).to_be_visible()
    expect(operator.page.locator("#notice")).to_contain_text("Your session has ended.")
