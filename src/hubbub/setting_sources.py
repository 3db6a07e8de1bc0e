"""Where settings come from: flags over the environment over a TOML file, each value with its source."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from hubbub.setting_kinds import quoted

PREFIX = "HUBBUB_"
_DEFAULT_FILE = "hubbub.toml"
_LARGEST_FILE = 1024 * 1024
# Variables of ours that are no settings: the file, and what the load tester and the tests read themselves.
_OTHERS = re.compile(r"HUBBUB_(CONFIG|PEERS|PERFTEST_KEY|SEARCH_SERVERS|SCREENSHOTS|SOURCE|MODEL_\w+)")


class SettingValue(NamedTuple):
    """A setting's value, where it was read, and what comes before a value there."""

    value: Any
    source: str
    before: str
    toml: bool = False

    def written(self, text: str) -> str:
        """How another value is written in the same place."""
        bare = not self.toml or re.fullmatch(r"\d+|true|false", text)
        return self.before + (text if bare else json.dumps(text))


class FileUnusable(Exception):
    """The file of settings can't be read; the text names it and says why."""


def from_flags(flags: Mapping[str, Any]) -> dict[str, SettingValue]:
    """A flag that was not given is None."""
    found = {}
    for name, value in flags.items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            found[name] = SettingValue(value, f"flag {flag}", f"{flag} ")
    return found


def from_environment(names: Collection[str]) -> dict[str, SettingValue]:
    found = {}
    for name in names:
        variable = PREFIX + name.upper()
        if variable in os.environ:
            value = os.environ[variable]
            found[name] = SettingValue(value, f"environment {variable}", f"{variable}=")
    return found


def unknown_variables(names: Collection[str]) -> Iterator[str]:
    """A sentence for each variable that looks like a setting and is none. They are not refused: an orchestrator makes
    such variables too, as Kubernetes does for a service that is called hubbub.
    """
    known = [name.upper() for name in names]
    for variable in sorted(os.environ):
        bare = variable.upper().removeprefix(PREFIX)
        ours = variable == PREFIX + bare and bare in known
        if variable.upper().startswith(PREFIX) and not ours and not _OTHERS.fullmatch(variable):
            yield f"environment {_name(variable)}: No such setting; it is ignored.{_nearest(bare, known, PREFIX)}"


def from_file(names: Collection[str]) -> tuple[dict[str, SettingValue], list[str]]:
    """What the file has, and a line for each of its keys that is no setting. Raises FileUnusable."""
    path = os.environ.get(PREFIX + "CONFIG") or _DEFAULT_FILE
    text = _text(path)
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileUnusable(_syntax(path, error)) from None
    found, faults = {}, []
    for name, value in content.items():
        source = f"file {path}{_line_of(name, text)}"
        if name in names:
            found[name] = SettingValue(value, source, f"{name} = ", toml=True)
        else:
            faults.append(f"{_name(name)} ({source}): There is no such setting.{_nearest(name, names)}")
    return found, faults


def _text(path: str) -> str:
    """The content of the file; empty when it is the default one and is not there."""
    named = f"{_name(path)} (environment {PREFIX}CONFIG)" if path != _DEFAULT_FILE else _DEFAULT_FILE
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise FileUnusable(
                f"{named}: This file is larger than {_LARGEST_FILE} bytes. Name a TOML file of settings."
            )
        return content.decode()
    except FileNotFoundError:
        if path == _DEFAULT_FILE:
            return ""
        raise FileUnusable(
            f"{named}: There is no such file. Name one that is there, or unset {PREFIX}CONFIG."
        ) from None
    except OSError as error:
        raise FileUnusable(f"{named}: This file can't be read: {error.strerror}. Let this user read it.") from None
    except ValueError:
        raise FileUnusable(f"{named}: This is not UTF-8 text. Name a TOML file of settings.") from None


def _syntax(path: str, error: Exception) -> str:
    """tomllib ends its message with the place, and quotes at most a key or a character."""
    said, _, place = str(error).removesuffix(")").partition(" (at ")
    line = re.match(r"line (\d+)", place)
    where = f"file {_name(path)}" + (f" line {line[1]}" if line else "")
    what = "too deep" if isinstance(error, RecursionError) else said.rstrip(".")
    return f"{where}: This is not TOML: {_name(what)}. Write settings as NAME = VALUE, with texts in double quotes."


def _line_of(name: str, text: str) -> str:
    """Where the file gives it, as near as can be said without the parser's help."""
    key = re.escape(name)
    found = re.search(rf"""^[ \t]*(?:\[+[ \t]*)?["']?{key}["']?[ \t]*[=.\]]""", text, re.MULTILINE)
    return f" line {text.count(chr(10), 0, found.start()) + 1}" if found else ""


def _name(text: str) -> str:
    """A name from the user's input, on one line."""
    return text if text.isprintable() and len(text) <= 200 and "@" not in text else quoted(text)


def _nearest(name: str, names: Collection[str], before: str = "") -> str:
    near = get_close_matches(name, list(names), n=1)
    return f" Did you mean {before}{near[0]}?" if near else " hubbub config shows all there are."
