"""Connections for reading are reused, and closed when they are no longer needed."""

from __future__ import annotations

import sqlite3

import pytest

from hubbub.embedded.readers import Readers


def closed(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return True
    return False


def test_a_connection_is_lent_to_one_reader_at_a_time_and_reused() -> None:
    readers = Readers(lambda: sqlite3.connect(":memory:"))
    with readers.one() as first, readers.one() as second:
        assert first is not second
    with readers.one() as third:
        assert third in (first, second)


def test_a_connection_that_failed_is_not_lent_again() -> None:
    readers = Readers(lambda: sqlite3.connect(":memory:"))
    with pytest.raises(sqlite3.OperationalError), readers.one() as failed:
        failed.execute("SELECT * FROM nowhere")
    assert closed(failed)
    with readers.one() as another:
        assert another is not failed


def test_a_reader_may_finish_after_the_close() -> None:
    readers = Readers(lambda: sqlite3.connect(":memory:"))
    with readers.one() as idle, readers.one() as lent:
        pass
    with readers.one() as lent:
        readers.close()
        assert lent.execute("SELECT 1").fetchone() == (1,)
    assert closed(lent)
    assert closed(idle)
