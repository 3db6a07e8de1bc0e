"""Our load tester beside vegeta (open model) and wrk (closed model), against the same service in one run.

    scripts/load-testers.sh        # or, with vegeta and wrk on the PATH:
    python -m benchmarks.load_testers [--rate 5000] [--seconds 8] [--rounds 3]

All read the newest page of the same fifty chats over fifty connections. At a fixed rate, vegeta and ours should measure
the same latencies. At a rate above what the service can do, ours should reach the rate of wrk, which sends the next
request as soon as it has an answer.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import click

from hubbub.loadtest.accounts import Accounts
from hubbub.loadtest.client import Client
from hubbub.loadtest.scenario import VirtualUser
from hubbub.loadtest.setup import prepare
from hubbub.loadtest.stack import EmbeddedStack

_WORKERS = 50
_LUA = """
local turn = 0
local users = { %s }
request = function()
  turn = turn %% #users + 1
  return wrk.format("GET", users[turn][1], { Cookie = users[turn][2] })
end
"""


async def fill(url: str) -> list[VirtualUser]:
    users = await prepare(Accounts(url), _WORKERS)
    for user in users:
        client = Client(url, user.cookie)
        for _ in range(10):
            await client.call("POST", path(user), {"body": "x" * 76})
        client.close()
    return users


def path(user: VirtualUser) -> str:
    return f"/applications/{user.token}/chats/{user.chats[0]}/messages"


def run(*command: str, stdin: str | None = None) -> str:
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True).stdout


def ours(url: str, rate: int, seconds: int, folder: Path) -> dict[str, float]:
    file = folder / "ours.json"
    subprocess.run(
        [sys.executable, "-m", "hubbub", "perftest", "--url", url, "--writes", "0", "--reads", str(rate),
         "--mix", "messages=1", "--workers", str(_WORKERS), "--duration", str(seconds), "--json", str(file)],
        capture_output=True, check=False,
    )  # fmt: skip
    reads = json.loads(file.read_text())["reads"]
    return {
        "rate": reads["throughput"],
        **{key: reads["latency_ms"][key] for key in ("p50", "p95", "p99", "max")},
        "sent p50": reads["uncorrected_ms"]["p50"],
        "sent p99": reads["uncorrected_ms"]["p99"],
    }


def vegeta(url: str, rate: int, seconds: int, users: list[VirtualUser], folder: Path) -> dict[str, float]:
    targets = folder / "targets"
    targets.write_text("".join(f"GET {url}/api/v1{path(user)}\nCookie: {user.cookie}\n\n" for user in users))
    results = folder / "results.bin"
    run("vegeta", "attack", f"-targets={targets}", f"-rate={rate}", f"-duration={seconds}s", f"-workers={_WORKERS}",
        f"-connections={_WORKERS}", f"-output={results}")  # fmt: skip
    report = json.loads(run("vegeta", "report", "-type=json", str(results)))
    times = {key.replace("th", ""): ns / 1e6 for key, ns in report["latencies"].items()}
    return {"rate": report["rate"], "p50": times["50"], "p95": times["95"], "p99": times["99"], "max": times["max"]}


def wrk(url: str, seconds: int, users: list[VirtualUser], folder: Path) -> dict[str, float]:
    lua_file = folder / "users.lua"
    lua_file.write_text(_LUA % ",".join(f'{{"/api/v1{path(user)}", "{user.cookie}"}}' for user in users))
    output = run("wrk", "-t1", f"-c{_WORKERS}", f"-d{seconds}s", "--latency", "-s", str(lua_file), url)
    times = {
        key: float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]
        for key, value, unit in re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s)", output)
    }
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert rate is not None, output
    return {"rate": float(rate[1]), "p50": times["50"], "p99": times["99"]}


def line(name: str, rounds: list[dict[str, float]]) -> str:
    cells = [f"{key} {median(each[key] for each in rounds):,.2f}" for key in rounds[0]]
    return f"{name:<28}" + "   ".join(cells)


@click.command()
@click.option("--rate", default=5000)
@click.option("--seconds", default=8)
@click.option("--rounds", default=3)
def main(rate: int, seconds: int, rounds: int) -> None:
    missing = [name for name in ("vegeta", "wrk") if shutil.which(name) is None]
    if missing:
        raise click.ClickException(f"not on the PATH: {', '.join(missing)}; scripts/load-testers.sh brings them")
    found: dict[str, list[dict[str, float]]] = {}
    with EmbeddedStack() as stack, tempfile.TemporaryDirectory() as name:
        users, folder = asyncio.run(fill(stack.url)), Path(name)
        for _ in range(rounds):
            found.setdefault(f"vegeta at {rate}/s", []).append(vegeta(stack.url, rate, seconds, users, folder))
            found.setdefault(f"ours at {rate}/s", []).append(ours(stack.url, rate, seconds, folder))
            found.setdefault("wrk, as fast as answered", []).append(wrk(stack.url, seconds, users, folder))
            found.setdefault("ours, asked for 100000/s", []).append(ours(stack.url, 100_000, seconds, folder))
    print(f"Medians of {rounds} rounds of {seconds} s; requests a second, milliseconds:")
    for each, of_it in found.items():
        print(line(each, of_it))


if __name__ == "__main__":
    main()
