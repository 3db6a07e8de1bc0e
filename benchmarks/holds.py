"""How long the worst request of each route blocks the event loop when much is stored: the CPU time of the loop's thread
in one callback. Everybody else waits that long.

    PYTHONPATH=src:. python -m benchmarks.holds [--messages 1000000] [--chats 100000] [--members 100000]

The service is embedded, in this process, on asyncio's own loop. tests/worst.py has the requests, tests/large.py the
stored data.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import click
from tests.large import Sizes, fill
from tests.worst import longest_holds


@click.command()
@click.option("--messages", default=1_000_000, help="Messages in one chat.")
@click.option("--chats", default=100_000, help="Chats in its application.")
@click.option("--members", default=100_000, help="Members of the application.")
@click.option("--applications", default=10_000, help="Applications of its owner.")
def main(messages: int, chats: int, members: int, applications: int) -> None:
    sizes = Sizes(messages, chats, members, applications)
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        begun = time.perf_counter()
        fill(data, sizes)
        click.echo(f"made in {time.perf_counter() - begun:.1f} s\n")
        found = asyncio.run(longest_holds(data, sizes))
    click.echo("| route | its worst request | longest hold |\n| --- | --- | --- |")
    for (method, path), (what, seen) in sorted(found.items(), key=lambda each: -each[1][1].longest_s):
        click.echo(f"| {method} {path.removeprefix('/api/v1')} | {what} | {seen.longest_s * 1000:.1f} ms |")


if __name__ == "__main__":
    main()
