"""Logging: one line for each event, for people or for programs. No line has a secret or the text of a message."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import msgspec

log = logging.getLogger("hubbub")

_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime"}


def without_passwords(text: str) -> str:
    """The text, with the password of each URL in it hidden, and a name without a password too: it may be a token."""
    text = re.sub(r"(://[^:@/\s]*):\S*?@(?![^\s,'\"]*@)", r"\1:…@", text)
    return re.sub(r"://[^:@/\s,'\"]+@", "://…@", text)


class TextLines(logging.Formatter):
    """Log lines for people, with tracebacks below."""

    def format(self, record: logging.LogRecord) -> str:
        return without_passwords(super().format(record))


class JsonLines(logging.Formatter):
    """One JSON object a line; what a call gives as ``extra`` are fields of it, a traceback is one too."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        elif record.exc_text:  # of another process, see embedded.child
            line["exception"] = record.exc_text
        hidden = {name: _encodable(value) if isinstance(value, str) else value for name, value in line.items()}
        return msgspec.json.encode(hidden, enc_hook=lambda value: _encodable(str(value))).decode()


def _encodable(text: str) -> str:
    return without_passwords(text).encode("utf-8", "backslashreplace").decode()


def start_logging(form: str, *, access: bool = False) -> None:
    """``form`` is text or json. From now on warnings and what ends the process or a thread are log lines too; requests
    are with ``access``.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonLines() if form == "json" else TextLines("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for chatty in ("uvicorn", "alembic", "aiormq", "aio_pika"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("hubbub.access").setLevel(logging.INFO if access else logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = _ended
    threading.excepthook = lambda fault: _log_fault(
        "A thread ended", fault.exc_type, fault.exc_value, fault.exc_traceback
    )
    sys.unraisablehook = lambda fault: _log_fault(
        fault.err_msg or "An exception could not be raised", fault.exc_type, fault.exc_value, fault.exc_traceback
    )


def _ended(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        log.critical("The process ends because of an unexpected error.", exc_info=(kind, error, trace))


def _log_fault(said: str, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    log.error("%s, for an error that nobody expected.", said, exc_info=(kind, error or kind(), trace))


def tell(form: str, text: str, level: int = logging.INFO, **fields: Any) -> None:
    """Say it to who started the process: on stdout, or from a warning on on stderr; in ``form`` json as a log line."""
    if form == "json":
        record = log.makeRecord(log.name, level, __file__, 0, text, (), None, extra=fields)
        line = JsonLines().format(record)
    else:
        line = text if level < logging.WARNING else f"hubbub: {text}"
    output = sys.stdout if level < logging.WARNING else sys.stderr
    try:
        print(line, file=output, flush=True)
    except OSError:  # its reader has gone, or it has no room: no reason for a service to end
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
