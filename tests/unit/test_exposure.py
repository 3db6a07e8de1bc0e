"""What ``hubbub serve`` warns about when other machines can reach it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hubbub.exposure import risks
from hubbub.settings import load


@pytest.mark.parametrize(
    ("address", "flags", "named"),
    [
        ("127.0.0.1", {}, []),
        ("127.1.2.3", {}, []),
        ("::1", {}, []),
        ("0.0.0.0", {}, ["tls_cert", "registration"]),  # noqa: S104
        ("::", {"registration": "invited"}, ["tls_cert"]),
        ("fe80::1%eth0", {"registration": "closed", "proxies": ("10.0.0.1",)}, []),
        ("192.0.2.1", {"tls_cert": Path("c"), "tls_key": Path("k")}, ["registration"]),
    ],
)
def test_each_risk_is_a_line_that_names_the_setting(address: str, flags: dict[str, Any], named: list[str]) -> None:
    found = risks(load(**flags), address)
    assert len(found) == len(named)
    for line, name in zip(found, named, strict=True):
        assert f"set {name}" in line
        assert address in line
        assert "\n" not in line
