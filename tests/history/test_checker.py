"""The checker accepts everything that may happen, and rejects everything that may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.history.check import faults
from tests.history.record import Final, History, Kind, Operation


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
    lag: bool = False,
    late: bool = False,
) -> Operation:
    return Operation(client, kind, 0, begun, ended, status, number, body, "", limit, seen or [], lag, late)


def of(
    *operations: Operation,
    final: list[tuple[int, str]] | None = None,
    listed: list[tuple[int, str]] | None = None,
    count: int | None = None,
) -> list[str]:
    history = History(1, list(operations))
    if final is not None:
        history.final = [Final(final, final if listed is None else listed, len(final) if count is None else count)]
    return faults(history)


A = op("post", 1, 2, number=1, body="a")
B = op("post", 3, 4, number=2, body="b")
GONE = op("delete", 3, 4, 204, number=1)
EDIT = op("edit", 5, 6, number=1, body="a edited")


def test_allowed_histories_pass() -> None:
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
    assert not of(A, B, op("post", 5, 6, number=1, body="a"), final=[(1, "a"), (2, "b")]), "a retry of what was told"
    assert not of(A, op("delete", 3, 4, 204, number=1), op("post", 5, 6, number=1, body="a"), final=[]), "also deleted"


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
        ("lists differ", of(A, B, final=[(1, "a"), (2, "b")], listed=[(1, "a")])),
        ("stored number 1 was deleted", of(A, GONE, op("post", 5, 6, number=1, body="a"), final=[(1, "a")])),
        ("a retry got number 2", of(A, GONE, op("post", 5, 6, number=2, body="a"), final=[(2, "a")])),
        ("was answered 404", of(A, op("edit", 3, 4, 404, number=1, body="x"))),
        ("a post was answered 422", of(op("post", 1, 2, 422, body="a"))),
    ],
)
def test_each_broken_promise_is_found(fault: str, found: list[str]) -> None:
    assert any(fault in sentence for sentence in found), found


def test_only_reads_marked_as_lagging_may_lag() -> None:
    assert not of(A, op("newest", 3, 4, lag=True), EDIT, final=[(1, "a edited")])
    assert not of(A, EDIT, op("newest", 7, 8, seen=[(1, "a")], lag=True), final=[(1, "a edited")])
    assert len(of(A, EDIT, op("newest", 7, 8, seen=[(1, "a")]))) == 1
    assert len(of(A, op("newest", 3, 4, seen=[(1, "b")], lag=True))) == 1, "what was never written is never right"


ONE = op("edit", 3, 6, number=1, body="one")
OTHER = op("edit", 4, 7, client=1, number=1, body="other")


def saw(body: str, at: float) -> Operation:
    return op("one", at, at + 0.1, client=2, number=1, seen=[(1, body)])


def test_either_of_two_concurrent_edits_may_be_the_last() -> None:
    assert not of(A, ONE, OTHER, final=[(1, "one")])
    assert not of(A, ONE, OTHER, final=[(1, "other")])
    assert not of(A, ONE, OTHER, saw("a", 5), saw("one", 8), saw("one", 9), final=[(1, "one")])
    assert not of(A, ONE, OTHER, saw("one", 5), saw("other", 8), final=[(1, "other")])


@pytest.mark.parametrize(
    "found",
    [
        of(A, ONE, OTHER, saw("one", 8), saw("other", 9), saw("one", 10)),
        of(A, ONE, OTHER, saw("other", 5), saw("one", 8), saw("other", 9)),
        of(A, ONE, OTHER, saw("one", 8), saw("other", 9), final=[(1, "one")]),
        of(A, ONE, OTHER, saw("one", 5), saw("a", 6)),
        of(A, ONE, OTHER, final=[(1, "a")]),
        of(A, ONE, OTHER, op("edit", 8, 9, number=1, body="last"), saw("one", 10)),
    ],
)
def test_a_replaced_text_never_comes_back(found: list[str]) -> None:
    assert any("went back" in sentence for sentence in found), found


def test_an_edit_without_an_answer_may_still_happen() -> None:
    late = op("edit", 3, 4, 0, number=1, body="late", late=True)
    edit = op("edit", 5, 6, number=1, body="edited")
    assert not of(A, late, edit, final=[(1, "late")])
    assert not of(A, late, edit, final=[(1, "edited")])
    assert of(A, op("edit", 3, 4, 503, number=1, body="refused"), edit, final=[(1, "refused")])


def test_an_edit_of_a_message_that_another_deletes_may_get_404() -> None:
    assert not of(A, GONE, op("edit", 3.5, 5, 404, client=1, number=1, body="x"), final=[])


def test_a_saved_history_loads_unchanged(tmp_path: Path) -> None:
    history = History(7, [A, B, op("newest", 3, 4, seen=[(1, "a")])], [Final([(1, "a")], [], 1)])
    history.save(tmp_path / "history")
    assert History.load(tmp_path / "history") == history
