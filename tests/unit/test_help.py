"""What ``--help`` prints fits a terminal of 80 columns, and is not cut off."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from hubbub.cli import main


def _all(command: click.Command, *names: str) -> Iterator[tuple[str, ...]]:
    yield names
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _all(found, *names, name)


@pytest.mark.parametrize("names", list(_all(main)), ids=" ".join)
def test_help_is_not_cut_off(names: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(main, [*names, "--help"], terminal_width=80)
    assert shown.exit_code == 0
    usage, *lines = shown.output.splitlines()
    assert usage.startswith("Usage: ")
    assert not [line for line in lines if line.endswith("...")], "a command's sentence is cut off"
    assert all(len(line) <= 80 for line in lines)


def test_the_help_of_adding_an_operator_is_a_sentence() -> None:
    shown = CliRunner().invoke(main, ["operators", "add", "--help"]).output
    assert "Make the account with this email an operator." in shown
