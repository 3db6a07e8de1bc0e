"""Imports run one way, as docs/architecture.md has it."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "hubbub"

# What each package may import of ours, besides itself. The modes never import each other, so nothing knows both.
SHARED = {"__version__", "loop_lag", "measures", "tracing"}
MAY = {
    "chat": set(),
    "http": {"chat", "console"},
    "embedded": {"chat", "http", "schema", "settings"},
    "cluster": {"chat", "http", "schema", "settings"},
    "schema": set(),
    "loadtest": set(),
    "console": set(),
}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("hubbub.")}
    return found


def test_every_room_imports_only_what_it_may() -> None:
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert rooms == set(MAY)
    for room, may in MAY.items():
        for file in (SOURCE / room).rglob("*.py"):
            wrong = imports(file) - may - {room} - SHARED
            assert not wrong, f"{file} imports {wrong}"


def test_what_a_chat_is_knows_neither_wing_in_prose_neither() -> None:
    for file in (SOURCE / "chat").rglob("*.py"):
        text = file.read_text().lower()
        words = ("redis", "rabbitmq", "mysql", "sqlite", "elasticsearch", "opensearch", "embedded", "cluster")
        found = [word for word in words if word in text]
        assert not found, f"{file} speaks of {found}"
