"""All code blocks of the README, the tutorial and the client page work when pasted in order, and also a second time.

Each page gets a folder like a fresh checkout, and a network of its own, in which port 3000 is free.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_WITHIN_S = 240
_OWN_NETWORK = ["unshare", "--net", "bash", "-c", 'ip link set lo up && exec "$@"', "-"]


def own_network() -> bool:
    """Return whether a test can have its own network on this machine."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    return subprocess.run([*_OWN_NETWORK, "true"], capture_output=True, check=False).returncode == 0


def checkout(folder: Path) -> Path:
    """Make a folder like a checkout whose environment is set up, so that setting it up again does nothing."""
    folder.mkdir()
    for each in ROOT.iterdir():
        if each.name not in (".git", ".venv", "hubbub-data"):
            (folder / each.name).symlink_to(each)
    environment = folder / ".venv"
    environment.mkdir()
    for each in Path(sys.prefix).iterdir():
        if each.name != "installed":
            (environment / each.name).symlink_to(each)
    sums = "sha256sum <(cat requirements.lock pyproject.toml) | sed 's/ .*/  -/' > .venv/installed"
    subprocess.run(["bash", "-c", sums], cwd=folder, check=True)
    return folder


def session_of(page: str) -> str:
    """Return the page's blocks as one shell session. Python blocks are saved and run, as a reader would."""
    blocks = _BLOCK.findall((ROOT / page).read_text())
    assert blocks
    lines = []
    for number, (language, text) in enumerate(blocks):
        if language == "python":
            text = f"cat > block{number}.py <<'END OF BLOCK'\n{text}END OF BLOCK\n.venv/bin/python block{number}.py\n"
        lines.append(text)
    return "".join(lines)


def run(session: str, folder: Path) -> str:
    """Run the session and return its output. A failed command fails the test. Background processes end with it."""
    process = subprocess.Popen(
        [*_OWN_NETWORK, "bash", "-euo", "pipefail", "-c", session],
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=(folder / "printed").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        status = process.wait(_WITHIN_S)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    printed = (folder / "printed").read_text()
    assert status == 0, printed
    assert "Traceback" not in printed
    return printed


# Each page, and texts that it prints, in order.
PAGES = [
    ("README.md", ['{"message":"Account created."}', '{"chatNumber":1}', '{"messageNumber":1}', '"body":"Hello"']),
    ("docs/tutorial.md", ['{"messageNumber":1}', "Ann: Hello from the terminal", "Echo: You said: How are you?"]),
    ("docs/client.md", ["Ann: Hello, everybody", "three", "422"]),
]


@pytest.mark.skipif(not own_network(), reason="needs a network namespace: root, unshare and ip")
@pytest.mark.parametrize(("page", "expected"), PAGES, ids=[page for page, _ in PAGES])
def test_a_page_can_be_pasted_twice(page: str, expected: list[str], tmp_path: Path) -> None:
    folder = checkout(tmp_path / "hubbub")
    # The client page assumes a running service. The other pages start one.
    begin = ".venv/bin/hubbub serve &\n" if page == "docs/client.md" else ""
    for number, turn in enumerate(("first", "second"), 1):
        printed = run(begin + session_of(page), folder)
        at = 0
        for line in expected:
            if turn == "second" and line == '{"message":"Account created."}':
                continue  # the account exists already
            assert line in printed[at:], printed
            at = printed.index(line, at)
        if page == "docs/tutorial.md":  # each turn a greeting, a question and its answer: no program answers itself
            assert f"Restored {3 * number} messages" in printed, printed
