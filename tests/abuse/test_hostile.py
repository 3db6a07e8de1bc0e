"""Hostile requests are refused, and all other clients are served meanwhile."""

from __future__ import annotations

import base64
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import jwt
import pytest

from tests.conftest import Person, Served, Service, eventually, until_locked_out
from tests.http.test_connection import raw

_SECOND = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

# Requests that a proxy in front might read as one and we as two, or the other way round (RFC 9112, section 11.2).
SMUGGLED = {
    "length and chunked": b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "chunked is not last": b"Transfer-Encoding: chunked, identity\r\nContent-Length: %d\r\n\r\n0\r\n\r\n",
    "a coding that is none": b"Transfer-Encoding: xchunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n",
    "a tab in the coding": b"Transfer-Encoding:\x0bchunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n",
    "blank before the colon": b"Transfer-Encoding : chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n",
    "a folded line": b"Transfer-Encoding:\r\n chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n",
    "a list of lengths": b"Content-Length: 0, %d\r\n\r\n",
    "a signed length": b"Content-Length: +%d\r\n\r\n",
    "a negative length": b"Content-Length: -1\r\n\r\n",
    "a length in hexadecimal": b"Content-Length: 0x10\r\n\r\n",
    "an endless length": b"Content-Length: 99999999999999999999999999\r\n\r\n",
    "a chunk size that overflows": b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff1\r\nx\r\n0\r\n\r\n",
    "a signed chunk size": b"Transfer-Encoding: chunked\r\n\r\n+1\r\nx\r\n0\r\n\r\n",
    "a NUL in a header": b"X: a\x00b\r\nContent-Length: 0\r\n\r\n",
    "a bare CR": b"X: a\rContent-Length: %d\r\n\r\n",
    "no colon": b"Content-Length\r\n\r\n",
}


@pytest.mark.parametrize("way", SMUGGLED)
def test_a_request_that_can_be_read_in_two_ways_is_refused(embedded: Service, way: str) -> None:
    tail = SMUGGLED[way]
    if b"%d" in tail:
        tail %= len(_SECOND) + (5 if b"0\r\n\r\n" in tail else 0)
    received = raw(embedded, b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\n" + tail + _SECOND)
    assert received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 413 ")), received[:300]
    assert received.count(b"\r\ndate: ") == 1, "what follows must not be taken for a second request"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * 100_000, 400),
        (b'{"a":' * 40_000, 400),
        (b'{"body":"\xff\xfe"}', 400),
        (b'{"body":"\xed\xa0\x80"}', 400),
        (b'{"body":"\\ud800"}', 400),
        (b'{"body":' + b"9" * 200_000 + b"}", 422),
        (b'{"body":NaN}', 400),
        (b'{"body":"x","body":' + b'"y"', 400),
        (b'\xef\xbb\xbf{"body":"x"}', 400),
        (b"x" * 300_000, 413),
    ],
    ids=range(10),
)
def test_hostile_bodies_are_refused_with_a_reason(service: Served, ann: Person, body: bytes, status: int) -> None:
    chat = ann.chat()
    answer = ann.post(f"{chat}/messages", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]
    assert ann.post(f"{chat}/messages", json={"body": "x"}).json() == {"messageNumber": 1}


def test_slow_clients_delay_nobody(own_service: Service) -> None:
    parts = urlsplit(own_service.url)
    with ExitStack() as stack, closing(Person(own_service.url)) as ann:
        chat = ann.chat()
        slow = [stack.enter_context(socket.create_connection((parts.hostname, parts.port))) for _ in range(500)]
        for turn in range(3):
            for connection in slow:
                connection.sendall(b"POST /api/v1/auth/login HTTP/1.1\r\nX-Slow: "[turn * 10 : turn * 10 + 10])
            answer = ann.post(f"{chat}/messages", json={"body": "x"})
            assert answer.status_code == 200
            assert answer.elapsed.total_seconds() < 5
        # tests/unit/test_connection_timeouts.py tests that each of them gets a 408 in the end.


