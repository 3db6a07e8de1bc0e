"""docs/limits.md matches the code: each limit has the value that the page says, and none is left out."""

from __future__ import annotations

import importlib
import inspect
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import msgspec
import pytest

from hubbub.chat.commands import AddApplication, AddChat, AddUser, PostMessage
from hubbub.chat.limits import Limit
from hubbub.chat.model import ChatKey
from hubbub.embedded.store import SqliteStore
from hubbub.settings import Settings

ROOT = Path(__file__).parents[2]
_SOURCE = ROOT / "src" / "hubbub"
_UNITS = {"KiB": 1024, "MiB": 1024**2, "s": 1, "min": 60, "day": 86400, "days": 86400}
_BOUND = re.compile(r"^(_?(?:\w+_)?(?:MOST|MAX|REMEMBERED|KNOWN)(?:_\w+)?)(?:: \w+)? = ", re.MULTILINE)
# The load tester, the client and the doctor bound their own work, not that of a service's clients.
_OTHER = {"loadtest", "client.py", "doctor.py"}


class Row(NamedTuple):
    """A row of the page. ``test`` is the file with the test that uses the limit up."""

    name: str
    default: str
    test: str = ""


def cells_of(file: str) -> list[list[str]]:
    lines = (ROOT / "docs" / file).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]


def rows() -> list[Row]:
    return [
        Row(name.strip("`"), default, test) for _, _, name, default, _, test in cells_of("limits.md") if "`" in name
    ]


def rows_for_programs() -> list[Row]:
    return [Row(name.strip("`"), default) for _, name, default in cells_of("api.md") if "`" in name]


def number(text: str) -> float:
    """Parse a number: ``8 MiB`` is 8388608, ``7 days`` 604800 (seconds), ``1,000`` a thousand."""
    value, _, unit = text.partition(" ")
    return float(value.replace(",", "")) * (_UNITS[unit] if unit else 1)


def named(name: str) -> Any:
    """Return what the name stands for: a constant, a field's type, or the default of a setting or parameter."""
    if name in Settings.model_fields:
        return Settings.model_fields[name].default
    path, _, parameter = name.rstrip(")").partition("(")
    module, _, attribute = path.rpartition(".")
    if module.rpartition(".")[2][:1].isupper():
        module, _, kind = module.rpartition(".")
        return get_type_hints(getattr(importlib.import_module(f"hubbub.{module}"), kind), include_extras=True)[
            attribute
        ]
    value = getattr(importlib.import_module(f"hubbub.{module}"), attribute)
    return inspect.signature(value).parameters[parameter].default if parameter else value


def most(value: Any) -> float:
    if hasattr(value, "cache_parameters"):
        return float(value.cache_parameters()["maxsize"])
    if hasattr(value, "__metadata__"):
        (meta,) = value.__metadata__
        assert isinstance(meta, msgspec.Meta)
        return float(meta.max_length if meta.max_length is not None else meta.le or 0)
    return float(value)


@pytest.mark.parametrize("row", [*rows(), *rows_for_programs()], ids=lambda row: row.name)
def test_a_limit_is_what_the_page_says(row: Row) -> None:
    value = named(row.name)
    if isinstance(value, Limit):
        at_once, each = row.default.split(", then 1 per ")
        assert (value.most, value.each_ms) == (number(at_once), number(each) * 1000)
    else:
        assert most(value) == pytest.approx(number(row.default) * (1000 if row.name.endswith("_MS") else 1))


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
def test_the_test_of_a_limit_exists(row: Row) -> None:
    assert (ROOT / "tests" / row.test).is_file()


def test_no_limit_is_left_out() -> None:
    there = {row.name for row in rows()}
    assert len(there) == len(rows()) > 80
    for name in Settings.model_fields:
        if name.startswith(("user_", "address_", "queue_")):
            assert name in there
    for file in _SOURCE.rglob("*.py"):
        path = file.relative_to(_SOURCE)
        if path.parts[0] not in _OTHER:
            for name in _BOUND.findall(file.read_text()):
                assert ".".join((*path.with_suffix("").parts, name)) in there


def test_a_key_costs_no_more_than_the_page_says(tmp_path: Path) -> None:
    sizes = []
    for keyed in (False, True):
        path = tmp_path / f"{keyed}.db"
        store = SqliteStore(path)
        store.apply([AddUser("r", "a@x", "A", "h", 1), AddApplication("T", "T", 1, 1), AddChat("T", None, 1)])
        key, body_hash = ("{:036x}", bytes(32)) if keyed else ("", None)
        store.apply(
            [
                PostMessage(ChatKey("T", 1), at, 1, "ref", "A", "x" * 76, at, key.format(at * 7919) or None, body_hash)
                for at in range(1, 10_001)
            ]
        )
        store.close()
        sizes.append(_size(path))
    assert 50 < (sizes[1] - sizes[0]) / 10_000 < 150


def _size(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        pages, each = (database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    return int(pages * each)
