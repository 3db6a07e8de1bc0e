"""The files for a test's result: checked before the test, written at its end."""

from __future__ import annotations

import os
from pathlib import Path


class Unwritable(Exception):
    """A file can't be written; the text is one line that says which option's, and why."""


def try_out(files: dict[str, Path]) -> None:
    """Check that each option's file can be written, without changing it. Raises Unwritable."""
    for option, file in files.items():
        if not file.parent.is_dir():
            raise Unwritable(f"{option}: the folder {file.parent} does not exist")
        if file.is_dir():
            raise Unwritable(f"{option}: {file} is a folder, give a file in it")
        try:
            _try(file)
        except OSError as error:
            raise Unwritable(f"{option}: {file} can't be written: {error.strerror}") from error
    places = [file.resolve() for file in files.values() if file.is_file() or not file.exists()]
    if len(set(places)) < len(places):
        raise Unwritable(f"{' and '.join(files)} name the same file: give each its own")


def _try(file: Path) -> None:
    if file.exists() and not file.is_file():  # a pipe or a device: opening it may wait for its reader
        if not os.access(file, os.W_OK):
            raise PermissionError(13, "Permission denied")
        return
    new = not file.exists()
    with file.open("ab"):
        pass
    if new:
        file.unlink()


def write(option: str, file: Path, content: bytes) -> None:
    """Raises Unwritable."""
    try:
        file.write_bytes(content)
    except OSError as error:
        raise Unwritable(f"{option}: {file} could not be written: {error.strerror}") from error
