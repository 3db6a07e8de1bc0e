"""Every route in the OpenAPI document refuses the same kinds of wrong requests in the same way."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from hubbub.http.hot_routes import HotRoutes
from hubbub.http.openapi import document
from hubbub.http.routes.accounts import AccountRoutes
from hubbub.http.routes.applications import ApplicationRoutes
from hubbub.http.routes.chats import ChatRoutes
from hubbub.http.routes.members import MemberRoutes
from hubbub.http.routes.messages import MessageRoutes
from hubbub.http.routes.operator import OperatorRoutes
from hubbub.http.routes.search import SearchRoutes
from hubbub.http.routes.service import ServiceRoutes
from hubbub.http.routes.stream import StreamRoutes
from hubbub.http.routing import routes_of
from tests.conftest import Person, Served
from tests.http.test_accounts import problem

RESOURCES = (
    AccountRoutes,
    ApplicationRoutes,
    MemberRoutes,
    ChatRoutes,
    HotRoutes,
    MessageRoutes,
    SearchRoutes,
    StreamRoutes,
)
ROUTES = [route for resource in RESOURCES for route in routes_of(resource)] + routes_of(ServiceRoutes, base="")
PATHS: dict[str, dict[str, Any]] = document(ROUTES)["paths"]
OPERATIONS = [(method, path) for path, methods in PATHS.items() for method in methods]
WITH_BODY = [(method, path) for method, path in OPERATIONS if "requestBody" in PATHS[path][method]]
REQUIRED = [(method, path) for method, path in WITH_BODY if PATHS[path][method]["requestBody"].get("required")]
LOGINS = {"/api/v1/auth/login", "/api/v1/auth/tokens"}  # their 401 is about the credentials in the body
GUARDED = [
    (method, path) for method, path in OPERATIONS if "401" in PATHS[path][method]["responses"] and path not in LOGINS
]
IN_APPLICATION = [(method, path) for method, path in GUARDED if "{token}" in path]
LISTS = [
    (method, path)
    for method, path in OPERATIONS
    if any(parameter["name"] == "limit" for parameter in PATHS[path][method].get("parameters", []))
]


@pytest.fixture
def made(service: Served, ann: Person) -> dict[str, str]:
    """Create an application, a chat and a message of Ann's, and return the values for the paths."""
    chat = ann.chat()
    ann.post(f"{chat}/messages", json={"body": "x"})
    return {"token": chat.split("/")[2], "number": "1", "message": "1"}


def call(
    client: httpx.Client, service: Served, method: str, path: str, made: dict[str, str], **more: Any
) -> httpx.Response:
    return client.request(method.upper(), service.url + path.format(**made), **more)


def test_request_bodies_allow_no_other_fields() -> None:
    kinds = [route.request for route in [*ROUTES, *routes_of(OperatorRoutes)] if route.request is not None]
    assert len(kinds) > 10
    assert all(kind.__struct_config__.forbid_unknown_fields for kind in kinds)
    schemas = document(ROUTES)["components"]["schemas"]
    assert schemas["NewMessage"]["additionalProperties"] is False


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
def test_unknown_fields_are_named(service: Served, ann: Person, made: dict[str, str], method: str, path: str) -> None:
    answer = call(ann, service, method, path, made, json={"replyTo": 1, "senderName": "Zoe"})
    problem(answer, 422)
    for name in ("replyTo", "senderName"):
        assert any(
            each.startswith(f"{name} is not a field of this request; it has: ") for each in answer.json()["errors"]
        )


def test_an_unknown_field_beside_good_ones_stores_nothing(ann: Person) -> None:
    messages = ann.chat() + "/messages"
    answer = ann.post(messages, json={"body": "x", "replyTo": 1, "senderName": "Zoe"})
    problem(answer, 422)
    assert answer.json()["errors"] == [
        "replyTo is not a field of this request; it has: body",
        "senderName is not a field of this request; it has: body",
    ]
    assert ann.get(messages).json() == []
    many = ann.post(messages, json={"body": "x"} | {f"{number}" + "x" * 2000: 1 for number in range(100)})
    problem(many, 422)
    assert len(many.content) < 10_000
    assert many.json()["errors"][-1] == "80 further names are not fields of this request"
    very_many = ann.post(messages, json={"body": "x"} | dict.fromkeys(map(str, range(2000)), 1))
    problem(very_many, 422)
    assert very_many.json()["errors"] == ["there are fields that are not of this request; it has: body"]
    assert ann.post(messages, json={"body": "x"}).json() == {"messageNumber": 1}


