"""The perftest command, as a script uses it."""

from __future__ import annotations

import json
import os
import platform
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from click.testing import CliRunner

from hubbub import __version__
from hubbub.loadtest import command, coordinator
from hubbub.loadtest.about import about
from hubbub.loadtest.process import ENDING, Part
from hubbub.loadtest.servers import free_port
from tests.conftest import Service

SMALL = ("--writes", "50", "--reads", "100", "--duration", "4", "--workers", "5")


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command during the block, and kill it at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hubbub", "perftest", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until_line(process: subprocess.Popen[str], start: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(start):
            return line
    raise AssertionError(f"no line began with {start!r}")


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Part]:
    """A service that keeps its port when it restarts."""
    service = Part(["serve", "--port", "0", "--data", str(tmp_path / "data")], {}, tmp_path / "log")
    service.start()
    yield service
    service.kill()


def result(file: Path) -> dict[str, Any]:
    content = json.loads(file.read_text())
    assert isinstance(content, dict)
    return content


def perftest(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, with a short warmup."""
    handlers = {number: signal.getsignal(number) for number in ENDING}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coordinator, "WARMUP_S", 0.5)
        done = CliRunner().invoke(command.perftest, arguments)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


# Fails when the machine is busy with something else.
_LIMITED = "the load generator was not the limit"


def passed(done: subprocess.CompletedProcess[str]) -> bool:
    """Return whether the run passed, or had no verdict because the machine is busy with something else."""
    return done.returncode == 0 or (done.returncode == 1 and "  Overall: ✗ NO VERDICT\n" in done.stdout)


def due(content: dict[str, Any]) -> tuple[int, int]:
    """Return how many writes and reads were due, sent or not."""
    writes, reads = (content[side]["total"] + content[side]["unsent"] for side in ("writes", "reads"))
    return writes, reads


def test_a_run_passes_reports_and_leaves_its_result(embedded: Service, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    done = perftest("--url", embedded.url, *SMALL, "--duration", "6", "--json", str(file))
    assert passed(done), done.stdout + done.stderr
    assert re.search(r"^\[5s\] Writes: \d+ \(\d+/s\) \| Reads: \d+ \(\d+/s\)$", done.stdout, re.MULTILINE)
    assert (
        len(re.findall(r"^(?:PASS|NO VERDICT) \(held .*\); latency goals (kept|missed)$", done.stdout, re.MULTILINE))
        == 1
    )
    assert done.stdout.count("Rule: PASS needs 50 % of each target and over 95 % success.") == 1
    assert "Writes as the service measured them: Avg" in done.stdout
    assert "Deleting what the test created" in done.stdout
    assert not done.stderr  # nothing was left
    content = json.loads(file.read_text())
    assert due(content) == (300, 600)
    assert content["writes"]["failed"] == content["reads"]["failed"] == 0
    assert content["verdict"]["result"] in ("pass", "none")
    assert (content["version"], content["machine"]["cores"]) == (__version__, os.cpu_count())
    assert content["reads"]["served_ms"]["count"] >= 300
    again = perftest("--url", embedded.url, "--writes", "10", "--reads", "0", "--duration", "1", "--workers", "7")
    assert passed(again), again.stdout + again.stderr


def test_an_impossible_target_fails(embedded: Service) -> None:
    options = ("--writes", "400000", "--reads", "10", "--duration", "1", "--workers", "5")
    done = perftest("--url", embedded.url, *options)
    assert done.returncode == 1
    assert "  Overall: ✗ FAIL\n" in done.stdout
    assert "Unsent:" in done.stdout


def test_all_options_work_together(embedded: Service, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("result.json", "page.html", "junit.xml")]
    done = perftest(
        *("--url", embedded.url, "--writes", "100", "--reads", "200", "--workers", "7", "--processes", "3"),
        *(
            "--stages",
            "1s:0%-100%,2s:100%,1s:200%",
            "--mix",
            "send=6,edit=2,delete=1,chats=1,messages=2,history=1,message=1",
        ),
        *("--message-size", "lognormal:60:1", "--chats", "4", "--zipf", "1.1", "--members", "3", "--verify"),
        *("--require", "writes.p99<60s", "--require", "edit.failed<=0", "--require", "reads.p50<0.001us"),
        *("--json", str(files[0]), "--html", str(files[1]), "--junit", str(files[2])),
    )
    assert done.returncode == 1, done.stdout + done.stderr  # because of the last requirement
    content = result(files[0])
    assert sum(due(content)) == 300 * 0.5 + 300 * 2 + 600
    assert content["writes"]["failed"] == content["reads"]["failed"] == 0, done.stdout
    assert set(content["routes"]) == {"send", "edit", "delete", "chats", "messages", "history", "message"}
    assert content["generator"]["processes"] == 3
    assert content["verified"]["stored"] == content["verified"]["acknowledged"] > 0
    assert [check["held"] for check in content["requirements"]] == [True, True, False]
    assert content["service"][0]["parts"]["Service"]["bytes"] > 0
    assert len(content["seconds"]) == 4
    cases = ElementTree.parse(files[2]).getroot().iter("testcase")  # noqa: S314 - our own file
    failed = {case.get("name") for case in cases if case.find("failure") is not None}
    assert failed - {_LIMITED} == {"reads.p50<0.001us"}
    assert ("✗ No verdict" if _LIMITED in failed else "✗ Failed") in files[1].read_text()


def test_several_runs_are_kept_and_each_must_pass(embedded: Service, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    done = perftest(
        "--url", embedded.url, *SMALL[:4], "--duration", "1", "--workers", "2", "--runs", "3", "--json", str(file)
    )
    assert passed(done), done.stdout + done.stderr
    assert len(result(file)["runs"]) == 3
    assert perftest("compare", str(file), str(file)).returncode == 0


def test_a_restart_during_the_run_loses_nothing_and_is_seen(part: Part, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    with running("--url", part.url, *SMALL, "--verify", "--json", str(file)) as process:
        until_line(process, "Phase 3")
        time.sleep(1)  # the run is under way
        part.kill()
        part.start()
        until_line(process, "  Overall")
        process.wait(60)
    content = result(file)
    assert content["writes"]["failures"] | content["reads"]["failures"]
    found = content["verified"]
    assert found["stored"] == found["acknowledged"] > 250
    assert {found[name] for name in ("lost", "repeated", "disordered", "altered", "intrusions")} == {0}


def test_a_stall_shows_in_the_corrected_latency_and_not_in_the_other(part: Part, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    with running("--url", part.url, *SMALL, "--json", str(file)) as process:
        until_line(process, "Phase 3")
        time.sleep(1)  # the run is under way
        os.kill(part.pid, signal.SIGSTOP)
        time.sleep(1)  # the stall
        os.kill(part.pid, signal.SIGCONT)
        until_line(process, "  Overall")
        process.wait(60)
    for side in ("writes", "reads"):
        content = result(file)[side]
        corrected, uncorrected = content["latency_ms"], content["uncorrected_ms"]
        # A quarter of the requests were due during the stall; five of six hundred, one for each worker, were under way.
        assert corrected["p99"] > 500
        assert corrected["max"] > 900
        assert uncorrected["p50"] <= corrected["p50"]
    both = [result(file)[side] for side in ("writes", "reads")]
    assert min(each["uncorrected_ms"]["p95"] for each in both) < 500


def test_another_machine_can_join_only_with_the_key(embedded: Service, tmp_path: Path) -> None:
    file, port = tmp_path / "result.json", free_port()
    shared = ("--machines", "1", "--listen", f"127.0.0.1:{port}")
    with running("--url", embedded.url, *SMALL, *shared, "--json", str(file)) as process:
        found = re.search(r"HUBBUB_PERFTEST_KEY=(\S+) hubbub perftest join (\S+)", until_line(process, "  HUBBUB"))
        assert found is not None
        wrong = perftest("join", found[2], "--key", "guess")
        assert wrong.returncode == 3
        assert "another key" in wrong.stderr
        with running("join", found[2], HUBBUB_PERFTEST_KEY=found[1]) as other:
            until_line(process, "  Overall")
            assert other.wait(30) == 0
        assert process.wait(30) in (0, 1)
    content = result(file)
    assert content["generator"]["processes"] == 2
    assert due(content) == (200, 400)
    assert content["writes"]["failed"] == content["reads"]["failed"] == 0


def test_a_generator_that_dies_ends_the_run_with_a_message(embedded: Service) -> None:
    port = free_port()
    with running("--url", embedded.url, *SMALL, "--machines", "1", "--listen", f"127.0.0.1:{port}") as process:
        found = re.search(r"KEY=(\S+)", until_line(process, "  HUBBUB"))
        assert found is not None
        with running("join", f"127.0.0.1:{port}", HUBBUB_PERFTEST_KEY=found[1]) as other:
            until_line(process, "Phase 3")
            other.kill()
            assert process.wait(30) == 3
        assert process.stderr is not None
        assert "a generator was lost" in process.stderr.read()


def test_the_highest_rate_is_searched_for(embedded: Service, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    done = perftest(
        *("--url", embedded.url, "--writes", "80", "--reads", "80", "--workers", "2", "--duration", "1", "--find-max"),
        # The result depends little on the machine: a higher rate fails, unless some of a second's requests are late.
        *("--require", "writes.throughput<=80/s", "--json", str(file)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())
    assert 75 <= 80 * found["factor"] <= 100
    assert "Highest rate that held:" in done.stdout


def test_ipv6_and_https(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:::1,DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    environment = {"HUBBUB_TLS_CERT": str(certificate), "HUBBUB_TLS_KEY": str(key)}
    service = Part(
        ["serve", "--host", "::1", "--port", "0", "--data", str(tmp_path / "data")], environment, tmp_path / "log"
    )
    service.start()
    try:
        with running("--url", service.url, *SMALL, "--verify", SSL_CERT_FILE=str(certificate)) as process:
            output, errors = process.communicate(timeout=60)
            assert process.returncode in (0, 1), output + errors
            assert output.count("  Failed:       0\n") == 2
            assert "altered: 0, not deleted: 0" in output
        assert service.url.startswith("https://[::1]:")
        assert perftest("--url", service.url, *SMALL).returncode == 3  # the certificate is not trusted
    finally:
        service.stop()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--nonsense",),
        ("--writes", "x"),
        ("--workers", "0"),
        ("--url", "ftp://x"),
        ("--url", "http://ann:secret@127.0.0.1:1"),
        ("--url", "http://127.0.0.1:1/?a=b"),
        ("--writes", "1" * 400),
        ("--duration", "1" * 400),
        ("--seed", "1" * 400),
        ("--spike", "nan"),
        ("--spike", "1e308"),
        ("--zipf", "nan"),
        ("--stages", "1s:" + "1" * 400 + "%"),
        ("--stages", "1" * 400 + "s:1%"),
        ("--writes", "0", "--reads", "0"),
        ("--stages", "10s"),
        ("--stages", "10s:100%", "--soak"),
        ("--mix", "send=0"),
        ("--message-size", "0"),
        ("--require", "writes.p99<1"),
        ("--machines", "1"),
        ("--find-max", "--verify"),
        ("join", "nowhere"),
        ("--running", "--url", "http://127.0.0.1:1"),
        ("--running", "--stack", "embedded"),
        ("--keep",),
        ("--running", "--machines", "1", "--listen", "127.0.0.1:0"),
    ],
)
def test_bad_usage_is_2(arguments: tuple[str, ...]) -> None:
    done = perftest(*arguments)
    assert done.returncode == 2
    assert "Usage:" in done.stderr


def test_a_host_that_has_no_address_is_one_line() -> None:
    with running("--url", "http://no-such-host.invalid:3000", *SMALL) as process:
        _, told = process.communicate(timeout=60)
    assert process.returncode == 3
    assert told.count("\n") == 1, told
    assert "got no usable answer" in told


def test_files_that_cannot_be_written_are_found_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "old").write_text("old")
    there = str(tmp_path / "new")
    for arguments, why in (
        (("--json", "/absent/x.json"), "--json: the folder /absent does not exist"),
        (("--html", str(tmp_path / "folder")), f"--html: {tmp_path}/folder is a folder, give a file in it"),
        (("--junit", "/proc/x.xml"), "--junit: /proc/x.xml can't be written: No such file or directory"),
        (("--json", there, "--html", there), "--json and --html name the same file: give each its own"),
        (("--json", str(tmp_path / "old"), "--html", "/proc/x"), "--html: /proc/x can't be written"),
    ):
        done = perftest(*arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith(f"perftest: {why}")
        assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "old").read_text() == "old"
    assert not (tmp_path / "new").exists()


def test_a_result_says_when_with_what_and_where(tmp_path: Path) -> None:
    found = about()
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    if commit.returncode == 0:
        assert str(found.commit).removesuffix("-dirty") == commit.stdout.strip()
    assert found.machine.cores == os.cpu_count()
    assert found.machine.memory_bytes > 10**8
    assert f"Hubbub {__version__}" in found.text
    assert platform.python_version() in found.text
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found.date)
    outside = msgspec.to_builtins(msgspec.structs.replace(found, commit=None))
    assert set(outside) == {"date", "version", "machine"}


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_signals_in_a_row_leave_no_folder(number: signal.Signals, tmp_path: Path) -> None:
    with running(*SMALL, TMPDIR=str(tmp_path)) as process:
        until_line(process, "Phase 2")
        while process.poll() is None:  # an impatient user
            process.send_signal(number)
            time.sleep(0.02)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_closed_output_leaves_nothing(closed: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "hubbub", "perftest", *SMALL, "--duration", "1"]
    shell = ["bash", "-c", f'exec "$@" {closed}>&-', "-", *words]
    done = subprocess.run(
        shell, env=os.environ | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr  # 1: the machine is busy
    assert not list(tmp_path.iterdir())


def test_an_output_without_room_is_3(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "hubbub", "perftest", *SMALL]
    with open("/dev/full", "w") as full:
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        done = subprocess.run(words, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr == "perftest: [Errno 28] No space left on device\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wanted", [True, False])
def test_the_verdict_has_a_colour_on_a_terminal_unless_no_color_is_set(wanted: bool, embedded: Service) -> None:
    terminal, end = pty.openpty()
    words = [sys.executable, "-m", "hubbub", "perftest", "--url", embedded.url, *SMALL, "--duration", "1"]
    environment = os.environ | {"NO_COLOR": "" if wanted else "1", "TERM": "xterm"}
    process = subprocess.Popen(words, stdout=end, stderr=end, env=environment)
    os.close(end)
    shown = b""
    with suppress(OSError):  # EIO when the process has ended
        while data := os.read(terminal, 65536):
            shown += data
    process.wait(30)
    os.close(terminal)
    verdict = next(line for line in shown.decode().split("\n") if "; latency goals" in line)
    assert ("\x1b[" in verdict) == wanted


def test_no_service_is_3() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        done = perftest("--url", f"http://127.0.0.1:{unused.getsockname()[1]}", "--duration", "1")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr


def test_help_is_0() -> None:
    done = perftest("--help")
    assert done.returncode == 0
    assert all(option in done.stdout for option in ("--writes", "--reads", "--duration", "--workers"))
