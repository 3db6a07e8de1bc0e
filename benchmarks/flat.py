"""What a request costs in a store of ten thousand messages and in one of ten million.

    PYTHONPATH=src:. python -m benchmarks.flat [--requests 3000] [--most 10000000]

Each row is a service on a store of its own, with so many messages in one chat, chats in its application and
applications of its owner. One client sends the requests one after another. The figures are CPU microseconds a request
of the processes that serve and commit: the search process builds its index at the same time, which takes minutes with
ten million messages. ``--most`` leaves out the rows with more messages.
"""

from __future__ import annotations

import json
import tempfile
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import click
import psutil
from tests.large import EMAIL, PASSWORD, TOKEN, Sizes, fill

from hubbub.loadtest.process import Part

_STORES = (
    Sizes(messages=10_000, chats=10, members=1, applications=1),
    Sizes(messages=100_000, chats=10, members=1, applications=1),
    Sizes(messages=1_000_000, chats=10, members=1, applications=1),
    Sizes(messages=10_000_000, chats=10, members=1, applications=1),
    Sizes(messages=10_000, chats=1_000, members=1, applications=1),
    Sizes(messages=10_000, chats=100_000, members=1, applications=1),
    Sizes(messages=10_000, chats=10, members=1, applications=100),
    Sizes(messages=10_000, chats=10, members=1, applications=10_000),
)
_CHATS = f"/api/v1/applications/{TOKEN}/chats"
_MESSAGES = f"{_CHATS}/1/messages"


class Client:
    """One connection, logged in as the owner."""

    def __init__(self, url: str) -> None:
        self._http = HTTPConnection(urlsplit(url).netloc, timeout=60)
        self._headers = {"Content-Type": "application/json"}
        account = json.dumps({"email": EMAIL, "password": PASSWORD})
        self._http.request("POST", "/api/v1/auth/login", account, self._headers)
        answer = self._http.getresponse()
        answer.read()
        self._headers["Cookie"] = str(answer.headers["set-cookie"]).split(";")[0]

    def send(self, method: str, path: str, body: str | None = None) -> None:
        self._http.request(method, path, body, self._headers)
        answer = self._http.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"{method} {path} was answered {answer.status}.")


def _cpu_s(pid: int) -> float:
    """Of the process and its children, but for the one that searches."""
    serving = psutil.Process(pid)
    times = [each.cpu_times() for each in (serving, *serving.children()) if each.name() != "hubbub-search"]
    return float(sum(each.user + each.system for each in times))


def measure(sizes: Sizes, requests: int) -> list[float]:
    asked = (
        ("POST", _MESSAGES, '{"body": "A message, about as long as people write."}'),
        ("GET", _MESSAGES, None),
        ("GET", f"{_MESSAGES}?before={sizes.messages // 2}", None),
        ("GET", _CHATS, None),
        ("GET", "/api/v1/applications", None),
    )
    with tempfile.TemporaryDirectory(prefix="hubbub-flat-") as scratch:
        fill(Path(scratch) / "data", sizes)
        service = Part(["serve", "--port", "0", "--data", f"{scratch}/data"], {}, Path(scratch) / "log")
        service.start()
        try:
            client = Client(service.url)
            for _ in range(200):  # the newest page has none of the long texts any more, and caches are filled
                for request in asked:
                    client.send(*request)
            figures = []
            for request in asked:
                before = _cpu_s(service.pid)
                for _ in range(requests):
                    client.send(*request)
                figures.append((_cpu_s(service.pid) - before) / requests * 1e6)
            return figures
        finally:
            service.stop()


@click.command()
@click.option("--requests", default=3000, show_default=True, help="Of each kind.")
@click.option("--most", default=10_000_000, show_default=True, help="Messages of the largest store.")
def main(requests: int, most: int) -> None:
    click.echo("| messages of the chat | chats | applications | post | newest | `before=` | chats | applications |")
    click.echo("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for sizes in _STORES:
        if sizes.messages <= most:
            row = (sizes.messages, sizes.chats, sizes.applications)
            figures = [f"{figure:.0f} µs" for figure in measure(sizes, requests)]
            click.echo(f"| {' | '.join(f'{each:,}' for each in row)} | {' | '.join(figures)} |")


if __name__ == "__main__":
    main()
