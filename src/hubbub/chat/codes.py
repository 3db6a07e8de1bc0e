"""Codes: 128 random bits that allow their holder one action. A store keeps only their hashes."""

from __future__ import annotations

import hashlib
import secrets
from typing import NamedTuple


class Code(NamedTuple):
    """A code. ``text`` is given to a person, ``hash`` is stored."""

    text: str
    hash: bytes


def new_code() -> Code:
    text = secrets.token_urlsafe(16)
    return Code(text, hash_of(text))


def hash_of(code: str) -> bytes:
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).digest()