def test_garbage_leaves_nothing_behind(own_service: Service) -> None:
    """An ordinary request succeeds after a thousand connections that never sent a whole one."""
    parts = urlsplit(own_service.url)
    for turn in range(1000):
        with socket.create_connection((parts.hostname, parts.port)) as connection:
            connection.sendall(
                (b"\x16\x03\x01\x02", b"GET", b"\r\n\r\n\r\n", b"POST /api/v1/auth/login HT", b"")[turn % 5]
            )
    assert httpx.get(own_service.url + "/healthz").status_code == 200


def test_guessing_a_password_at_once_gains_nothing(service: Served, ann: Person) -> None:
    def guess(number: int) -> int:
        wrong = {"email": ann.email, "password": f"guess {number}"}
        return httpx.post(service.url + "/api/v1/auth/login", json=wrong, timeout=60).status_code

    with ThreadPoolExecutor(40) as pool:
        statuses = list(pool.map(guess, range(40)))
    assert statuses.count(401) <= 10
    assert set(statuses) <= {401, 429, 503}
    assert ann.get("/auth/me").status_code == 200, "who is logged in stays so"


@pytest.mark.filterwarnings("ignore:The HMAC key is 1 bytes long")  # the short one
def test_tokens_that_were_never_issued_are_refused(own_service: Service) -> None:
    with closing(Person(own_service.url)) as ann:
        value = ann.cookies["auth_token"]
        claims = jwt.decode(value, options={"verify_signature": False})
        secret = (own_service.data / "secret").read_text().strip()
        public = base64.urlsafe_b64encode(b"0" * 32).decode()

        def signed(key: str = secret, algorithm: str = "HS256", **change: object) -> str:
            content = {name: each for name, each in {**claims, **change}.items() if each is not None}
            return jwt.encode(content, key, algorithm=algorithm)

        forged = {
            "no algorithm": jwt.encode(claims, "", algorithm="none"),
            "another key": signed(public),
            "a short key": signed("x"),
            "another algorithm": signed(algorithm="HS512"),
            "expired": signed(exp=int(time.time()) - 1),
            "without an end": signed(exp=None),
            "without a session": signed(sid=None),
            "another user who is nobody": signed(sub="nobody"),
            "a user by a number": signed(sub="1"),
            "not yet": signed(nbf=int(time.time()) + 600),
        }
        for name, token in forged.items():
            for headers in ({"Authorization": f"Bearer {token}"}, {"Cookie": f"auth_token={token}"}):
                assert httpx.get(own_service.url + "/api/v1/auth/me", headers=headers).status_code == 401, name
        assert ann.get("/auth/me").status_code == 200


def test_a_token_counts_in_its_own_header_however_often_it_was_used(service: Served, ann: Person) -> None:
    chat, token = ann.chat(), ann.cookies["auth_token"]
    cookie, bearer = {"Cookie": f"auth_token={token}"}, {"Authorization": f"Bearer {token}"}
    for path in ("/auth/me", f"{chat}/messages"):
        url = f"{service.url}/api/v1{path}"
        for _ in range(2):  # the second time, each is remembered where it is valid
            assert httpx.get(url, headers=cookie).status_code == 200
            assert httpx.get(url, headers=bearer).status_code == 200
            assert httpx.get(url, headers={**cookie, "Authorization": ""}).status_code == 200
            assert httpx.get(url, headers={"Authorization": cookie["Cookie"]}).status_code == 401
            assert httpx.get(url, headers={"Cookie": bearer["Authorization"]}).status_code == 401


