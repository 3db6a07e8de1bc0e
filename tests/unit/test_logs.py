"""Log lines for programs."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from hubbub.http.problems import failure
from hubbub.logs import JsonLines, TextLines


def line(caught: list[logging.LogRecord]) -> dict[str, Any]:
    text = JsonLines().format(caught[0])
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_line_is_one_object_with_the_fields_of_its_record() -> None:
    record = logging.makeLogRecord(
        {"name": "hubbub.x", "msg": "Took %d\n", "args": (3,), "levelno": 30, "levelname": "WARNING"}
    )
    record.request_id = "abc"
    found = line([record])
    assert (found["level"], found["logger"], found["message"], found["request_id"]) == (
        "warning",
        "hubbub.x",
        "Took 3\n",
        "abc",
    )


@pytest.mark.parametrize("formatter", [JsonLines(), TextLines("%(levelname)s %(message)s")])
def test_no_password_of_an_address_is_in_a_line(formatter: logging.Formatter) -> None:
    trouble = OSError('no answer from https://hubbub:sec"ret@traces:4318/v1/traces')
    record = logging.makeLogRecord({"msg": "Could not reach %s", "args": ("amqp://a:secret@mq:5672/",)})
    record.exc_info = OSError, trouble, None
    text = formatter.format(record)
    assert "secret" not in text
    assert "ret@" not in text
    assert "traces:4318" in text


def test_a_failure_is_found_again_by_its_request_id(caplog: Any) -> None:
    reply = failure(RuntimeError("inside"))
    assert reply.status == 500
    found = line(caplog.records)
    assert found["request_id"].encode() in reply.headers
    assert found["request_id"].encode() in reply.body
    assert "RuntimeError: inside" in found["exception"]
    assert b"inside" not in reply.body
