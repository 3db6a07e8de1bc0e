"""New passwords count against the address they come from, on every route that sets one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from hubbub.chat import logins
from hubbub.chat.codes import hash_of
from hubbub.chat.commands import AddLink
from hubbub.chat.model import Purpose
from hubbub.embedded.store import SqliteStore
from hubbub.http.passwords import Argon2Passwords
from tests.http.test_accounts import GOOD, problem
from tests.worst import served

LATER = 2**45
WAYS = {
    "a mailed link": ("POST", "/auth/password-reset/confirm", {"code": "reset", "password": "battery staple"}),
    "a set-up link": ("POST", "/auth/setup", {**GOOD, "code": "setup", "email": "operator@example.com"}),
    "the current one": (
        "PUT",
        "/auth/me/password",
        {"currentPassword": GOOD["password"], "password": "battery staple"},
    ),
}


@pytest.mark.parametrize("way", WAYS)
async def test_one_address_does_not_fill_the_queue_with_new_passwords(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    hashed, waiting = asyncio.Event(), asyncio.Semaphore(0)

    async def slowly(self: Argon2Passwords, password: str) -> str:
        waiting.release()
        await hashed.wait()
        return "hash"

    monkeypatch.setattr(logins, "AT_ONCE_OF_ADDRESS", 2)
    method, path, content = WAYS[way]
    async with served(tmp_path / "data") as url, httpx.AsyncClient(base_url=url + "/api/v1") as ann:
        assert (await ann.post("/auth/register", json=GOOD)).status_code == 201
        store = SqliteStore(tmp_path / "data" / "hubbub.db")
        store.apply([AddLink(Purpose.RESET, GOOD["email"], hash_of("reset"), LATER)])
        store.apply([AddLink(Purpose.OPERATOR, "", hash_of("setup"), LATER)])
        store.close()
        monkeypatch.setattr(Argon2Passwords, "hash", slowly)
        under_way = []
        for _ in range(2):
            under_way.append(asyncio.ensure_future(ann.request(method, path, json=content)))
            await waiting.acquire()
        try:
            refused = problem(await ann.request(method, path, json=content, timeout=5), 429)
        finally:
            hashed.set()
            statuses = sorted([(await each).status_code for each in under_way])
        assert "new passwords from your address are under way" in str(refused["error"])
        assert statuses[0] < 300 <= statuses[1], "what sets it is used up by the first"
