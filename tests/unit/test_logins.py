"""Which logins are counted together, and what is logged about them."""

from __future__ import annotations

import logging

import pytest

from hubbub.chat.errors import UsedUp
from hubbub.http.address import network_of
from hubbub.http.login_log import LoginLog, masked


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix:", ""),
        ("9" * 5000, ""),
    ],
)
def test_an_ipv6_address_counts_as_its_network(host: str, network: str) -> None:
    assert network_of(host) == network


@pytest.mark.parametrize(
    ("email", "shown"),
    [
        ("ann@example.com", "a***@example.com"),
        ("@example.com", "***@example.com"),
        ("ann", "***@***"),
        ("", "***@***"),
        ("\nann@example.com\nERROR a line of its own", "***@***"),
        ("é@example.com", "***@example.com"),
        ("a@" + "b" * 500, "a***@***"),
    ],
)
def test_a_log_has_no_email_and_nothing_that_looks_like_a_line(email: str, shown: str) -> None:
    assert masked(email) == shown


async def test_a_lock_out_is_logged_once_however_often_it_is_met(caplog: pytest.LogCaptureFixture) -> None:
    log = LoginLog()
    with caplog.at_level(logging.INFO, "hubbub.logins"):
        for what in ["here:1"] * 50 + ["here:2"]:
            await log.locked(UsedUp("Too many.", what=what, limit=10, retry_after=1), "203.0.113.7", "ann@example.com")
        await log.locked(UsedUp("Too many.", what="came", limit=10, retry_after=1), "", None)
    assert [record.getMessage() for record in caplog.records] == [
        "Logins to a***@example.com from 203.0.113.7 are refused for now: Too many.",
        "Logins to a***@example.com from 203.0.113.7 are refused for now: Too many.",
        "Registrations from nowhere known are refused for now: Too many.",
    ]