def test_a_request_is_one_users_on_every_route(service: Served, ann: Person, bob: Person) -> None:
    chat = ann.chat()
    tokens = [person.cookies["auth_token"] for person in (ann, bob)]
    for path in ("/auth/me", f"{chat}/messages"):
        url = f"{service.url}/api/v1{path}"
        assert httpx.get(url, headers=[("Authorization", f"Bearer {each}") for each in tokens]).status_code == 400
        for other in (["a=b", f"auth_token={tokens[0]}"], [f"auth_token={tokens[0]}", "a=b"]):
            assert httpx.get(url, headers=[("Cookie", each) for each in other]).status_code == 200
    twice = [("Idempotency-Key", "one"), ("Idempotency-Key", "two"), ("Cookie", f"auth_token={tokens[0]}")]
    assert httpx.post(f"{service.url}/api/v1{chat}/messages", json={"body": "x"}, headers=twice).status_code == 400
    assert ann.get(f"{chat}/messages").json() == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"Origin": "http://{host}"}, 201),
        ({"Origin": "http://{host}", "Sec-Fetch-Site": "same-origin"}, 201),
        ({"Origin": "https://public.example", "Sec-Fetch-Site": "same-origin"}, 201),  # a proxy changed the Host
        ({"Sec-Fetch-Site": "none"}, 201),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),  # the same site, as far as cookies are concerned
        ({"Origin": "http://{host}.evil.example"}, 403),
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://{host}", "Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_pages_of_other_sites_may_not_act(service: Served, ann: Person, headers: dict[str, str], status: int) -> None:
    token, host = ann.application(), urlsplit(service.url).netloc
    sent = {name: value.format(host=host) for name, value in headers.items()}
    assert ann.post(f"/applications/{token}/chats", headers=sent).status_code == status
    chat = ann.chat(token)
    posted = ann.post(f"{chat}/messages", json={"body": "x"}, headers=sent)
    assert posted.status_code == (200 if status == 201 else 403)
    assert ann.get(f"{chat}/messages", headers=sent).status_code == 200, (
        "reading changes nothing, and they can't see it"
    )
    bearer = {"Authorization": f"Bearer {ann.cookies['auth_token']}", **sent}
    assert ann.post(f"/applications/{token}/chats", headers=bearer).status_code == 201


INJECTIONS = (
    "'; DROP TABLE messages; --",
    '" OR 1=1 --',
    "\\'; SELECT SLEEP(5); -- ",
    "${jndi:ldap://127.0.0.1/x}",
    "{{7*7}}",
    "<script>alert(1)</script>",
    '*" OR body:*',
    "%00%ff",
    "../../../etc/passwd",
    "a\x00b",
    '{"query":{"match_all":{}}}',
    "\r\nSet-Cookie: a=b",
)


@pytest.mark.parametrize("text", INJECTIONS, ids=range(len(INJECTIONS)))
def test_text_stays_text_everywhere(service: Served, ann: Person, stranger: Person, text: str) -> None:
    token = ann.post("/applications", json={"name": text}).json()["token"]
    assert ann.get(f"/applications/{token}").json()["name"] == text
    number = ann.post(f"/applications/{token}/chats", json={"title": text}).json()["chatNumber"]
    chat = f"/applications/{token}/chats/{number}"
    assert ann.get(chat).json()["title"] == text
    ann.post(f"{chat}/messages", json={"body": text})
    assert [each["body"] for each in ann.get(f"{chat}/messages").json()] == [text]
    assert stranger.get(f"{chat}/messages/search", params={"q": text}).status_code == 404
    assert ann.get(f"{chat}/messages/search", params={"q": text}).status_code in (200, 503)
    assert ann.post("/auth/login", json={"email": text, "password": text}).status_code == 401
    assert ann.get(f"/applications/{httpx.QueryParams({'x': text})}".replace("x=", "")).status_code == 404
    key = {"Idempotency-Key": text.replace("\r\n", "").replace("\x00", "").strip()}
    posted = ann.post(f"{chat}/messages", json={"body": text}, headers=key)
    assert posted.json() == {"messageNumber": 2}
    assert "set-cookie" not in posted.headers


def test_a_users_requests_are_bounded_and_hinder_no_other_user(tmp_path: Path) -> None:
    service = Service(tmp_path / "data")
    service.start(HUBBUB_USER_RATE="3")
    try:
        with closing(Person(service.url)) as ann, closing(Person(service.url)) as bob:
            answers = [ann.get("/auth/me") for _ in range(30)]
            refused = [answer for answer in answers if answer.status_code == 429]
            assert 6 <= len(answers) - len(refused) < 30
            assert refused[0].headers["retry-after"] == "1"
            assert refused[0].headers["ratelimit-limit"] == "3"
            assert refused[0].headers["ratelimit-remaining"] == "0"
            account = {"email": ann.email, "password": "correct horse"}
            assert ann.post("/auth/login", json=account).status_code == 200, "it is no request of the user yet"
            assert bob.get("/auth/me").status_code == 200
    finally:
        service.stop()


