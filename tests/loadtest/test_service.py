"""What a load test may change in the service that it tests, and what it leaves there."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hubbub.loadtest import command, coordinator
from hubbub.loadtest import service as services
from hubbub.loadtest.accounts import Accounts, SetupFailed, ranges
from hubbub.loadtest.process import ENDING, Part
from hubbub.loadtest.setup import prepare
from tests.conftest import Service, eventually
from tests.loadtest.small_service import SmallService, small_service

SHORT = ("--writes", "20", "--reads", "40", "--duration", "1", "--workers", "3")


@pytest.fixture
def small() -> Iterator[SmallService]:
    with small_service() as service:
        yield service


@pytest.fixture
def perftest(monkeypatch: pytest.MonkeyPatch, small: SmallService) -> Iterator[CliRunner]:
    """The command in this process, with a short warmup. The small service is the one on "port 3000"."""
    monkeypatch.setattr(coordinator, "WARMUP_S", 0.2)
    monkeypatch.setattr(services, "RUNNING", small.url)
    monkeypatch.setattr(command, "RUNNING", small.url)
    handlers = {number: signal.getsignal(number) for number in ENDING}
    yield CliRunner()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run(perftest: CliRunner, *arguments: str) -> Result:
    done = perftest.invoke(command.perftest, [*SHORT, *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done


def test_a_running_service_is_left_alone_and_the_output_says_so(
    perftest: CliRunner, small: SmallService, capsys: pytest.CaptureFixture[str]
) -> None:
    with services.service(None, None, keep=False) as tested:
        assert tested.url != small.url
    shown = capsys.readouterr().out
    assert f"Service:        {tested.url} (started for this test)\n" in shown
    assert f"Another service answers at {small.url}; it is not tested (use --running for that).\n" in shown
    with socket.socket() as probe:
        port = int(tested.url.rsplit(":", 1)[1])
        assert probe.connect_ex(("127.0.0.1", port)) != 0  # it was stopped
    assert not small.passwords


def test_what_the_test_created_in_a_running_service_is_deleted(perftest: CliRunner, small: SmallService) -> None:
    theirs = {"perftest1@example.com": "somebody's", "ann@example.com": "hers"}
    small.accounts |= theirs
    small.applications["t"] = "perftest1@example.com Performance test 1"
    done = run(perftest, "--running")
    assert "Deleting what the test created" in done.output
    assert "left" not in done.output
    assert small.messages > 15
    assert small.accounts == theirs
    assert small.applications == {"t": "perftest1@example.com Performance test 1"}
    assert all(len(password) >= 24 for password in small.passwords)


def test_with_keep_the_accounts_stay_and_the_output_says_how_to_log_in(
    perftest: CliRunner, small: SmallService
) -> None:
    small.accounts["perftest1@example.com"] = "somebody's"
    done = run(perftest, "--url", small.url, "--keep")
    (password,) = small.passwords
    kept = re.search(r"Kept in the service: (.*), with the password (\S+)", done.output)
    assert kept is not None
    assert kept[2] == password
    assert re.fullmatch(r"perftest1-[0-9a-f]{8}@example\.com, perftest0@\S+, perftest2@\S+", kept[1])
    assert len(small.applications) == 3


@pytest.mark.parametrize("status", [404, 405])
def test_a_service_that_cannot_delete_gets_one_line(perftest: CliRunner, small: SmallService, status: int) -> None:
    small.refuse = {"DELETE /auth/me": status}
    done = run(perftest, "--running")
    assert "  Overall:" in done.output
    assert [line for line in done.output.splitlines() if "left in the service" in line] == [
        f"perftest: left in the service, as DELETE /auth/me answered {status} (it has no such route): "
        "perftest0@example.com to perftest2@example.com, and what they own"
    ]


def test_a_setup_that_fails_leaves_nothing(perftest: CliRunner, small: SmallService) -> None:
    small.refuse = {"POST /chats": 500}
    done = run(perftest, "--running")
    assert done.exit_code == 3
    assert "chats answered 500" in done.output
    assert small.passwords
    assert not small.accounts
    assert not small.applications


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("phase", ["Phase 1", "Phase 2"])
def test_a_run_that_is_interrupted_leaves_nothing(small: SmallService, phase: str, number: signal.Signals) -> None:
    words = [sys.executable, "-m", "hubbub", "perftest", "--url", small.url, *SHORT]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any(line.startswith(phase) for line in process.stdout)
        process.send_signal(number)
        rest, errors = process.stdout.read(), process.stderr.read()
        assert process.wait(30) == 130, errors
    assert errors == "perftest: interrupted\n", rest
    assert not small.accounts
    assert not small.applications


def test_an_account_that_is_made_after_the_interruption_is_deleted_too(small: SmallService) -> None:
    small.register_wait_s = 1
    words = [sys.executable, "-m", "hubbub", "perftest", "--url", small.url, *SHORT, "--workers", "30"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        eventually(lambda: len(small.passwords) > 0)  # the second ones have begun
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert errors == "perftest: interrupted\n"
    time.sleep(1.5)
    assert not small.accounts


async def test_an_account_whose_answer_was_lost_is_deleted_too(small: SmallService) -> None:
    small.accounts["perftest0@example.com"] = "somebody's"
    small.lost = {"POST /auth/register"}
    accounts = Accounts(small.url)
    with pytest.raises(SetupFailed):  # it is unknown whether the address was taken or is ours now
        await accounts.add("perftest0")
    small.lost = {"POST /auth/register"}
    with pytest.raises(SetupFailed):
        await accounts.add("perftest1")
    assert len(small.accounts) == 2
    assert await accounts.remove() is None
    assert small.accounts == {"perftest0@example.com": "somebody's"}
    assert not accounts.described


def test_a_private_service_does_not_have_the_settings_of_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "hubbub.toml").write_text("user_rate = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HUBBUB_HOST", "0.0.0.0")  # noqa: S104 - the service must not listen there
    monkeypatch.setenv("HUBBUB_SEARCH_URL", "http://search.internal:9200")
    part = Part(["config"], {"HUBBUB_SHARDS": "5"}, tmp_path / "log")
    shown = subprocess.run(
        [sys.executable, "-m", "hubbub", "config"], env=part.environment(), capture_output=True, text=True, check=True
    ).stdout
    for setting, value in (("host", "127.0.0.1"), ("user_rate", "2000"), ("shards", "5")):
        assert re.search(rf"^{setting}\W+{value}\b", shown, re.MULTILINE), shown
    assert "search.internal" not in shown


async def test_accounts_that_were_never_requested_are_not_looked_for() -> None:
    accounts = Accounts("http://127.0.0.1:1")
    with pytest.raises(SetupFailed):
        await prepare(accounts, 20)
    assert not accounts.described


async def test_a_service_that_is_gone_is_given_up_soon_and_what_is_left_is_known(
    small: SmallService, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = Accounts(small.url)
    await prepare(accounts, 20, members=2)
    monkeypatch.setattr("hubbub.loadtest.accounts._UNREACHABLE_S", 0.2)
    accounts.url = "http://127.0.0.1:1"
    why = await accounts.remove()
    assert why is not None
    assert "got no usable answer" in why
    assert accounts.described == "perftest0@example.com to perftest19@example.com"


async def test_applications_that_others_added_the_account_to_stay(small: SmallService) -> None:
    accounts = Accounts(small.url)
    await prepare(accounts, 2)
    small.applications["t"] = "perftest0@example.com Performance test 0 (run of another)"
    assert await accounts.remove() is None
    assert list(small.applications) == ["t"]


async def test_everything_is_gone_from_a_real_service_too(embedded: Service) -> None:
    accounts = Accounts(embedded.url)
    users = await prepare(accounts, 4, members=2)
    _, guest = await accounts.add("perftest-guest")
    emails = accounts.described
    assert await accounts.remove() is None
    assert not accounts.described
    for user in users:
        guest.cookie = user.cookie
        assert (await guest.call("GET", "/auth/me"))[0] == 401
    login = {"email": emails.split(" ")[0].split(",")[0], "password": accounts.password}
    assert (await guest.call("POST", "/auth/login", login))[0] == 401
    guest.close()


def test_neighbours_are_one_range() -> None:
    assert ranges([]) == ""
    assert ranges(["a9@x", "a10@x", "a12@x", "b@x", "a11-r@x"]) == "a11-r@x, a9@x to a10@x, a12@x, b@x"
