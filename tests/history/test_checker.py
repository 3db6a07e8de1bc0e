"""The checker itself: it accepts what may happen, and says no to each thing that may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.history.check import faults
from tests.history.record import Blind, Final, History, Kind, Operation


def op(
    kind: Kind,
    begun: float,
    ended: float,
    status: int = 200,
    *,
    client: int = 0,
    number: int = 0,
    body: str = "",
    seen: list[tuple[int, str]] | None = None,
    limit: int = 20,
) -> Operation:
    return Operation(client, kind, 0, begun, ended, status, number, body, "", limit, seen or [])


def of(*operations: Operation, final: list[tuple[int, str]] | None = None, count: int | None = None) -> list[str]:
    history = History(1, list(operations))
    if final is not None:
        history.final = [Final(final, len(final) if count is None else count)]
    return faults(history)


A = op("post", 1, 2, number=1, body="a")
B = op("post", 3, 4, number=2, body="b")
EDIT = op("edit", 5, 6, number=1, body="a edited")


def test_what_may_happen() -> None:
    assert not of(A, B, EDIT, final=[(1, "a edited"), (2, "b")])
    assert not of(A, op("newest", 1.5, 1.7), final=[(1, "a")]), "not acknowledged yet, so it need not be there"
    assert not of(A, op("newest", 1.5, 1.7, seen=[(1, "a")]), final=[(1, "a")]), "but it may"
    assert not of(A, op("post", 3, 4, 0, body="b"), final=[(1, "a")]), "no answer, and not stored"
    assert not of(A, op("post", 3, 4, 0, body="b"), final=[(1, "a"), (2, "b")]), "no answer, and stored"
    assert not of(A, op("edit", 5, 6, 503, number=1, body="x"), final=[(1, "a")])
    assert not of(A, op("edit", 5, 6, 503, number=1, body="x"), final=[(1, "x")])
    assert not of(
        A, op("post", 3, 4, 503, body="lost"), op("post", 5, 6, number=3, body="c"), final=[(1, "a"), (3, "c")]
    )
    assert not of(A, op("delete", 5, 6, 204, number=1), final=[])
    assert not of(op("post", 1, 2, 0, body="a"), op("post", 2, 3, number=1, body="a"), final=[(1, "a")])


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("acknowledged number 1 is lost", of(A, B, final=[(2, "b")])),
        ("was given twice", of(A, op("post", 3, 4, client=1, number=1, body="b"), final=[(1, "a")])),
        ("got 1 and then 1", of(A, op("post", 3, 4, number=1, body="b"), final=[(1, "a")])),
        ("got 2 and then 1", of(op("post", 1, 2, number=2, body="a"), op("post", 3, 4, number=1, body="b"))),
        ("a retry got number 2", of(A, op("post", 3, 4, number=2, body="a"))),
        ("stored twice", of(op("post", 1, 2, 0, body="a"), A, final=[(1, "a"), (2, "a")])),
        ("is missing from a read", of(A, op("newest", 3, 4))),
        ("is missing from a read", of(A, op("one", 3, 4, 404, number=1))),
        ("is missing from a read", of(A, B, op("after", 5, 6, number=1))),
        ("is missing from a read", of(A, B, op("newest", 5, 6, seen=[(2, "b")], limit=2))),
        (
            "is missing from a read",
            of(op("post", 1, 9, 0, body="a"), op("newest", 2, 3, seen=[(1, "a")]), op("newest", 4, 5)),
        ),
        ("went back to a text", of(A, EDIT, op("newest", 7, 8, seen=[(1, "a")]))),
        (
            "went back to a text",
            of(
                A,
                op("edit", 5, 9, 0, number=1, body="x"),
                op("one", 6, 7, number=1, seen=[(1, "x")]),
                op("one", 7.5, 8, number=1, seen=[(1, "a")]),
            ),
        ),
        ("stored number 1 went back", of(A, EDIT, final=[(1, "a")])),
        ("stored number 1 went back", of(A, EDIT, op("edit", 7, 8, number=1, body="c"), final=[(1, "a edited")])),
        ("text that nobody wrote there", of(A, op("newest", 3, 4, seen=[(1, "b")]))),
        ("text that nobody wrote there", of(A, op("newest", 3, 4, seen=[(1, "a edited")]), EDIT)),
        ("has a text that nobody wrote", of(A, final=[(1, "b")])),
        ("shown after it was deleted", of(A, op("delete", 3, 4, 204, number=1), op("newest", 5, 6, seen=[(1, "a")]))),
        ("was deleted", of(A, op("delete", 3, 4, 204, number=1), final=[(1, "a")])),
        ("repeats a number", of(A, op("newest", 3, 4, seen=[(1, "a"), (1, "a")]))),
        ("the count is 2", of(A, final=[(1, "a")], count=2)),
        ("1 numbers are missing", of(A, op("post", 3, 4, number=3, body="b"), final=[(1, "a"), (3, "b")])),
        ("was answered 404", of(A, op("edit", 3, 4, 404, number=1, body="x"))),
        ("a post was answered 422", of(op("post", 1, 2, 422, body="a"))),
    ],
)
def test_what_may_not(fault: str, found: list[str]) -> None:
    assert any(fault in sentence for sentence in found), found


def test_lists_may_lag_while_a_lost_redis_is_refilled() -> None:
    history = History(1, [A, op("newest", 3, 4), EDIT], [Blind(2.5, 4.5)], [Final([(1, "a edited")], 1)])
    assert not faults(history)
    history.blind = [Blind(5, 6)]
    assert len(faults(history)) == 1


def test_a_history_is_the_same_when_it_was_kept(tmp_path: Path) -> None:
    history = History(7, [A, B, op("newest", 3, 4, seen=[(1, "a")])], [Blind(1, 2)], [Final([(1, "a")], 1)])
    history.save(tmp_path / "history")
    assert History.load(tmp_path / "history") == history