@pytest.mark.parametrize("value", ["1e999", "-1e999", "9" * 5000, "1e308", "[1]", "{}", "true", '"1"', "0", "1.5"])
def test_a_number_that_no_field_takes_is_a_wrong_field(ann: Person, value: str) -> None:
    chat = ann.chat()
    content = '{"messageNumber": ' + value + ', "body": "x"}'
    answer = ann.put(f"{chat}/messages", content=content, headers={"Content-Type": "application/json"})
    assert problem(answer, 422)["errors"] == ["messageNumber must be a whole number from 1 to 9007199254740991"]


def test_a_text_of_colons_is_not_taken_for_fields(ann: Person) -> None:
    messages = ann.chat() + "/messages"
    assert ann.post(messages, json={"body": ":" * 10_000}).status_code == 200
    answer = ann.post(messages, json={"body": ":" * 10_001})
    problem(answer, 422)
    assert answer.json()["errors"] == ["body must be a string of 1 to 10000 characters"]
    edited = ann.patch(messages + "/1", json={"body": "x" + ":" * 9_999})
    assert edited.status_code == 200
    assert edited.json()["body"] == "x" + ":" * 9_999
    problem(ann.post(messages, content=b'{"body": "' + b":" * 2000, headers={"Content-Type": "application/json"}), 400)


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
def test_a_body_must_be_a_json_object_of_some_size(
    service: Served, ann: Person, made: dict[str, str], method: str, path: str
) -> None:
    json = {"Content-Type": "application/json"}
    for content, headers, status in (
        (b"{", json, 400),
        (b"[]", json, 400),
        (b'"x"', json, 400),
        (b"\xff\xfe", json, 400),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b'{"x":"' + b"x" * 300_000 + b'"}', json, 413),
    ):
        problem(call(ann, service, method, path, made, content=content, headers=headers), status)


@pytest.mark.parametrize(("method", "path"), REQUIRED)
def test_missing_and_wrong_fields_are_named(
    service: Served, ann: Person, made: dict[str, str], method: str, path: str
) -> None:
    assert problem(call(ann, service, method, path, made, json={}), 422)["errors"]
    wrong = {name: [1] for name in ("name", "email", "password", "token", "title", "body", "role", "messageNumber")}
    assert problem(call(ann, service, method, path, made, json=wrong), 422)["errors"]


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_credentials_are_checked_first(
    service: Served, nobody: httpx.Client, made: dict[str, str], method: str, path: str
) -> None:
    assert problem(call(nobody, service, method, path, made), 401)
    forged = {"Authorization": "Bearer x.y.z"}
    assert problem(call(nobody, service, method, path, made, headers=forged), 401)


def test_the_document_says_how_to_remove_a_member_without_a_body_and_that_a_service_may_not_be_ready() -> None:
    removing = PATHS["/api/v1/applications/{token}/members"]["delete"]
    assert [each["name"] for each in removing["parameters"] if each["in"] == "query"] == ["email"]
    ready = PATHS["/readyz"]["get"]["responses"]
    assert ready["503"]["content"] == ready["200"]["content"] != {}


@pytest.mark.parametrize(("method", "path"), IN_APPLICATION)
def test_a_missing_application_is_not_found(
    service: Served, ann: Person, made: dict[str, str], method: str, path: str
) -> None:
    elsewhere = {**made, "token": "no-such-token"}
    problem(call(ann, service, method, path, elsewhere, json={"body": "x", "name": "x"}), 404)


@pytest.mark.parametrize(("method", "path"), LISTS)
def test_paging_has_bounds(service: Served, ann: Person, made: dict[str, str], method: str, path: str) -> None:
    for query in ("page=0", "page=-1", "page=x", "limit=0", "limit=101", "limit=", "page=99999999999999999999"):
        problem(call(ann, service, method, path + "?" + query, made), 422)


@pytest.mark.parametrize("path", PATHS)
def test_other_methods_are_refused_with_those_that_are_allowed(
    service: Served, ann: Person, made: dict[str, str], path: str
) -> None:
    allowed = {method.upper() for method in PATHS[path]}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - allowed:
        answer = call(ann, service, method, path, made)
        problem(answer, 405)
        assert {name.strip() for name in answer.headers["allow"].split(",")} - {"HEAD", "OPTIONS"} == allowed
