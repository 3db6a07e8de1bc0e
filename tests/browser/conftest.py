"""A real browser: Debian's Chromium, headless."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.visitor import Visitor
from tests.conftest import Service


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


@pytest.fixture
def visit(browser: Browser, embedded: Service) -> Iterator[Callable[[], Visitor]]:
    """A function that opens the console in a new browser context."""
    contexts = []

    def open_console() -> Visitor:
        contexts.append(browser.new_context())
        return Visitor(contexts[-1], embedded.url)

    yield open_console
    for context in contexts:
        context.close()
