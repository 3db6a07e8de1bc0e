"""What a service logs: its requests, failed logins, when it started and why it stopped."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from hubbub import __version__
from hubbub.http.access_log import shortened
from hubbub.loadtest.cluster import ClusterStack
from tests.conftest import Person, Service, eventually


def started(path: Path, **environment: str) -> Service:
    service = Service(path / "data")
    service.start(**environment)
    return service


def test_every_line_is_json_with_all_details_and_no_secret(tmp_path: Path) -> None:
    service = started(tmp_path, HUBBUB_LOG_FORMAT="json", HUBBUB_ACCESS_LOG="true", HUBBUB_PROXIES="127.0.0.1")
    with closing(Person(service.url)) as ann:
        chat = ann.chat()
        token = chat.split("/")[2]
        for _ in range(2):  # the second time, the head is remembered
            assert ann.get(f"{chat}/messages?limit=1", headers={"x-forwarded-for": "203.0.113.9"}).status_code == 200
        ann.post(f"{chat}/messages", json={"body": "a secret text"})
        with ann.stream("GET", f"{chat}/messages/stream?after=0") as stream:
            next(stream.iter_lines())
        wrong = {"email": ann.email, "password": "a wrong password"}
        failed = httpx.post(service.url + "/api/v1/auth/login", json=wrong, headers={"x-forwarded-for": "203.0.113.9"})
        assert failed.status_code == 401
        cookie = ann.cookies["auth_token"]
    eventually(lambda: "/stream" in service.log)
    assert service.stop() == 0
    assert not any(secret in service.log for secret in (token, cookie, "a secret text", "a wrong password", "limit=1"))
    lines: list[dict[str, Any]] = [json.loads(line) for line in service.log.splitlines()]
    logged = [line["message"] for line in lines if line["logger"] == "hubbub" and line["level"] == "info"]
    assert logged == [
        f"Hubbub {__version__} has started at {service.url}, process {service.process.pid}.",
        f"Hubbub {__version__} is stopping: SIGTERM, process {service.process.pid}.",
        f"Hubbub {__version__} has stopped, process {service.process.pid}.",
    ]
    assert [line["message"] for line in lines if line["logger"] == "hubbub.logins"] == [
        "A login to p***@example.com from 203.0.113.9 failed."
    ]
    seen = [line for line in lines if line["logger"] == "hubbub.access"]
    short = f"/api/v1/applications/{token[:6]}…/chats"
    assert sorted((line["method"], line["path"], line["status"]) for line in seen) == sorted(
        [
            ("POST", "/api/v1/auth/register", 201),
            ("POST", "/api/v1/applications", 201),
            ("POST", short, 201),
            ("GET", f"{short}/1/messages", 200),
            ("GET", f"{short}/1/messages", 200),
            ("POST", f"{short}/1/messages", 200),
            ("GET", f"{short}/1/messages/stream", 200),
            ("POST", "/api/v1/auth/login", 401),
        ]
    )
    assert [line["address"] for line in seen[2:6]] == ["127.0.0.1", "203.0.113.9", "203.0.113.9", "127.0.0.1"]
    assert len({line["user"] for line in seen[1:6]}) == 1
    assert len(seen[1]["user"]) == 16
    assert all(line["duration_ms"] > 0 for line in seen)


def test_requests_are_not_logged_unless_asked_for(tmp_path: Path) -> None:
    service = started(tmp_path)
    with closing(Person(service.url)) as ann:
        ann.get("/auth/me")
    assert service.stop() == 0
    assert "/auth/me" not in service.log
    assert re.search(rf"INFO hubbub: Hubbub {re.escape(__version__)} has started at {service.url}", service.log)


def test_the_parts_of_a_cluster_say_when_they_start_and_that_a_port_is_taken(cluster: ClusterStack) -> None:
    assert f"has started at {cluster.url}," in cluster.apis[0].log.read_text()
    assert "has started a writer," in cluster.writers[0].log.read_text()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        run = subprocess.run(
            [sys.executable, "-m", "hubbub", "writer", "--metrics-port", port],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=os.environ | cluster.settings,
        )
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == (
        f"hubbub: Can't listen on 127.0.0.1 port {port}: Address already in use."
        " Choose others with --host and --metrics-port."
    )
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("wrong", [{"HUBBUB_PORT": "x"}, {"HUBBUB_DATA": "/dev/null/x"}, {"HUBBUB_HOST": "192.0.2.1"}])
def test_a_refusal_to_start_is_a_json_line_too(wrong: dict[str, str], tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "hubbub", "serve"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"HUBBUB_LOG_FORMAT": "json", "HUBBUB_DATA": str(tmp_path / "data"), **wrong},
    )
    assert run.returncode in (1, 2)
    (line,) = [json.loads(each) for each in run.stderr.splitlines()]
    assert line["level"] == "error"


def test_a_crash_and_a_warning_are_json_lines() -> None:
    code = """
import threading, warnings
from hubbub.logs import start_logging
start_logging("json")
warnings.warn("old")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise OSError("amqp://a:secret@mq \\udcff")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 1
    lines = [json.loads(line) for line in run.stderr.splitlines()]
    assert [(line["level"], line["logger"]) for line in lines] == [
        ("warning", "py.warnings"),
        ("error", "hubbub"),
        ("critical", "hubbub"),
    ]
    assert "ZeroDivisionError" in lines[1]["exception"]
    assert "amqp://a:…@mq" in lines[2]["exception"]


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/api/v1/applications/nVGQEnXXXXXXXXXXXXXXXX/chats/1?q=secret", "/api/v1/applications/nVGQEn…/chats/1"),
        (b"/?token=x", "/"),
        (b"", "-"),
        (b"/\xff\n", "/\\\\xff\\n"),
        (b"/" + b"a/" * 1000, "/" + ("a/" * 1000)[:299]),
    ],
)
def test_a_path_is_logged_shortened_and_on_one_line(target: bytes, path: str) -> None:
    assert shortened(target) == path


def test_a_service_goes_on_when_nobody_takes_its_first_line(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "hubbub", "serve", "--port", "0", "--data", str(tmp_path / "data")]
    with open("/dev/full", "w") as full, (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(words, stdout=full, stderr=log)
    try:
        eventually(lambda: "has started" in (tmp_path / "log").read_text())
        url = (tmp_path / "log").read_text().split(" at ")[1].split(",")[0]
        assert httpx.get(f"{url}/healthz").status_code == 200
    finally:
        process.terminate()
        status = process.wait(30)
    assert status == 0
    assert "Traceback" not in (tmp_path / "log").read_text()
