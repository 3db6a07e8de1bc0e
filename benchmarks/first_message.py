"""How long a new user needs from ``git clone`` to the first message in a browser.

    python -m benchmarks.first_message [--screenshot FILE]

It clones this checkout's last commit into a scratch folder, sets it up without pip's cache, and serves an empty data
folder. Then Chromium opens the set-up link, creates the account, an application and a chat, and sends a message. The
time that a person needs for reading and typing is not included.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from playwright.sync_api import Page, expect, sync_playwright

_ROOT = Path(__file__).parents[1]


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print how long the block took, and the CPU time of child processes that ended in it."""
    began, cpu = time.monotonic(), _cpu()
    yield
    click.echo(f"{name:<40} {time.monotonic() - began:6.1f} s   CPU {_cpu() - cpu:5.1f} s")


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Run a service of this checkout on an empty data folder, and yield its set-up link."""
    command = [str(folder / ".venv/bin/hubbub"), "serve", "--port", "0", "--data", str(folder.parent / "data")]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            link = next(found for line in process.stdout if (found := re.search(r"http\S+/setup#\S+", line)))
            yield link[0]
        finally:
            process.send_signal(signal.SIGTERM)


def first_message(page: Page, link: str) -> None:
    page.goto(link)
    page.get_by_label("Name", exact=True).locator("visible=true").fill("Ann Example")
    page.get_by_label("Email", exact=True).locator("visible=true").fill("ann@example.com")
    page.get_by_label("Password", exact=True).locator("visible=true").fill("a good password")
    page.get_by_role("button", name="Create the account").click()
    page.get_by_label("New application").fill("Our application")
    page.get_by_role("button", name="Create").click()
    page.get_by_label("New chat").fill("General")
    page.get_by_role("button", name="Open").click()
    page.get_by_label("Message", exact=True).fill("Hello everybody")
    page.get_by_label("Message", exact=True).press("Enter")
    expect(page.locator("#messages li p")).to_have_text("Hello everybody")


@click.command()
@click.option("--screenshot", type=click.Path(dir_okay=False, path_type=Path), help="Save the page here at the end.")
def main(screenshot: Path | None) -> None:
    """Time each step of a new user."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HUBBUB_", "PYTHON"))}
    environment["PIP_NO_CACHE_DIR"] = "1"
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        program = shutil.which("chromium")
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(
            executable_path=program, args=arguments
        )  # not timed, because a user's browser is open already
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        folder = Path(scratch) / "hubbub"
        began = time.monotonic()
        with step("git clone"):
            subprocess.run(["git", "clone", "--quiet", f"file://{_ROOT}", folder], check=True)
        with step("scripts/setup.sh requirements.lock"):
            subprocess.run(["scripts/setup.sh", "requirements.lock"], cwd=folder, env=environment, check=True)
        at = time.monotonic()
        with serving(folder) as link:
            click.echo(f"{'hubbub serve until the set-up link':<40} {time.monotonic() - at:6.1f} s")
            with step("the link to the first message (Chromium)"):
                first_message(page, link)
            click.echo(f"{'in all':<40} {time.monotonic() - began:6.1f} s")
            if screenshot is not None:
                page.screenshot(path=screenshot)
        browser.close()


if __name__ == "__main__":
    main()
