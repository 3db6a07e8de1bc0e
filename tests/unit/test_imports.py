"""Packages import only what docs/architecture.md allows."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "hubbub"

# The packages of ours that each may import, besides itself. The two modes never import each other.
SHARED = {"__version__", "loop_lag", "measures", "tracing"}
ALLOWED = {
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


def test_every_package_imports_only_what_it_may() -> None:
    packages = {path.name for path in SOURCE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert packages == set(ALLOWED)
    for package, allowed in ALLOWED.items():
        for file in (SOURCE / package).rglob("*.py"):
            wrong = imports(file) - allowed - {package} - SHARED
            assert not wrong, f"{file} imports {wrong}"


def test_the_chat_package_mentions_neither_mode_nor_its_servers() -> None:
    for file in (SOURCE / "chat").rglob("*.py"):
        text = file.read_text().lower()
        words = ("redis", "rabbitmq", "mysql", "sqlite", "elasticsearch", "opensearch", "embedded", "cluster")
        found = [word for word in words if word in text]
        assert not found, f"{file} mentions {found}"
