"""The log of a process that was forked is written by the process that serves."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Iterator

import msgspec
import pytest

from hubbub.embedded import child as children
from hubbub.embedded.child import Child, Sender, _Forward, write_log
from hubbub.embedded.frames import Frames, Logged
from hubbub.logs import JsonLines


class Written(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def child() -> Iterator[tuple[logging.Logger, socket.socket]]:
    """The logger of the forked process, and the socket of the other one."""
    ours, theirs = socket.socketpair()
    log = logging.Logger("hubbub.child")
    log.addHandler(_Forward(Sender(theirs)))
    with ours, theirs:
        yield log, ours


@pytest.fixture
def written() -> Iterator[Written]:
    log, handler = logging.getLogger("hubbub.child"), Written()
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


def take(channel: socket.socket) -> None:
    for content in Frames().take(channel.recv(1_000_000)):
        write_log(msgspec.msgpack.decode(content, type=Logged))


def test_a_line_has_the_fields_and_the_traceback_of_its_record(
    child: tuple[logging.Logger, socket.socket], written: Written
) -> None:
    log, channel = child
    error = RuntimeError("unlucky")
    log.error("Failed %d times", 3, exc_info=error, extra={"chat": 7, "held": threading.Lock()})
    take(channel)
    (line,) = map(json.loads, written.lines)
    assert (line["message"], line["level"], line["chat"]) == ("Failed 3 times", "error", 7)
    assert "RuntimeError: unlucky" in line["exception"]
    assert "lock" in line["held"]


def test_a_wrong_record_does_not_end_what_logs_it(
    child: tuple[logging.Logger, socket.socket], written: Written, capfd: pytest.CaptureFixture[str]
) -> None:
    log, channel = child
    log.warning("%d", "text")
    log.warning("The next one")
    take(channel)
    assert [json.loads(line)["message"] for line in written.lines] == ["The next one"]
    assert "Logging error" in capfd.readouterr().err


def test_the_service_ends_if_a_process_has_ended_before_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others would wait for ever to begin, and the rest for these."""

    def end_with(name: str) -> None:
        raise SystemExit(name)

    monkeypatch.setattr(children, "end_with", end_with)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Child("serve-1", 0, ours).begin()
        assert theirs.recv(1)
        theirs.close()
        with pytest.raises(SystemExit, match="serve-1"):
            Child("serve-1", 0, ours).begin()
