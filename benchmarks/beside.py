"""How long a user waits beside each kind of hostile client, and how much memory the process then has.

    PYTHONPATH=src:. python -m benchmarks.beside [--cluster] [--seconds 5] [--only PATTERN]

The user posts a message and lists the chat, twenty times a second. The kinds are those of benchmarks/overload.py. The
service is embedded, or one API process and one writer of a private cluster. All run on the same cores, the hostile
clients with the lower priority.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import click
import httpx
import psutil
from benchmarks.overload import Hostile, attacker, hostiles
from tests.large import EMAIL, LONGEST, PASSWORD, SEARCHED

from hubbub.loadtest.cluster import ClusterStack
from hubbub.loadtest.process import Part

_EVERY_S = 0.05
_LONG = 300
_SEARCHED = 1000
_QUIET_S = 10.0  # the longest wait until the user is served as before


class Person:
    """A user with a chat, on one connection."""

    def __init__(self, url: str, email: str) -> None:
        self._parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(self._parts.hostname or "", self._parts.port, timeout=60)
        account = {"name": "A", "email": email, "password": PASSWORD}
        self._cookie = ""
        answer = self.ask("POST", "/auth/register", account)
        self._cookie = answer[1].split(";")[0]
        self.token = json.loads(self.ask("POST", "/applications", {"name": "A"})[2])["token"]
        self.chats = f"/applications/{self.token}/chats"
        self.ask("POST", self.chats)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, str, bytes]:
        content = None if body is None else json.dumps(body)
        headers = {"Cookie": self._cookie} | ({"Content-Type": "application/json"} if content else {})
        try:
            self._connection.request(method, "/api/v1" + path, content, headers)
            answer = self._connection.getresponse()
            return answer.status, answer.headers.get("Set-Cookie", ""), answer.read()
        except OSError as error:
            self._connection.close()
            return 0, str(error), b""

    def use(self, seconds: float) -> dict[str, list[float]]:
        """Send requests and return how long each took, in ms. Refused ones are under "refused"."""
        took: dict[str, list[float]] = {"post": [], "list": [], "refused": []}
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for name, method, body in (("post", "POST", {"body": "x"}), ("list", "GET", None)):
                begun = time.perf_counter()
                status = self.ask(method, self.chats + "/1/messages", body)[0]
                took[name if status == 200 else "refused"].append((time.perf_counter() - begun) * 1000)
            time.sleep(_EVERY_S)
        return took


def _fill(url: str) -> str:
    """Make the hostile user's application and return its token. Chat 1 has the longest texts, chat 2 those that take a
    search longest.
    """
    owner = Person(url, EMAIL)
    for _ in range(2):
        owner.ask("POST", owner.chats)
    with httpx.Client(base_url=url + "/api/v1") as client, ThreadPoolExecutor(20) as threads:
        client.post("/auth/login", json={"email": EMAIL, "password": PASSWORD}).raise_for_status()

        def post(chat: int, body: str) -> None:
            client.post(f"{owner.chats}/{chat}/messages", json={"body": body}).raise_for_status()

        list(threads.map(lambda _: post(1, LONGEST), range(_LONG)))
        list(threads.map(lambda at: post(2, f"{SEARCHED[at % 2]} {at}"[:10_000]), range(_SEARCHED)))
    return str(owner.token)


def _all(pid: int) -> list[int]:
    """The process and its children."""
    return [pid, *(child.pid for child in psutil.Process(pid).children())]


def _memory(pid: int, name: str) -> float:
    """Return the memory of a process and its children in MB: VmRSS is the present one, VmHWM the peak since it was
    reset."""
    return sum(_of_one(each, name) for each in _all(pid))


def _of_one(pid: int, name: str) -> float:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines[name].split()[0]) / 1000


def _show(name: str, took: dict[str, list[float]], pid: int, before: float) -> None:
    def worst(times: list[float]) -> str:
        times = sorted(times)
        return f"{times[len(times) // 2]:.0f} / {times[-1]:.0f} ms" if times else "none"

    peak, after = _memory(pid, "VmHWM"), _memory(pid, "VmRSS")
    click.echo(
        f"| {name} | {worst(took['post'])} | {worst(took['list'])} | {len(took['refused'])}"
        f" | {before:.0f} / {peak:.0f} / {after:.0f} MB |"
    )


def _beside(person: Person, url: str, pid: int, name: str, among: list[Hostile], seconds: float) -> None:
    before = _memory(pid, "VmRSS")
    for each in _all(pid):
        Path(f"/proc/{each}/clear_refs").write_text("5")
    attack = multiprocessing.Process(target=attacker, args=(url, among))
    attack.start()
    try:
        _show(name, person.use(seconds), pid, before)
    finally:
        attack.terminate()
        attack.join()
    until = time.monotonic() + _QUIET_S
    while max(person.use(0.5)["post"], default=1000) > 100 and time.monotonic() < until:
        pass


@contextmanager
def _served(*, cluster: bool) -> Iterator[tuple[str, int]]:
    if cluster:
        with ClusterStack() as stack:
            yield stack.url, stack.apis[0].pid
        return
    with tempfile.TemporaryDirectory() as scratch:
        source = os.environ.get("HUBBUB_SOURCE")
        command = ["serve", "--port", "0", "--data", str(Path(scratch) / "data")]
        service = Part(command, {"PYTHONPATH": source} if source else {}, Path(scratch) / "log")
        service.start()
        try:
            yield service.url, service.pid
        finally:
            service.stop()


@click.command()
@click.option("--cluster", is_flag=True)
@click.option("--seconds", default=5.0, show_default=True)
@click.option("--only", default="", metavar="PATTERN")
def main(cluster: bool, seconds: float, only: str) -> None:
    with _served(cluster=cluster) as (url, pid):
        token = _fill(url)
        person = Person(url, "person@example.com")
        click.echo("| beside | post, P50 / max | list, P50 / max | refused | memory before / most / after |")
        click.echo("| --- | --- | --- | --- | --- |")
        for among in [[], *([kind] for kind in hostiles(url, token))]:
            name = among[0].name if among else "nobody"
            if re.search(only, name):
                _beside(person, url, pid, name, among, seconds)


if __name__ == "__main__":
    main()
