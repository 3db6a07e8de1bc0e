"""Connections to a database that is away leave nothing behind."""

from __future__ import annotations

import gc
import socket
import ssl

import pytest
from pymysql.err import OperationalError

from hubbub.cluster.engine import engine_of


def contexts() -> int:
    return sum(isinstance(each, ssl.SSLContext) for each in gc.get_objects())


def test_attempts_to_connect_do_not_fill_the_memory() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    gc.collect()
    gc.disable()  # a serving process collects garbage rarely
    try:
        before = contexts()
        for _ in range(10):
            with pytest.raises(OperationalError):
                engine_of(f"mysql://user:password@127.0.0.1:{port}/hubbub").raw_connection()
        assert contexts() <= before + 1
    finally:
        gc.enable()
