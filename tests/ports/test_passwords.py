"""The suite of the Passwords port. A new adapter is one more fixture parameter."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from hubbub.chat.errors import Unavailable
from hubbub.chat.ports import Passwords
from hubbub.http.passwords import Argon2Passwords


@pytest.fixture(params=["argon2"])
def passwords() -> Iterator[Passwords]:
    passwords = Argon2Passwords()
    yield passwords
    passwords.close()


@pytest.mark.parametrize("password", ["correct horse", "Grüße 😀", " with blanks ", "x" * 1000, "nul\0inside"])
async def test_the_password_matches_and_no_other(passwords: Passwords, password: str) -> None:
    hashed = await passwords.hash(password)
    assert await passwords.verify(password, hashed)
    for other in (password.upper() + "x", password[:-1], password.strip() + "\n", ""):
        assert not await passwords.verify(other, hashed)


async def test_a_hash_reveals_nothing(passwords: Passwords) -> None:
    first, second = await passwords.hash("the same"), await passwords.hash("the same")
    assert first != second
    assert "the same" not in first
    assert first.startswith("$")  # PHC string format


@pytest.mark.parametrize("stored", [None, "", "nonsense", "$argon2id$v=19$broken"])
async def test_nothing_matches_a_missing_or_broken_hash(passwords: Passwords, stored: str | None) -> None:
    assert not await passwords.verify("anything", stored)


async def test_hashing_does_not_block_the_event_loop(passwords: Passwords) -> None:
    hashing = asyncio.gather(*(passwords.hash("x") for _ in range(20)))
    longest, last = 0.0, time.monotonic()
    while not hashing.done():
        await asyncio.sleep(0.001)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    assert longest < 0.5
    assert len(await hashing) == 20


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
async def test_everything_else_gets_the_cpu_first(passwords: Passwords) -> None:
    await passwords.hash("x")
    hashing = [thread.native_id for thread in threading.enumerate() if thread.name.startswith("argon2")]
    assert hashing
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert all(os.getpriority(os.PRIO_PROCESS, each or 0) > own for each in hashing)


async def test_too_many_at_once_are_refused(passwords: Passwords) -> None:
    hashing = [asyncio.ensure_future(passwords.hash("x")) for _ in range(600)]
    await asyncio.sleep(0.1)
    refused = [each.exception() for each in hashing if each.done() and each.exception() is not None]
    assert 0 < len(refused) < 600
    assert all(isinstance(error, Unavailable) and error.retry_after >= 1 for error in refused)
    for each in hashing:
        each.cancel()
    await asyncio.gather(*hashing, return_exceptions=True)
    assert await passwords.hash("x")  # cancelled ones make room