def test_registrations_of_an_address_are_bounded_and_others_can_register(tmp_path: Path) -> None:
    service = Service(tmp_path / "data")
    service.start(HUBBUB_PROXIES='["127.0.0.1"]')
    try:
        wrong = json.dumps({"name": "", "email": "x", "password": "short"})
        kind = {"Content-Type": "application/json"}
        with httpx.Client(base_url=service.url) as client:

            def tries(address: int) -> httpx.Response:
                sent = {**kind, "X-Forwarded-For": f"203.0.113.{address}"}
                return client.post("/api/v1/auth/register", content=wrong, headers=sent)

            for _ in range(13_000):
                answer = tries(1)
                if answer.status_code == 429:
                    break
            assert answer.status_code == 429
            assert answer.headers["ratelimit-limit"] == "6000"
            assert 0 < int(answer.headers["retry-after"]) <= 60
            assert tries(2).status_code == 422
    finally:
        service.stop()
    assert "Registrations from 203.0.113.1 are refused for now" in service.log


def test_an_owner_can_log_in_while_the_account_is_guessed_from_everywhere(tmp_path: Path) -> None:
    """The log says so, without a password or an email."""
    service = Service(tmp_path / "data")
    service.start(HUBBUB_PROXIES='["127.0.0.1"]')
    with ExitStack() as stack:
        stack.callback(service.stop)
        ann, bob = (stack.enter_context(closing(Person(service.url))) for _ in range(2))
        client = stack.enter_context(httpx.Client(base_url=service.url, timeout=60))
        email = ann.email

        def tries(address: str, password: str, person: Person | None = None) -> httpx.Response:
            headers = {"X-Forwarded-For": address}
            if person is not None:
                headers["Cookie"] = f"auth_token={person.cookies['auth_token']}"
            return client.post("/api/v1/auth/tokens", json={"email": email, "password": password}, headers=headers)

        with ThreadPoolExecutor(4) as threads:
            addresses = [f"198.51.{number // 250}.{number % 250}" for number in range(130)]
            answers = list(threads.map(lambda address: tries(address, "a wrong guess"), addresses))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert {answer.status_code for answer in answers} == {401, 429}
        assert len(refused) <= 30
        assert all(1 <= int(answer.headers["retry-after"]) <= 10 for answer in refused)

        def is_slowed(person: Person | None) -> bool:  # one attempt becomes free every ten seconds
            return bool(tries("198.51.100.1", "a wrong guess", person).headers.get("ratelimit-limit") == "100")

        eventually(lambda: is_slowed(None))
        assert tries("203.0.113.7", "correct horse", ann).status_code == 201
        eventually(lambda: is_slowed(bob))
    shown = f"{email[0]}***@example.com"
    assert f"A login to {shown} from 198.51.0.0 failed." in service.log
    lines = [line for line in service.log.splitlines() if f"Logins to {shown} from" in line]
    assert 1 <= len(lines) <= 2, "of one lock-out a line a minute"
    assert email not in service.log
    assert "a wrong guess" not in service.log
    assert "correct horse" not in service.log


def test_addresses_of_one_ipv6_network_are_counted_as_one(tmp_path: Path) -> None:
    service = Service(tmp_path / "data")
    service.start(HUBBUB_PROXIES='["127.0.0.1"]')
    try:

        def tries(address: str) -> int:
            wrong = {"email": "a@example.com", "password": "wrong"}
            headers = {"X-Forwarded-For": address}
            return httpx.post(service.url + "/api/v1/auth/login", json=wrong, headers=headers).status_code

        assert 10 <= until_locked_out(lambda number: tries(f"2001:db8:1:2:{number:x}::1")) < 15
        assert tries("2001:db8:1:3::1") == 401
    finally:
        service.stop()
