"""A session may end at any time, and all tabs share it: each tab shows who is logged in, and no work is lost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from playwright.sync_api import Page, Route, expect

from tests.browser.visitor import Visitor, take
from tests.conftest import Person, Service

ENDED = "Your session has ended."
_PASSWORD = "a good password"


def in_a_chat(visitor: Visitor) -> str:
    email = visitor.sign_up("Ann")
    visitor.make_application("Ours")
    visitor.open_new_chat("General")
    return email


def log_in(page: Page, email: str, password: str = _PASSWORD) -> None:
    page.get_by_label("Log in").check()
    page.get_by_label("Email", exact=True).locator("visible=true").fill(email)
    page.get_by_label("Password", exact=True).locator("visible=true").fill(password)
    page.locator("#enter button").click()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()


def end_session(visitor: Visitor) -> None:
    cookies = {each["name"]: each["value"] for each in visitor.page.context.cookies()}
    visitor.page.context.request.delete(
        f"{visitor.page.url.partition('#')[0]}api/v1/auth/logout",
        headers={"Cookie": f"auth_token={cookies['auth_token']}"},
    )


def log_out_in_another_tab(visitor: Visitor) -> Page:
    other = visitor.page.context.new_page()
    other.goto(visitor.page.url.partition("#")[0])
    other.get_by_role("button", name="Log out").click()
    return other


def become_bob_in_another_tab(visitor: Visitor, service: Service) -> None:
    other = log_out_in_another_tab(visitor)
    with closing(Person(service.url, "Bob")) as bob:
        log_in(other, bob.email, "correct horse")
    expect(visitor.page.locator("#who")).to_have_text("Bob")


def test_a_logout_in_another_tab_is_seen_in_all(visit: Callable[[], Visitor]) -> None:
    ann = visit()
    in_a_chat(ann)
    ann.page.get_by_label("Message", exact=True).fill("a secret")
    log_out_in_another_tab(ann)
    expect(ann.page.get_by_role("heading", name="A chat backend")).to_be_visible()
    expect(ann.page.locator("#notice")).to_have_text("You have logged out in another tab.")
    expect(ann.page.locator("#main")).to_be_focused()
    assert ann.page.locator("#main").evaluate("each => getComputedStyle(each).outlineStyle") == "none"
    assert "#" not in ann.page.url


def test_a_tab_follows_another_users_login(visit: Callable[[], Visitor], embedded: Service) -> None:
    ann = visit()
    in_a_chat(ann)
    become_bob_in_another_tab(ann, embedded)
    expect(ann.page.locator("#notice")).to_have_text("")
    expect(ann.page.locator("#chats button")).to_have_count(0)


def test_what_was_typed_when_the_session_ended_is_there_for_the_same_user_alone(
    visit: Callable[[], Visitor], embedded: Service
) -> None:
    ann = visit()
    email = in_a_chat(ann)
    text = ann.page.get_by_label("Message", exact=True)
    for typed in ("a draft", "a secret"):
        text.fill(typed)
        end_session(ann)
        if typed == "a secret":
            text.press("Enter")
        expect(ann.page.locator("#notice")).to_contain_text(ENDED)
        expect(ann.page.get_by_label("Email", exact=True).locator("visible=true")).to_be_focused()
        assert typed not in ann.page.evaluate("document.body.innerHTML + document.querySelector('#body').value")
        log_in(ann.page, email)
        expect(ann.page.get_by_role("heading", name="General")).to_be_visible()
        expect(text).to_have_value(typed)
    end_session(ann)
    expect(ann.page.locator("#notice")).to_contain_text(ENDED)
    with closing(Person(embedded.url)) as bob:
        log_in(ann.page, bob.email, "correct horse")
    ann.page.get_by_role("button", name="Log out").click()
    log_in(ann.page, email)
    ann.page.get_by_role("button", name="General").click()
    expect(text).to_have_value("")


def test_what_waits_behind_a_slow_message_is_never_sent_by_the_next_user(
    visit: Callable[[], Visitor], embedded: Service
) -> None:
    ann, held = visit(), list[Route]()

    def hold(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    with closing(Person(embedded.url, "Bob")) as bob:
        token, email = bob.application(), ann.sign_up("Ann")
        bob.post(f"/applications/{token}/members", json={"email": email, "role": "member"})
        bob.post(f"/applications/{token}/chats", json={"title": "General"})
        ann.page.reload()
        general = ann.page.get_by_role("button", name="General")
        general.click()
        take(ann.page, "**/messages", "POST", hold)
        with ann.page.expect_request("**/messages"):
            ann.write("one")
        ann.write("two")
        end_session(ann)
        general.click()
        expect(ann.page.locator("#notice")).to_contain_text(ENDED)
        log_in(ann.page, bob.email, "correct horse")
        general.click()
        with ann.page.expect_response("**/messages"):
            held[0].fulfill(json={"messageNumber": 1})
        with ann.page.expect_response("**/messages"):
            ann.write("three")
        ann.page.wait_for_timeout(300)
        assert [each["body"] for each in bob.get(f"/applications/{token}/chats/1/messages").json()] == ["three"]


def test_a_list_that_comes_late_is_not_shown_to_the_next_user(visit: Callable[[], Visitor], embedded: Service) -> None:
    ann, held = visit(), list[Route]()
    in_a_chat(ann)
    ann.page.route("**/applications?*", lambda route: held.append(route), times=1)
    with ann.page.expect_request("**/applications?*"):
        ann.page.reload()
    become_bob_in_another_tab(ann, embedded)
    expect(ann.page.locator("#no-chats")).to_contain_text("Create an application")
    with ann.page.expect_response("**/applications?*"):
        held[0].fulfill(json=[{"token": "t" * 22, "name": "Ours", "chatsCount": 1}])
    ann.page.wait_for_timeout(300)
    expect(ann.page.locator("#applications option")).to_have_count(0)


def test_every_click_after_the_end_of_the_session_says_so(visit: Callable[[], Visitor]) -> None:
    ann = visit()
    in_a_chat(ann)
    ann.page.reload()
    ann.page.get_by_role("button", name="Back to the list of chats", include_hidden=True).evaluate(
        "each => each.click()"
    )
    end_session(ann)
    ann.page.get_by_role("button", name="General").click()
    expect(ann.page.locator("#notice")).to_contain_text(ENDED)
    expect(ann.page.get_by_label("Log in")).to_be_checked()


def test_the_form_fits_the_choice_that_the_browser_restores(visit: Callable[[], Visitor]) -> None:
    ann = visit()
    password = ann.page.get_by_label("Password", exact=True).locator("visible=true")
    expect(password).to_have_attribute("autocomplete", "new-password")
    ann.page.get_by_label("Log in").check()
    expect(password).to_have_attribute("autocomplete", "current-password")
    ann.page.get_by_role("link", name="API").first.click()
    ann.page.wait_for_url("**/docs")
    ann.page.go_back()
    login = ann.page.get_by_label("Log in").is_checked()
    expect(ann.page.locator("#name-field")).to_be_visible(visible=not login)
    expect(ann.page.locator("#enter button")).to_have_text("Log in" if login else "Sign up")
