"""What the HTTP layer costs: the same routes, store, cookie and bodies behind three edges.

    .venv/bin/python benchmarks/http_layer.py        needs wrk: apt-get install wrk

- connection: Hubbub's own protocol, the hot routes straight on the connection (what ``hubbub serve`` runs)
- bridge:     Hubbub's own protocol with the hot routes switched off, so that everything goes through Starlette
- uvicorn:    the same Starlette application under uvicorn's own httptools protocol

Each is a process of its own; wrk takes the other core. Prints requests a second, the service's CPU per request, and
the medians of three rounds in which the edges take turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import re
import socket
import statistics
import subprocess
import tempfile
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import httpx
import uvicorn
import uvloop

from hubbub.embedded.data_folder import DataFolder
from hubbub.embedded.processes import Processes
from hubbub.embedded.service import serving
from hubbub.http.connection import Connection
from hubbub.loadtest.usage import Meter
from hubbub.settings import load

EDGES = ("connection", "bridge", "uvicorn")
SECONDS = 4
POST = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"body":"A message of the performance test, about as long as people write."}'
"""


def service(edge_name: str, data: str, pipe: Pipe) -> None:
    async def main() -> None:
        settings = load(user_rate=1_000_000)
        folder = DataFolder.open(Path(data))
        processes = Processes(folder, 1)
        place = processes.fork_serving([socket.socket()], lambda *_: None)
        async with serving(settings, folder, place, processes) as edge:
            if edge_name == "bridge":
                edge.hot.match = lambda method, target: None  # type: ignore[method-assign]
            protocol = "httptools" if edge_name == "uvicorn" else lambda **_: Connection(edge)
            config = uvicorn.Config(
                edge.app,
                http=protocol,  # type: ignore[arg-type]
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                port=0,
            )
            server = uvicorn.Server(config)
            running = asyncio.create_task(server.serve())
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event to wait for
                await asyncio.sleep(0.01)
            pipe.send(server.servers[0].sockets[0].getsockname()[1])
            await running

    uvloop.run(main())


def measure(edge_name: str) -> dict[str, tuple[float, float]]:
    """Requests a second and microseconds of CPU per request, for GET and POST."""
    ours, theirs = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        process = multiprocessing.Process(target=service, args=(edge_name, folder, theirs))
        process.start()
        try:
            url = f"http://127.0.0.1:{ours.recv()}/api/v1"
            with httpx.Client() as client:
                account = {"name": "B", "email": "b@example.com", "password": "benchmark"}
                client.post(f"{url}/auth/register", json=account)
                token = client.post(f"{url}/applications", json={"name": "B"}).json()["token"]
                client.post(f"{url}/applications/{token}/chats")
                chat = f"{url}/applications/{token}/chats/1/messages"
                for number in range(10):
                    client.post(chat, json={"body": f"message {number}, about as long as people write them"})
                cookie = f"Cookie: auth_token={client.cookies['auth_token']}"
            script = Path(folder) / "post.lua"
            script.write_text(POST)
            return {
                "GET": wrk(process.pid, chat, cookie),
                "POST": wrk(process.pid, chat, cookie, "-s", str(script)),
            }
        finally:
            process.terminate()
            process.join()


def wrk(pid: int | None, url: str, cookie: str, *extra: str) -> tuple[float, float]:
    assert pid is not None
    meter = Meter(pid)
    before = meter.cpu_s()
    output = subprocess.run(
        ["wrk", "-t1", "-c50", f"-d{SECONDS}s", "-H", cookie, *extra, url], capture_output=True, text=True, check=True
    ).stdout
    after = meter.cpu_s()
    assert "Non-2xx" not in output, output
    requests = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])  # type: ignore[index]
    return rate, (after - before) / requests * 1e6


def main() -> None:
    rounds: dict[str, list[dict[str, tuple[float, float]]]] = {edge: [] for edge in EDGES}
    for _ in range(3):
        for edge in EDGES:
            rounds[edge].append(measure(edge))
    for edge in EDGES:
        for method in ("GET", "POST"):
            rate = statistics.median(figures[method][0] for figures in rounds[edge])
            cost = statistics.median(figures[method][1] for figures in rounds[edge])
            print(f"{edge:<11} {method:<5} {rate:>8.0f}/s {cost:>7.1f} µs of CPU a request")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
