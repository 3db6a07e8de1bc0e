"""Schemathesis finds no answer that contradicts the service's OpenAPI document, and no 500."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from tests.conftest import Person, Served, Service

# This check spoils the cookie but keeps the given Authorization header, so the credentials are still valid.
_UNFIT = "ignored_auth"
# Operations with rules that no schema can express: two fields must be equal or exclude each other, an address must be
# valid, a user must exist, a password must be right, a name may not change often.
_BOUND_BY_MORE_THAN_A_SCHEMA = (
    "register",
    "setUp",
    "putMember",
    "removeMember",
    "listMessages",
    "renameMe",
    "setPassword",
    "deleteMe",
)
# Operations that end what the others need, or that do not end.
_LEFT_OUT = (
    "logout",
    "endSessions",
    "deleteApplication",
    "deleteChat",
    "streamMessages",
    # It would use up the limit of the other tests, which have the same address.
    "requestPasswordReset",
)
# Beside the statuses that Schemathesis expects for bad data, a body that is too large for its route gets a 413.
_REFUSED = """
[checks]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429]
"""
_SETTINGS = _REFUSED + "".join(
    f"""
[[operations]]
include-operation-id = "{name}"
checks.positive_data_acceptance.enabled = false
"""
    for name in _BOUND_BY_MORE_THAN_A_SCHEMA
)
_PLACE = """
[parameters]
token = "{token}"
number = 1
message = 1
"""


def test_every_operation_does_what_the_document_says(
    service: Served, tmp_path: Path, fuzz_examples: int, fault_seed: int
) -> None:
    _fuzz(service, tmp_path, fuzz_examples, fault_seed, "a chat that is there")


def test_operations_on_missing_things_do_what_the_document_says(
    embedded: Service, tmp_path: Path, fuzz_examples: int, fault_seed: int
) -> None:
    _fuzz(embedded, tmp_path, fuzz_examples, fault_seed, "anywhere")


def _fuzz(service: Served, tmp_path: Path, fuzz_examples: int, seed: int, place: str) -> None:
    with closing(Person(service.url)) as ann:
        token = ann.application()
        chat = ann.chat(token)
        ann.post(f"{chat}/messages", json={"body": "hello"})
        bearer = ann.post("/auth/tokens", json={"email": ann.email, "password": "correct horse"}).json()["token"]
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(_SETTINGS + (_PLACE.format(token=token) if place == "a chat that is there" else ""))
    run = subprocess.run(
        [
            str(Path(sys.executable).with_name("st")),
            *("--config-file", str(settings), "run", service.url + "/openapi.json"),
            *("--header", f"Authorization: Bearer {bearer}"),
            *(word for name in _LEFT_OUT for word in ("--exclude-operation-id", name)),
            *("--phases", "examples,coverage,fuzzing"),
            *("--max-examples", str(fuzz_examples), "--seed", str(seed), "--exclude-checks", _UNFIT),
            *("--generation-database", "none", "--no-color"),
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    print("".join(re.findall(r".*test cases.*\n|.*generated.*\n", run.stdout)))
