"""The console, as people use it: they sign up, write, see messages of others, search, and watch the service."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from hubbub.loadtest.cluster import ClusterStack
from tests.browser.visitor import SIZES, Visitor, look_at
from tests.conftest import Person, Service


@pytest.fixture
def visitors(browser: Browser, own_service: Service) -> Iterator[list[Visitor]]:
    contexts = [browser.new_context() for _ in range(2)]
    both = [Visitor(context, own_service.url) for context in contexts]
    yield both
    complaints = [complaint for visitor in both for complaint in visitor.complaints]
    for context in contexts:
        context.close()
    assert not complaints
    hosts = {re.match(r"https?://[^/]+", url)[0] for visitor in both for url in visitor.asked if url.startswith("http")}  # type: ignore[index]
    assert hosts == {own_service.url}, "nothing is loaded from another host"


def test_two_people_talk(visitors: list[Visitor]) -> None:
    ann, bob = visitors
    ann.sign_up("Ann")
    email = bob.sign_up("Bob")
    ann.make_application("Ours")
    ann.page.get_by_text("New application, members").click()
    ann.page.get_by_label("Invite by email").fill(email)
    ann.page.get_by_role("button", name="Invite").click()
    expect(ann.page.locator("#members")).to_contain_text("Bob")
    ann.open_new_chat("General")
    bob.page.reload()
    bob.page.get_by_role("button", name="General").click()
    ann.write("Hello Bob")
    expect(bob.page.locator("#messages")).to_contain_text("Hello Bob")
    bob.write("Hello Ann, how is the crème brûlée?")
    expect(ann.page.locator("#messages")).to_contain_text("crème brûlée")
    assert ann.messages == bob.messages == ["Hello Bob", "Hello Ann, how is the crème brûlée?"]
    ann.page.get_by_label("Message", exact=True).fill("two")
    ann.page.get_by_label("Message", exact=True).press("Shift+Enter")
    ann.page.keyboard.type("lines")
    ann.page.get_by_role("button", name="Send").click()
    expect(bob.page.locator("#messages li")).to_have_count(3)
    assert bob.messages[2] == "two\nlines"

    ann.page.get_by_role("searchbox").fill("BRULEE")
    expect(ann.page.locator("#messages li")).to_have_count(1)
    assert ann.messages == ["Hello Ann, how is the crème brûlée?"]
    ann.page.route("**/search?*", lambda route: route.fulfill(headers={"Hubbub-Truncated": "true"}, json=[]))
    ann.page.get_by_role("searchbox").fill("too much")
    expect(ann.page.locator("#messages")).to_contain_text("There may be more")
    ann.page.get_by_role("searchbox").fill("")
    expect(ann.page.locator("#messages li")).to_have_count(3)

    ann.page.get_by_role("button", name="Log out").click()
    expect(ann.page.get_by_role("heading", name="A chat backend")).to_be_visible()


def test_text_never_becomes_markup(visitors: list[Visitor]) -> None:
    ann, _ = visitors
    nasty = '<img src=x onerror="document.title=\'broken\'"><script>document.title="broken"</script>'
    ann.sign_up(nasty)
    ann.make_application(nasty)
    ann.open_new_chat(nasty)
    ann.write(nasty)
    expect(ann.page.locator("#messages li p")).to_have_text(nasty)
    assert ann.page.title() == "Hubbub"
    assert ann.page.locator("img").count() == 0


def test_a_dead_service_is_named_and_the_text_is_kept(visitors: list[Visitor], own_service: Service) -> None:
    ann, _ = visitors
    ann.sign_up("Ann")
    ann.make_application("Ours")
    ann.open_new_chat("General")
    ann.write("before")
    expect(ann.page.locator("#messages li")).to_have_count(1)
    own_service.kill()
    ann.write("during")
    expect(ann.page.locator("#notice")).to_contain_text("can't be reached", timeout=15_000)
    expect(ann.page.get_by_label("Message", exact=True)).to_have_value("during")
    ann.complaints.clear()  # the refused connections


def test_the_operators_page_follows_the_load(browser: Browser, own_service: Service) -> None:
    context = browser.new_context()
    visitor = Visitor(context, own_service.setup_link())
    visitor.fill("Operator")
    visitor.page.get_by_role("button", name="Create the account").click()
    visitor.page.get_by_role("button", name="Operator").click()
    ann = Person(own_service.url)
    chat = ann.chat()
    assert ann.get("/operator").status_code == 403
    tile = visitor.page.locator(".tile", has_text="Messages a second").locator("dd")
    for _ in range(200):
        ann.post(f"{chat}/messages", json={"body": "x"})
        if float(tile.inner_text().replace("–", "0").split()[0]) > 0:
            break
        visitor.page.wait_for_timeout(20)
    assert float(tile.inner_text().split()[0]) > 0
    expect(visitor.page.locator(".tile", has_text="Memory").locator("dd")).to_contain_text("MB")
    expect(visitor.page.locator("#routes")).to_contain_text("postMessage")
    ann.close()
    context.close()
    assert not visitor.complaints


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_no_serious_findings_at_any_size(
    browser: Browser, own_service: Service, size: str, scheme: str, screenshots: Path | None
) -> None:
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    visitor = Visitor(context, own_service.url)

    def look(name: str) -> None:
        look_at(visitor.page, f"{name}-{size}-{scheme}", screenshots)

    look("landing")
    visitor.page.goto(own_service.setup_link())
    visitor.fill("Ann Example")
    visitor.page.get_by_role("button", name="Create the account").click()
    expect(visitor.page.get_by_role("button", name="Log out")).to_be_visible()
    visitor.make_application("Our application")
    visitor.open_new_chat("General")
    for text in (
        "Hello everybody",
        "A longer message that goes on for a while, so that it takes some lines on a phone.",
    ):
        visitor.write(text)
        expect(visitor.page.locator("#messages")).to_contain_text(text)
    look("chat")
    visitor.page.get_by_role("button", name="Operator").click()
    expect(visitor.page.locator(".tile")).to_have_count(10)
    visitor.page.wait_for_timeout(1200)
    look("operator")
    context.close()


def test_the_api_reference_loads_nothing_from_other_hosts(browser: Browser, own_service: Service) -> None:
    context = browser.new_context()
    visitor = Visitor(context, own_service.url + "/docs")
    expect(visitor.page.get_by_text("Send a message").first).to_be_visible(timeout=15_000)
    assert all(url.startswith((own_service.url, "data:")) for url in visitor.asked)
    found = Axe().run(visitor.page).response["violations"]
    # Swagger UI itself nests buttons, skips a level of headings, and has parts outside of its main one.
    assert {each["id"] for each in found} <= {"nested-interactive", "heading-order", "region"}
    context.close()
    assert not visitor.complaints


def test_static_files_may_be_cached_for_ever_and_pages_may_not(own_service: Service) -> None:
    page = httpx.get(own_service.url + "/")
    assert page.headers["cache-control"] == "no-cache"
    assert "script-src 'self'" in page.headers["content-security-policy"]
    names = re.findall(r'"(/static/[^"]+)"', page.text)
    assert len(names) == 7
    for name in names:
        file = httpx.get(own_service.url + name)
        assert re.search(r"\.[0-9a-f]{12}\.(js|css)$", name)
        assert file.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert httpx.get(own_service.url + "/static/console.js").status_code == 404
    assert httpx.get(own_service.url + "/static/..%2f__init__.py").status_code == 404


def test_messages_of_another_process_arrive(browser: Browser, cluster: ClusterStack) -> None:
    context = browser.new_context()
    visitor = Visitor(context, cluster.apis[0].url)
    email = visitor.sign_up("Ann")
    bob = Person(cluster.apis[1].url)
    token = bob.application()
    bob.post(f"/applications/{token}/members", json={"email": email, "role": "member"})
    chat = bob.post(f"/applications/{token}/chats", json={"title": "Shared"}).json()["chatNumber"]
    visitor.page.reload()
    visitor.page.get_by_role("button", name="Shared").click()
    expect(visitor.page.get_by_role("heading", name="Shared")).to_be_visible()
    bob.post(f"/applications/{token}/chats/{chat}/messages", json={"body": "From the other process"})
    expect(visitor.page.locator("#messages")).to_contain_text("From the other process")
    bob.close()
    context.close()
    assert not visitor.complaints
