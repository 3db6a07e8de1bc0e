"""A real browser: Debian's Chromium, headless."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed: scripts/install-browser.sh")
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start for root, and CI runs as root.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        launched = playwright.chromium.launch(executable_path=program, args=arguments)
        yield launched
        launched.close()


@pytest.fixture
def screenshots() -> Path | None:
    """The folder for screenshots of the pages, if HUBBUB_SCREENSHOTS names one."""
    folder = os.environ.get("HUBBUB_SCREENSHOTS")
    if folder is None:
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)
