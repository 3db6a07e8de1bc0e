"""The load test's page in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser

from hubbub.loadtest.mix import CHATS, SEND
from hubbub.loadtest.page import page
from hubbub.loadtest.plan import Plan
from hubbub.loadtest.profile import steady
from hubbub.loadtest.report import as_json
from hubbub.loadtest.requirement import Requirement
from hubbub.loadtest.run import Run
from hubbub.loadtest.verdict import Usage, result
from tests.loadtest.test_figures import answers, second

HOSTILE = "</script><script>document.title='broken'</script><b>"
PLOTS = ("throughput", "writes", "reads", "spectrum", "trouble", "cores", "memory")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = Plan(100, 100, 4, steady(20))
    run = Run(plan, 0.0, took_s=20.0, peak_bytes=50_000_000)
    for index in range(20):
        routes = {SEND: answers([1000 * (index + 1)] * 100, {HOSTILE: 1}, 500), CHATS: answers([700] * 100)}
        run.add([second(index, routes, late=((1, 0, 2), (0, 0, 0)), waiting=2)])
    samples = [{"second": each + 1, "parts": {"Service": {"cores": 0.5, "bytes": 9e7}}} for each in range(20)]
    checks = [Requirement("writes.p99<1ms").check(run)]
    shown = result(run, parts={"Service": Usage(0.5, 10**8)}, samples=samples, checks=checks)
    settings = {"url": f"http://x/{HOSTILE}", "stages": [{"seconds": 20, "start": 1, "end": 1}], "mix": {"send": 1}}
    folder = tmp_path_factory.mktemp("page") / "report.html"
    folder.write_text(page(as_json(shown, settings) | {"runs": []}, plan), encoding="utf-8")
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_draws_all_plots_fits_its_width_and_loads_nothing_else(
    browser: Browser, file: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(file.as_uri())
    for name in PLOTS:
        tab.wait_for_selector(f"[data-plot={name}] canvas")
        painted = tab.eval_on_selector(
            f"[data-plot={name}] canvas",
            "each => each.getContext('2d').getImageData(0, 0, each.width, each.height).data.some(value => value)",
        )
        assert painted, name
    assert complaints == []
    assert asked == [file.as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.title() == "Failed: Hubbub performance test"
    assert HOSTILE in tab.inner_text("body")  # as text
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(17, 22, 29)") is (scheme == "dark")
    tab.close()


def test_every_figure_is_there_without_javascript(browser: Browser, file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(file.as_uri())
    text = tab.inner_text("body")
    for word in ("✗ Failed", "writes.p99<1ms", "from sent", "2,000", "never sent"):
        assert word in text
    context.close()
