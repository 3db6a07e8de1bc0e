"""The script that sets a checkout up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_an_environment_whose_making_was_interrupted_is_finished(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    for empty in ("requirements.lock", "requirements-dev.lock", "pyproject.toml", "scripts/uv.lock"):
        (tmp_path / empty).touch()
    # Ctrl-C came before pip was there.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / ".venv")], check=True)
    words = [str(tmp_path / "scripts" / "setup.sh"), "requirements.lock"]
    done = subprocess.run(words, env=os.environ | {"PIP_NO_INDEX": "1"}, capture_output=True, text=True, check=False)
    assert "No module named pip" not in done.stderr
    subprocess.run([str(tmp_path / ".venv" / "bin" / "python"), "-m", "pip", "--version"], check=True)
