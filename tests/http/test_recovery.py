"""A lost password: a link is mailed, works once, and ends all sessions."""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Iterator
from email.message import EmailMessage

import httpx
import pytest

from tests.conftest import Person, Served, Service, eventually
from tests.http.test_accounts import GOOD, problem
from tests.mailbox import Mailbox

NEW = "a new password"


@pytest.fixture
def asker(service: Served) -> Iterator[httpx.Client]:
    """A client at an address that has not sent a request yet."""
    address = "127.{}.{}.{}".format(*(random.randrange(1, 255) for _ in range(3)))
    transport = httpx.HTTPTransport(local_address=address)
    with httpx.Client(base_url=service.url + "/api/v1", timeout=30, transport=transport) as client:
        yield client


def code_in(mail: EmailMessage) -> str:
    found = re.search(rf"{Mailbox.url}/reset#(\S+)", mail.get_content())
    assert found
    return found[1]


def ask(client: httpx.Client, email: str) -> httpx.Response:
    return client.post("/auth/password-reset", json={"email": email})


def confirm(client: httpx.Client, code: str, password: str = NEW) -> httpx.Response:
    return client.post("/auth/password-reset/confirm", json={"code": code, "password": password})


def test_a_mailed_link_sets_a_password_once_and_ends_all_sessions(
    service: Served, ann: Person, bob: Person, asker: httpx.Client, mailbox: Mailbox
) -> None:
    known, unknown = ask(asker, ann.email.upper()), ask(asker, f"not.{ann.email}")
    assert known.status_code == unknown.status_code == 202
    assert known.content == unknown.content
    mail = mailbox.wait_for(ann.email)
    assert (mail["From"], mail["Subject"]) == ("Hubbub <chat@example.com>", "A new password for Hubbub")
    assert "AUTH PLAIN " + base64.b64encode(b"\0hubbub\0pass word").decode() in mailbox.heard
    first = code_in(mail)
    ask(asker, ann.email)
    second = code_in(mailbox.wait_for(ann.email, 2))
    problem(confirm(asker, first), 404)
    problem(confirm(asker, second, "short"), 422)
    assert ann.get("/auth/me").is_success
    assert confirm(asker, second).status_code == 200
    problem(ann.get("/auth/me"), 401)
    assert bob.get("/auth/me").is_success
    problem(confirm(asker, second, "another one"), 404)
    problem(asker.post("/auth/login", json={"email": ann.email, "password": "correct horse"}), 401)
    assert asker.post("/auth/login", json={"email": ann.email, "password": NEW}).is_success
    assert mailbox.to(f"not.{ann.email}") == []


def test_a_link_of_a_deleted_account_sets_nothing(ann: Person, asker: httpx.Client, mailbox: Mailbox) -> None:
    ask(asker, ann.email)
    code = code_in(mailbox.wait_for(ann.email))
    assert ann.request("DELETE", "/auth/me", json={"currentPassword": "correct horse"}).status_code == 204
    problem(confirm(asker, code), 404)
    assert asker.post("/auth/register", json={**GOOD, "email": ann.email}).status_code == 201
    problem(confirm(asker, code), 404)
    assert asker.get("/auth/me").is_success


def test_only_a_few_mails_are_sent_to_one_email_whoever_asks(bob: Person, asker: httpx.Client) -> None:
    for email in (bob.email, f"not.{bob.email}"):
        assert [ask(asker, email).status_code for _ in range(4)] == [202, 202, 202, 429]


def test_a_mail_that_is_not_sent_is_logged_without_the_address(embedded: Service) -> None:
    account = {**GOOD, "email": "refused@example.com"}
    assert httpx.post(embedded.url + "/api/v1/auth/register", json=account).status_code == 201
    assert ask(httpx.Client(base_url=embedded.url + "/api/v1"), "refused@example.com").status_code == 202
    eventually(lambda: "A mail to r***@example.com was not sent: SMTPRecipientsRefused." in embedded.log)


def test_without_a_mail_server_the_answer_says_what_to_do(own_service: Service) -> None:
    with httpx.Client(base_url=own_service.url + "/api/v1") as client:
        refused = problem(ask(client, "ann@example.com"), 404)
        assert "hubbub users reset-password EMAIL" in str(refused["error"])
        problem(confirm(client, "A" * 22), 404)


@pytest.mark.parametrize("email", ["", "x" * 255, None])
def test_a_wrong_field_is_named(asker: httpx.Client, email: str | None) -> None:
    answer = asker.post("/auth/password-reset", json={"email": email})
    assert str(problem(answer, 422)["errors"]).startswith("['email must")
