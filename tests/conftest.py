"""Real Hubbub services for the tests, in processes of their own, used over HTTP."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Protocol

import httpx
import psutil
import pytest
from hypothesis import settings

from hubbub.loadtest.cluster import ClusterStack
from tests.mailbox import Mailbox
from tests.servers import elasticsearch, mariadb, need_servers, opensearch, rabbitmq, redis  # noqa: F401 - fixtures

OPERATOR = "operator@example.com"

_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-rounds", type=int, help="The number of random faults in tests/history.")
    parser.addoption("--fault-seed", type=int, help="The seed of an earlier run, to repeat its choices.")
    parser.addoption("--fault", action="append", help="Run only this fault of tests/cluster/faults.py.")
    parser.addoption(
        "--fault-source", help="The src of another build, for the cluster of tests/cluster/test_faults.py."
    )


_SEED = pytest.StashKey[int]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the one seed that decides what the fuzzers draw, which faults happen, and the order of the tests. It is
    always the same, except with --fault-rounds. This comes before test modules are imported, because a test keeps the
    settings that were loaded when it was defined.
    """
    chosen, many = config.getoption("--fault-seed"), config.getoption("--fault-rounds") is not None
    seed = chosen if chosen is not None else random.SystemRandom().randrange(2**32) if many else 1
    config.stash[_SEED] = seed
    # Pass the seed to both plugins, unless their own options were given.
    if getattr(config.option, "randomly_seed", None) == "default":
        config.option.randomly_seed = seed
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(seed)
    settings.register_profile("fuzz", max_examples=20_000 if many else 200, deadline=None, database=None)
    settings.load_profile("fuzz")


def pytest_report_header(config: pytest.Config) -> str:
    return f"--fault-seed {config.stash[_SEED]} draws the same again"


@pytest.fixture(scope="session")
def fault_seed(request: pytest.FixtureRequest) -> int:
    return request.config.stash[_SEED]


class Service:
    """A ``hubbub serve`` process, on a free port by default. A ``start`` after ``kill`` uses the same data folder."""

    def __init__(self, data: Path, log: Path | None = None, *, port: int = 0) -> None:
        self.data = data
        self.port = port
        self.url = ""
        self._log = log or data.parent / "service.log"

    def start(self, **environment: str) -> None:
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hubbub", "serve", "--port", str(self.port), "--data", str(self.data)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | environment,
            )
        assert self.process.stdout is not None
        found = re.search(r'https?://[^\s"]+', self.process.stdout.readline())
        assert found, self._log.read_text()
        self.url = found[0]

    def setup_link(self) -> str:
        """Return the link that a service without an operator prints after its URL. Can be called once."""
        assert self.process.stdout is not None
        found = re.search(r"https?://\S+/setup#\S+", self.process.stdout.readline())
        assert found
        return found[0]

    def make_operator(self) -> httpx.Client:
        """Create the operator's account with the link."""
        operator = httpx.Client(base_url=self.url + "/api/v1", timeout=30)
        account = {"name": "Operator", "email": OPERATOR, "password": "correct horse"}
        answer = operator.post("/auth/setup", json={"code": self.setup_link().partition("#")[2], **account})
        assert answer.status_code == 201, answer.text
        return operator

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        parts = self.parts()
        self.process.send_signal(number)
        status = self.process.wait(60)
        eventually(lambda: all(map(has_ended, parts)))
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status

    def parts(self) -> list[psutil.Process]:
        """The processes beside the one that serves."""
        return psutil.Process(self.process.pid).children() if self.process.poll() is None else []

    def memory(self) -> int:
        """Bytes of all its processes; what they share counts for each."""
        return sum(each.memory_info().rss for each in (psutil.Process(self.process.pid), *self.parts()))

    @property
    def log(self) -> str:
        return self._log.read_text()


