"""The result as one self-contained HTML page."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from hubbub.loadtest.plan import Plan
from hubbub.loadtest.profile import Profile
from hubbub.loadtest.report import LATE_WORDS
from hubbub.loadtest.verdict import GOOD_MS, rule

_SIDES = ("writes", "reads")
_FIGURES = ("rate", "p50", "p99", "max", "uncorrected_p99")


def page(content: dict[str, Any], plan: Plan) -> str:
    """``content`` is the JSON result. The page loads nothing, and its policy forbids that it ever does."""
    folder = files(__name__)
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(_text(folder, "report.html"))
    data = _data(content, plan)
    return template.render(
        result=content,
        verdict=_verdict(content),
        rule=rule(),
        late_words=LATE_WORDS,
        good_ms={name: (("p95", p95), ("p99", p99)) for name, (p95, p99) in GOOD_MS.items()},
        metrics=sorted(data["metrics"]),
        settings=_settings(content),
        # "<" is all that could end the element that the JSON stands in.
        data=Markup(json.dumps(data).replace("<", "\\u003c")),  # noqa: S704
        style=Markup(_text(folder, "report.css")),  # noqa: S704 - our own file
        script=Markup(_text(folder, "report.js")),  # noqa: S704
        plot_style=Markup(_text(folder, "uplot/uPlot.min.css")),  # noqa: S704
        plot_script=Markup(_text(folder, "uplot/uPlot.iife.min.js")),  # noqa: S704
    )


def _text(folder: Any, name: str) -> str:
    return str(folder.joinpath(name).read_text(encoding="utf-8"))


def _verdict(content: dict[str, Any]) -> str:
    """``short`` is a pass that missed latency goals."""
    judged = content["verdict"]
    return "short" if judged["result"] == "pass" and judged["missed"] else str(judged["result"])


def _settings(content: dict[str, Any]) -> list[tuple[str, str]]:
    settings = dict(content["settings"])
    stages = settings.pop("stages", [])
    settings["stages"] = ", ".join(
        f"{each['seconds']:g} s at {each['start']:.0%}"
        + (f" to {each['end']:.0%}" if each["end"] != each["start"] else "")
        for each in stages
    )
    settings["mix"] = ", ".join(f"{route} {weight}" for route, weight in settings.get("mix", {}).items())
    size = settings.pop("message_size", None)
    if size:
        skewed = f"log-normal, median {size['low']}, sigma {size['sigma']:g}"
        even = f"{size['low']}" if size["low"] == size["high"] else f"{size['low']} to {size['high']}"
        settings["message size"] = f"{skewed if size['sigma'] else even} characters"
    generator = content["generator"]
    settings["generator"] = f"{generator['cores']:.2f} cores, {generator['cpu_us_per_request']:.1f} µs of CPU a request"
    return [(name, str(value)) for name, value in (settings | _measured(content)).items()]


def _measured(content: dict[str, Any]) -> dict[str, Any]:
    """When, with what and where, as far as the result says."""
    machine = dict(content.get("machine", {}))
    memory = machine.pop("memory_bytes", None)
    known = {"date": content.get("date"), "version": content.get("version"), "commit": content.get("commit")}
    known |= {**machine, "memory": f"{memory / 1e9:.1f} GB" if memory else None}
    return {name: value for name, value in known.items() if value is not None}


def _data(content: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """What the plots show, column by column; seconds in which nothing is known are null."""
    seconds = content["seconds"]
    ends = [second["second"] for second in seconds]
    samples = {sample["second"]: sample for sample in content["service"]}
    ordered = [samples.get(second["second"], {}) for second in seconds]
    names = sorted({name for sample in ordered for name in sample.get("parts", {})})
    metrics = sorted({name for sample in ordered for name in sample.get("metrics", {})})

    def part(name: str, figure: str) -> list[float | None]:
        return [sample.get("parts", {}).get(name, {}).get(figure) for sample in ordered]

    return {
        "seconds": ends,
        **{side: {figure: [second[side][figure] for second in seconds] for figure in _FIGURES} for side in _SIDES},
        "asked": {
            side: _asked(Profile(plan.stages, rate), ends)
            for side, rate in zip(_SIDES, (plan.writes, plan.reads), strict=True)
        },
        "failed": [second["writes"]["failed"] + second["reads"]["failed"] for second in seconds],
        "late": [second["writes"]["late"] + second["reads"]["late"] for second in seconds],
        "waiting": [second["waiting"] for second in seconds],
        "cores": {name: part(name, "cores") for name in names}
        | {"generator": [sum(each["cores"]) for each in seconds]},
        "memory": {name: part(name, "bytes") for name in names},
        "metrics": {name: [sample.get("metrics", {}).get(name) for sample in ordered] for name in metrics},
        "spectrum": _spectrum(content),
    }


def _asked(profile: Profile, ends: list[int]) -> list[float]:
    """A second, between one point and the next."""
    return [
        (profile.due_by(end) - profile.due_by(begin)) / (end - begin)
        for begin, end in zip([0, *ends], ends, strict=False)
    ]


def _spectrum(content: dict[str, Any]) -> dict[str, list[float | None]]:
    """All curves are read at the same percents, as far as each goes; x is 1 / (1 - share)."""
    curves = {
        f"{side}{suffix}": content[side][f"{before}spectrum"]
        for side in _SIDES
        for suffix, before in (("", ""), ("_uncorrected", "uncorrected_"))
    }
    curves |= {f"{side}_served": (content[side]["served_ms"] or {}).get("spectrum", []) for side in _SIDES}
    longest = max(curves.values(), key=len)
    columns: dict[str, list[float | None]] = {"x": [1 / (1 - percent / 100) for percent, _ in longest]}
    for name, curve in curves.items():
        known: list[float | None] = [ms or None for _, ms in curve]
        columns[name] = known + [None] * (len(longest) - len(curve))
    return columns
