"""Whether memory, files, write-ahead logs and latency stay the same in a long run at half the standard load.

    python -m benchmarks.endurance --out endurance.json [--seconds 3600] [--fill 10000000] [--data DIR]

It runs `hubbub perftest` against a service with a data folder of its own, and samples the process every ten seconds.
Before and after, with ten thousand messages and with the number of `--fill`, it reads pages one after another over one
connection: the newest page, and one deep in a chat by `before=` and by `page=`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import click
import httpx
import psutil

from hubbub.loadtest.process import Part

_EVERY_S = 10.0
_READS = 2000
_WORKERS = 100


def sample(pid: int, data: Path, started: float) -> dict[str, float]:
    processes = [psutil.Process(pid), *psutil.Process(pid).children()]
    files = [path for path in data.iterdir() if path.is_file()]
    return {
        "second": time.monotonic() - started,
        "resident_bytes": sum(each.memory_info().rss for each in processes),
        "files_open": sum(each.num_fds() for each in processes),
        "threads": sum(each.num_threads() for each in processes),
        "wal_bytes": sum(path.stat().st_size for path in files if path.name.endswith("-wal")),
        "data_bytes": sum(path.stat().st_size for path in files),
    }


class Watch(threading.Thread):
    """A thread that takes samples until ``done`` is set."""

    def __init__(self, pid: int, data: Path) -> None:
        super().__init__()
        self.samples: list[dict[str, float]] = []
        self.done = threading.Event()
        self._pid, self._data, self._started = pid, data, time.monotonic()

    def run(self) -> None:
        while not self.done.wait(_EVERY_S):
            self.samples.append(sample(self._pid, self._data, self._started))


def load(url: str, out: Path, *options: str) -> tuple[dict[str, Any], str]:
    """Run the load test. Return its result and its last line, which says what it kept in the service."""
    command = [sys.executable, "-m", "hubbub", "perftest", "--url", url, "--keep", "--json", str(out), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    sys.stderr.write(done.stdout)
    result: dict[str, Any] = json.loads(out.read_text())
    return result, done.stdout.splitlines()[-1]


def pages(url: str, kept: list[str]) -> dict[str, Any]:
    """Read pages one after another in the chats of the users that tests ``kept``. Return the latencies in milliseconds,
    and how many messages the chats have.
    """
    figures: dict[str, Any] = {}
    users = []
    for each in kept:
        run = re.search(r"perftest\d+(-\w+)?@", each)
        assert run is not None, each
        password = each.rsplit(" ", 1)[1]
        users += [(f"perftest{worker}{run[1] or ''}@example.com", password) for worker in range(_WORKERS)]
    with httpx.Client(base_url=url + "/api/v1") as client:
        chats, messages = [], 0
        for email, password in users:
            client.cookies.clear()
            login = {"email": email, "password": password}
            client.post("/auth/login", json=login).raise_for_status()
            cookie = f"auth_token={client.cookies['auth_token']}"
            (application,) = client.get("/applications?limit=1").json()
            chat = client.get(f"/applications/{application['token']}/chats").json()[0]
            path = f"/applications/{application['token']}/chats/{chat['chatNumber']}/messages"
            chats.append((path, cookie, chat["messagesCount"]))
            messages += chat["messagesCount"]
        client.cookies.clear()
        figures["messages"] = messages
        for name, query in (
            ("newest", lambda count: ""),
            ("deep, before=", lambda count: f"?before={max(count // 2, 2)}"),
            ("deep, page=", lambda count: f"?page={max(count // 20, 1)}"),
        ):
            times = []
            for read in range(_READS):
                path, cookie, count = chats[read % len(chats)]
                begun = time.perf_counter()
                client.get(path + query(count), headers={"cookie": cookie}).raise_for_status()
                times.append((time.perf_counter() - begun) * 1000)
            figures[name] = {"p50": median(times), "p99": quantiles(times, n=100)[98]}
    return figures


@click.command()
@click.option("--seconds", default=3600, show_default=True)
@click.option("--fill", default=10_000_000, show_default=True, help="Messages in the store at the end.")
@click.option("--data", type=click.Path(path_type=Path), help="Keep the data here; otherwise it is deleted.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file for the figures, as JSON.")
def main(seconds: int, fill: int, data: Path | None, out: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="hubbub-endurance-") as scratch:
        folder = data or Path(scratch) / "data"
        service = Part(["serve", "--port", "0", "--data", str(folder)], {}, Path(scratch) / "log")
        service.start()
        try:
            few, first = load(service.url, out, "--writes", "1000", "--reads", "100", "--duration", "5")
            kept = [first]
            found = {"at ten thousand": pages(service.url, kept), "few": few["writes"]["total"]}
            watch = Watch(service.pid, folder)
            watch.start()
            result, second = load(service.url, out, "--writes", "2500", "--reads", "5000", "--duration", str(seconds))
            watch.done.set()
            watch.join()
            found["samples"] = watch.samples
            found["perftest"] = {key: result[key] for key in ("writes", "reads", "seconds", "service", "parts")}
            kept.append(second)
            missing = fill - pages(service.url, kept)["messages"]
            if missing > 0:
                rate = 6000
                length = str(missing // rate + 1)
                kept.append(load(service.url, out, "--writes", str(rate), "--reads", "0", "--duration", length)[1])
            found["at the end"] = pages(service.url, kept)
        finally:
            service.stop()
        out.write_text(json.dumps(found))
    click.echo(json.dumps({key: found[key] for key in ("at ten thousand", "at the end")}, indent=2))


if __name__ == "__main__":
    main()