def has_ended(process: psutil.Process) -> bool:
    """Whether nothing of it is left. When a process is killed, it may be a zombie while other threads of it still close
    its files."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1)
    except psutil.NoSuchProcess:
        return True


def serve(data: Path) -> subprocess.CompletedProcess[str]:
    """Run ``hubbub serve``, which is expected to refuse to start."""
    return subprocess.run(
        [sys.executable, "-m", "hubbub", "serve", "--port", "0", "--data", str(data)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def new_metrics(url: str) -> str:
    """Return new content of ``/metrics``. The service repeats the last content for some milliseconds."""

    def text() -> str:
        answer = httpx.get(url + "/metrics", timeout=30)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain")
        return answer.text

    before = found = text()
    until = time.monotonic() + 10
    while found == before and time.monotonic() < until:
        time.sleep(0.05)
        found = text()
    assert found != before
    return found


@pytest.fixture
def terminal() -> Iterator[None]:
    """Processes that the test starts hear SIGHUP, also where the tests were started with nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def eventually(holds: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait until the condition holds, and fail if it does not in time."""
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until, f"did not come true within {within_s} s"
        time.sleep(0.05)


async def eventually_async(holds: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait like ``eventually``, without blocking the event loop."""
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.02)


def until_locked_out(tries: Callable[[int], int]) -> int:
    """Return how many logins fail until one is refused. ``tries`` sends a wrong password and returns the status."""
    for number in range(40):
        if tries(number) != 401:
            return number
    raise AssertionError("none was refused")


class Person(httpx.Client):
    """A registered user with a cookie."""

    def __init__(self, url: str, name: str | None = None) -> None:
        super().__init__(base_url=url + "/api/v1", timeout=30)
        number = next(_numbers)
        self.name = name or f"Person {number}"
        self.email = f"person{number}.{id(self)}@example.com"
        answer = self.post("/auth/register", json={"name": self.name, "email": self.email, "password": "correct horse"})
        assert answer.status_code == 201, answer.text

    def application(self) -> str:
        token = self.post("/applications", json={"name": "Ours"}).json()["token"]
        assert isinstance(token, str)
        return token

    def chat(self, token: str | None = None) -> str:
        """Create a chat and return its path."""
        token = token or self.application()
        answer = self.post(f"/applications/{token}/chats")
        assert answer.status_code == 201, answer.text
        return f"/applications/{token}/chats/{answer.json()['chatNumber']}"


class Served(Protocol):
    """A running Hubbub of either mode."""

    @property
    def url(self) -> str: ...


@pytest.fixture(scope="session", autouse=True)
def certificates() -> Iterator[None]:
    """Let all clients share the system's certificates. httpx would read them for each one, which takes longer than most
    tests.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("httpx._transports.default.create_ssl_context", functools.cache(httpx.create_ssl_context))
        yield


@pytest.fixture(scope="session")
def mailbox() -> Iterator[Mailbox]:
    with Mailbox() as box:
        yield box


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory, mailbox: Mailbox) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("service") / "data")
    service.start(**mailbox.settings)
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory: pytest.TempPathFactory, mailbox: Mailbox) -> Iterator[Service]:
    """An embedded service of which two processes serve. Each connection is with either."""
    service = Service(tmp_path_factory.mktemp("service") / "data")
    service.start(**mailbox.settings, HUBBUB_PROCESSES="2")
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="session")
def cluster(mailbox: Mailbox) -> Iterator[ClusterStack]:
    """A cluster of two API processes and two writers over real servers."""
    need_servers()
    with ClusterStack(apis=2, writers=2, settings=mailbox.settings) as stack:
        yield stack


@pytest.fixture(scope="session", params=["embedded", "two_processes", "cluster"])
def service(request: pytest.FixtureRequest) -> Served:
    """A service of each mode, as all must behave in the same way."""
    running: Served = request.getfixturevalue(request.param)
    return running


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Service]:
    """A service of the test's own, which it may damage."""
    service = Service(tmp_path / "data")
    service.start()
    yield service
    if service.process.poll() is None:
        service.kill()


@pytest.fixture
def ann(service: Service) -> Iterator[Person]:
    with closing(Person(service.url)) as person:
        yield person


@pytest.fixture
def bob(service: Service) -> Iterator[Person]:
    with closing(Person(service.url)) as person:
        yield person


@pytest.fixture
def stranger(service: Service) -> Iterator[Person]:
    with closing(Person(service.url)) as person:
        yield person


@pytest.fixture
def nobody(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url + "/api/v1", timeout=30) as client:
        yield client
