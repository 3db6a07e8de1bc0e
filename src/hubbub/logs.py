"""How events are logged: one line each, for people or for programs. Nowhere a secret, nowhere a message's text."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from typing import Any

import msgspec

_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime"}


def without_passwords(text: str) -> str:
    """The text, with the password of each URL in it hidden, and a name without a password too: it may be a token."""
    text = re.sub(r"(://[^:@/\s]*):\S*?@(?![^\s,'\"]*@)", r"\1:…@", text)
    return re.sub(r"://[^:@/\s,'\"]+@", "://…@", text)


class TextLines(logging.Formatter):
    """A line as people read it, and a traceback below."""

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
        hidden = {name: without_passwords(value) if isinstance(value, str) else value for name, value in line.items()}
        return msgspec.json.encode(hidden, enc_hook=str).decode()


def start_logging(form: str) -> None:
    """``form`` is text or json."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonLines() if form == "json" else TextLines("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for chatty in ("uvicorn", "alembic", "aiormq", "aio_pika"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
