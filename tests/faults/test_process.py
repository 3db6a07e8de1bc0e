"""The process is killed and restarted, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import threading
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.conftest import Person, Service, serve, until_locked_out
from tests.faults.posting import all_messages, posting, stored


def test_kill_9_loses_nothing_acknowledged(own_service: Service) -> None:
    with closing(Person(own_service.url)) as ann:
        token = ann.application()
        chats = [ann.chat(token) for _ in range(3)]
        cookies = dict(ann.cookies)
    acknowledged: dict[str, dict[int, str]] = defaultdict(dict)
    for round_ in range(5):
        enough = threading.Semaphore(0)

        def send(sender: int, round_: int = round_, enough: threading.Semaphore = enough) -> None:
            chat = chats[sender % 3]
            with httpx.Client(base_url=own_service.url + "/api/v1", cookies=cookies) as client:
                for number in range(100_000):
                    body = f"{round_}/{sender}/{number}"
                    try:
                        answer = client.post(f"{chat}/messages", json={"body": body})
                    except httpx.TransportError:
                        return
                    if answer.status_code == 200:
                        got = answer.json()["messageNumber"]
                        assert got not in acknowledged[chat], "a number was given twice"
                        acknowledged[chat][got] = body
                        enough.release()

        threads = [threading.Thread(target=send, args=(sender,)) for sender in range(6)]
        for thread in threads:
            thread.start()
        for _ in range(150 + 37 * round_):
            enough.acquire()
        own_service.kill()
        for thread in threads:
            thread.join()
        own_service.start()
        with httpx.Client(base_url=own_service.url + "/api/v1", cookies=cookies) as client:
            for chat in chats:
                found = all_messages(client, chat)
                assert {number: found.get(number) for number in acknowledged[chat]} == acknowledged[chat]
                assert client.get(chat).json()["messagesCount"] == len(found)
    assert sum(len(numbers) for numbers in acknowledged.values()) >= 5 * 150


def test_a_number_stays_taken_after_delete_and_restart(own_service: Service) -> None:
    with closing(Person(own_service.url)) as ann:
        chat = ann.chat()
        for _ in range(3):
            ann.post(f"{chat}/messages", json={"body": "x"})
        assert ann.delete(f"{chat}/messages/3").status_code == 204
        logged_out = dict(ann.cookies)
        ann.delete("/auth/logout")
        email = ann.email
    assert own_service.stop() == 0
    own_service.start()
    with httpx.Client(base_url=own_service.url + "/api/v1") as client:
        client.cookies.update(logged_out)
        assert client.get("/auth/me").status_code == 401
        client.cookies.clear()
        assert client.post("/auth/login", json={"email": email, "password": "correct horse"}).is_success
        assert client.post(f"{chat}/messages", json={"body": "x"}).json() == {"messageNumber": 4}
        assert client.get(chat).json()["messagesCount"] == 3


def test_ended_sessions_stay_ended_though_the_clock_was_wrong_for_a_while(tmp_path: Path) -> None:
    """The clock is eight days ahead at one start, so all tokens would have expired, and right again at the next."""
    service = Service(tmp_path / "data")
    clock = tmp_path / "clock"
    path = [str(Path(__file__).parents[1] / "history" / "clock"), os.environ.get("PYTHONPATH", "")]
    moved = {"PYTHONPATH": os.pathsep.join(filter(None, path)), "CLOCK": str(clock)}
    clock.write_text("0")
    service.start(**moved)
    with closing(Person(service.url)) as ann, closing(Person(service.url)) as bob, closing(Person(service.url)) as eve:
        ended, living = [dict(ann.cookies), dict(bob.cookies)], dict(eve.cookies)
        assert ann.delete("/auth/logout").status_code == 200
        assert bob.delete("/auth/sessions").status_code == 204
    for ahead_s in (8 * 24 * 3600, 0):
        assert service.stop() == 0
        clock.write_text(str(ahead_s))
        service.start(**moved)
    try:
        me = service.url + "/api/v1/auth/me"
        assert [httpx.get(me, cookies=cookies).status_code for cookies in ended] == [401, 401]
        assert httpx.get(me, cookies=living).status_code == 200
    finally:
        service.stop()


def test_only_the_owner_can_read_the_secret(own_service: Service) -> None:
    assert (own_service.data / "secret").stat().st_mode & 0o777 == 0o600
    assert own_service.data.stat().st_mode & 0o777 == 0o700


def test_a_second_process_is_refused(own_service: Service) -> None:
    second = serve(own_service.data)
    assert second.returncode == 1
    assert f"in use by another Hubbub (process {own_service.process.pid})" in second.stderr


def test_a_newer_schema_is_refused(own_service: Service) -> None:
    import sqlite3

    own_service.stop()
    connection = sqlite3.connect(own_service.data / "hubbub.db")
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    refused = serve(own_service.data)
    assert refused.returncode == 1
    assert "newer Hubbub (schema 9999" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_taken_port_is_named(own_service: Service, tmp_path: Path) -> None:
    port = own_service.url.rsplit(":", 1)[1]
    taken = subprocess.run(
        [sys.executable, "-m", "hubbub", "serve", "--port", port, "--data", str(tmp_path / "other")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert taken.returncode == 1
    assert f"port {port}" in taken.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_after_a_signal_accepted_requests_are_finished(own_service: Service, number: signal.Signals) -> None:
    with closing(Person(own_service.url)) as ann:
        chat = ann.chat()
        cookies = dict(ann.cookies)
    with posting(own_service, chat, cookies) as acknowledged:
        assert own_service.stop(number) == 0
    own_service.start()
    assert set(acknowledged) <= set(stored(own_service, chat, cookies))


def test_addresses_are_taken_only_from_a_known_proxy(tmp_path: Path) -> None:
    service = Service(tmp_path / "data")

    def tries(address: int) -> int:
        wrong = {"email": "a@example.com", "password": "wrong password"}
        headers = {"X-Forwarded-For": f"203.0.113.{address}", "X-Forwarded-Proto": "https"}
        return httpx.post(service.url + "/api/v1/auth/login", json=wrong, headers=headers).status_code

    service.start(HUBBUB_PROXIES='["127.0.0.1"]')
    assert 10 <= until_locked_out(lambda _: tries(1)) < 15
    assert tries(2) == 401
    fields = {"name": "A", "email": "b@example.com", "password": "secret1"}
    answer = httpx.post(service.url + "/api/v1/auth/register", json=fields, headers={"X-Forwarded-Proto": "https"})
    assert "; Secure" in answer.headers["set-cookie"]
    service.stop()
    service.start()
    assert 10 <= until_locked_out(tries) < 15
    service.stop()


def test_over_tls_the_cookie_is_secure(tmp_path: Path) -> None:
    certificate = tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(certificate)]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject, *files],
        check=True,
        capture_output=True,
    )
    service = Service(tmp_path / "data")
    service.start(HUBBUB_TLS_CERT=str(certificate), HUBBUB_TLS_KEY=str(tmp_path / "key.pem"))
    try:
        assert service.url.startswith("https://")
        with httpx.Client(
            base_url=service.url + "/api/v1", verify=ssl.create_default_context(cafile=certificate)
        ) as ann:
            answer = ann.post("/auth/register", json={"name": "A", "email": "a@example.com", "password": "secret1"})
            assert "; Secure" in answer.headers["set-cookie"]
            assert ann.get("/auth/me").status_code == 200
    finally:
        assert service.stop() == 0
