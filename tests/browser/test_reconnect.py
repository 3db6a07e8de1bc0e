"""The console after a pause of its connection: nothing old is shown as if it were new."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from playwright.sync_api import APIResponse, Browser, Route, expect

from tests.browser.visitor import Visitor
from tests.conftest import Person, Service

LOST = "The connection is lost."


class Chat:
    """A chat of Bob's that the visitor has open."""

    def __init__(self, visitor: Visitor, bob: Person) -> None:
        self.bob = bob
        self._token = bob.application()
        self._email = visitor.sign_up("Ann")
        bob.post(f"/applications/{self._token}/members", json={"email": self._email, "role": "member"})
        made = bob.post(f"/applications/{self._token}/chats", json={"title": "General"})
        self.messages = f"/applications/{self._token}/chats/{made.json()['chatNumber']}/messages"
        for body in ("one", "two"):
            self.write(body)
        visitor.page.reload()
        visitor.page.get_by_role("button", name="General").click()
        self._shown = visitor.page.locator("#messages li p")
        self.shows("one", "two")

    def write(self, body: str) -> None:
        assert self.bob.post(self.messages, json={"body": body}).status_code == 200

    def shows(self, *bodies: str) -> None:
        expect(self._shown).to_have_text(list(bodies), timeout=15_000)

    def remove_member(self) -> None:
        path = f"/applications/{self._token}/members"
        assert self.bob.request("DELETE", path, json={"email": self._email}).status_code == 204


@pytest.fixture
def chat(visit: Callable[[], Visitor], embedded: Service) -> Iterator[tuple[Visitor, Chat]]:
    visitor = visit()
    with closing(Person(embedded.url, "Bob")) as bob:
        yield visitor, Chat(visitor, bob)


def test_what_was_edited_and_deleted_while_the_service_was_away_is_shown(
    browser: Browser, own_service: Service
) -> None:
    own_service.stop()
    own_service.port = int(own_service.url.rpartition(":")[2])
    own_service.start()
    with browser.new_context() as context, closing(Person(own_service.url, "Bob")) as bob:
        ann = Visitor(context, own_service.url)
        chat = Chat(ann, bob)
        context.set_offline(True)
        own_service.stop()
        expect(ann.page.locator("#notice")).to_contain_text(LOST, timeout=10_000)
        own_service.start()
        assert bob.patch(f"{chat.messages}/1", json={"body": "one, edited"}).status_code == 200
        assert bob.delete(f"{chat.messages}/2").status_code == 204
        chat.write("three")
        context.set_offline(False)
        chat.shows("one, edited", "three")
        expect(ann.page.locator("#notice")).to_have_text("")


def test_a_change_that_comes_while_the_rest_is_read_again_is_not_undone(chat: tuple[Visitor, Chat]) -> None:
    ann, its = chat
    read: list[tuple[Route, APIResponse]] = []
    ann.page.route("**/messages?limit=100", lambda route: read.append((route, route.fetch())))
    ann.page.evaluate("void reread()")
    while not read:
        ann.page.wait_for_timeout(20)
    assert its.bob.patch(f"{its.messages}/1", json={"body": "one, edited"}).status_code == 200
    its.shows("one, edited", "two")
    ((route, answer),) = read
    with ann.page.expect_response("**/messages?limit=100"):
        route.fulfill(response=answer)
    ann.page.wait_for_timeout(300)
    its.shows("one, edited", "two")


def test_a_stream_that_is_refused_is_opened_again(chat: tuple[Visitor, Chat]) -> None:
    ann, its = chat
    ann.page.route("**/stream?*", lambda route: route.fulfill(status=502), times=2)
    ann.page.reload()
    ann.page.get_by_role("button", name="General").click()
    its.write("three")
    its.shows("one", "two", "three")
    ann.complaints.clear()  # the 502s


def test_a_stream_that_lost_changes_goes_on_by_itself(chat: tuple[Visitor, Chat]) -> None:
    ann, its = chat
    end = 'event: end\ndata: {"status":503,"error":"More messages were changed than could be sent."}\n\n'
    ann.page.route("**/stream?*", lambda route: route.fulfill(content_type="text/event-stream", body=end), times=1)
    ann.page.reload()
    ann.page.get_by_role("button", name="General").click()
    its.write("three")
    its.shows("one", "two", "three")
    expect(ann.page.locator("#notice")).to_have_text("")


def test_a_removed_member_is_told_and_sees_the_chat_no_longer(chat: tuple[Visitor, Chat]) -> None:
    ann, its = chat
    its.remove_member()
    expect(ann.page.locator("#thread")).to_be_hidden()
    expect(ann.page.locator("#notice")).not_to_have_text("")
    expect(ann.page.locator("#chats button")).to_have_count(0)
    ann.complaints.clear()  # the 404
