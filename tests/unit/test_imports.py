"""Imports run one way, as docs/architecture.md has it."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "hubbub"

# What each room may import of ours, besides itself.
MAY = {
    "chat": set(),
    "stores": {"chat"},
    "queues": {"chat", "writer"},
    "caches": {"chat"},
    "search": {"chat"},
    "writer": {"chat"},
    "http": {"chat"},
    "loadtest": set(),
    "console": {"http"},
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
            wrong = imports(file) - may - {room, "__version__", "measures", "tracing"}
            assert not wrong, f"{file} imports {wrong}"
