"""The OpenAPI 3.1 document, made from the declarations of the routes that serve the requests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from hubbub import __version__
from hubbub.http.problems import Problem
from hubbub.http.reply import EVENT_STREAM
from hubbub.http.routing import Route

_TEMPLATE = "#/components/schemas/{name}"
_ERRORS = {
    400: "The body is not JSON, or not an object",
    401: "Missing or invalid credentials",
    403: "A page of another site sent this with the user's cookie",
    404: "Nothing there, or nothing for this caller",
    409: "The same Idempotency-Key with another body",
    413: "The body is too large",
    415: "The body is not JSON",
    422: "A field is wrong; errors has a sentence for each",
    429: "Too many requests; see Retry-After",
    503: "A part is down or the queue is full; see Retry-After",
}

_LAG = {
    "Hubbub-Lag": {
        "description": "For some seconds, this answer may lack writes that are acknowledged and not stored yet.",
        "schema": {"type": "string", "const": "queue"},
    }
}
_TRUNCATED = {
    "Hubbub-Truncated": {
        "description": "The search ended early, as it took too much work or time: there may be more or better results.",
        "schema": {"type": "string", "const": "true"},
    }
}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The document as a JSON-ready dict."""
    kinds: list[Any] = [Problem]
    for route in routes:
        kinds += [kind for kind in (route.request, route.response) if kind is not None]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_TEMPLATE)
    schema_of = dict(zip(map(str, kinds), schemas, strict=True))
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Hubbub",
            "version": __version__,
            "description": "A chat API: users own applications, which hold chats, which hold messages.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "cookie": {"type": "apiKey", "in": "cookie", "name": "auth_token"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _operation(route: Route, schema_of: dict[str, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Done"}
    if route.response is not None:
        success["content"] = {"application/json": {"schema": schema_of[str(route.response)]}}
    if route.streams:
        success["content"] = {EVENT_STREAM.decode(): {"schema": {"type": "string"}}}
    problem = {"application/problem+json": {"schema": schema_of[str(Problem)]}}
    responses: dict[str, dict[str, Any]] = {
        str(route.status): success,
        **{str(status): {"description": _ERRORS[status], "content": problem} for status in route.errors},
    }
    if route.fails:
        responses["503"] = {**success, "description": "A part that it can't do without is failing"}
    if route.roles:
        responses["403"]["description"] = "The caller may not do this, or a page of another site sent it"
    if route.lags:
        for status in {str(route.status), "404"} - {"204"}:
            responses[status]["headers"] = _LAG
    if route.truncates:
        success["headers"] = success.get("headers", {}) | _TRUNCATED
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.name,
        "parameters": _parameters(route),
        "responses": responses,
        "security": [{"cookie": []}, {"bearer": []}] if route.guarded else [],
    }
    if route.request is not None:
        operation["requestBody"] = {
            "required": route.body_required,
            "content": {"application/json": {"schema": schema_of[str(route.request)]}},
        }
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    text = {"type": "string"}
    kinds = {"token": text, "invite": text, "code": text}
    number = {"type": "integer", "minimum": 1}
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": kinds.get(name, number)}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    if route.query is not None:
        for field in msgspec.structs.fields(route.query):
            schema = msgspec.json.schema(field.type)
            parameters.append({"name": field.encode_name, "in": "query", "required": field.required, "schema": schema})
    if route.streams:
        description = "Continue after this message; a browser's EventSource sends it by itself."
        schema = {"type": "integer", "minimum": 0}
        where = {"name": "Last-Event-ID", "in": "header", "required": False}
        parameters.append({**where, "description": description, "schema": schema})
    if route.idempotent:
        parameters.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "A retry with the same key gets the first answer and adds nothing.",
                "schema": {"type": "string", "pattern": "^[ -~]*[!-~][ -~]*$", "maxLength": 255},
            }
        )
    return parameters
