"""Checks of the values of settings, beyond their type. Each check returns the value, or raises ValueError with a
sentence that says what is wrong with it; no sentence has a password in it.
"""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Callable
from email.utils import parseaddr
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator

from hubbub.logs import without_passwords

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_EMAIL = re.compile(r"[^\s@,:/]+@[^\s@,:/]+")
_SENDER = re.compile(rf"{_EMAIL.pattern}|[^<>@]*<{_EMAIL.pattern}>")
_HIDDEN = re.compile(r":.*@", re.DOTALL)  # as before a password and behind it, wherever a URL was written
_LONGEST_NAME = 255  # bytes of a file's name
_LONGEST_SHOWN = 200
_LARGEST_PEM = 1024 * 1024


def quoted(value: Any) -> str:
    """A value as an error may show it: short, on one line, without a password."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    hidden = without_passwords(text)
    if _HIDDEN.search(hidden.replace(":…@", "…@")):
        return "The value"
    return repr(hidden if len(hidden) <= _LONGEST_SHOWN else hidden[:_LONGEST_SHOWN] + "…")


def items(value: Any) -> tuple[str, ...]:
    """A list as it is written: with commas between, or as JSON; in a file also as TOML."""
    if isinstance(value, str):
        if not value.lstrip().startswith("["):
            return tuple(item.strip() for item in value.split(",") if item.strip())
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("This begins with [ but is not a JSON list of strings.") from None
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise ValueError("This is not a list of strings.")
    return tuple(value)


def path(value: str | Path) -> Path:
    text = str(value)
    if not text:
        raise ValueError("This is empty.")
    try:
        names = text.encode().split(b"/")
    except UnicodeError:
        raise ValueError("This is not UTF-8 text.") from None
    if _HIDDEN.search(text):
        raise ValueError("This looks like a URL with a password, not like the name of a file.")
    if "\0" in text:
        raise ValueError("This has a zero byte, which a file's name can't have.")
    if max(len(name) for name in names) > _LONGEST_NAME or len(text) >= 4096:
        raise ValueError("This is too long to be a file's name.")
    return Path(text)


def _is_host(text: str) -> bool:
    try:
        ip_address(text)
        return True
    except ValueError:
        return len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.removesuffix(".").split("."))


def _host(text: str) -> str:
    if not _is_host(text):
        raise ValueError(f"{quoted(text)} is neither an address nor the name of a host.")
    return text


def _network(text: str) -> None:
    try:
        ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{quoted(text)} is neither an address nor a network.") from None
    try:
        ip_network(text)
    except ValueError:
        fit = ip_network(text, strict=False)
        raise ValueError(f"{quoted(text)} is an address in a network: write {fit} for all of that.") from None


def _networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        _network(text)
    return texts


def _emails(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        if not _EMAIL.fullmatch(text) or not text.isprintable():
            raise ValueError(f"{quoted(text)} is not an email address.")
    return texts


def _schemes(schemes: tuple[str, ...]) -> str:
    return " or ".join(f"{scheme}://" for scheme in schemes)


def _address(text: str, schemes: tuple[str, ...]) -> None:
    """Any URL of a server. Nothing of it is ever shown: a password may be in any place of a wrong one."""
    if not text.isprintable() or " " in text:
        raise ValueError(
            "This URL has a space, or another character that can't be printed: percent-encode it, a space as %20."
        )
    scheme, found, rest = text.partition("://")
    if not found or scheme not in schemes:
        raise ValueError(f"This URL does not begin with {_schemes(schemes)}.")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if "@" in rest and "@" not in parts.netloc:
        raise ValueError("This URL has one of / ? # [ ] in its user or password: write it as %2F %3F %23 %5B %5D.")
    if parts.netloc.count("@") > 1:
        raise ValueError("This URL has @ in its user or password: write it as %40.")
    if not parts.netloc:
        raise ValueError("This URL has no host, or a port that is not a number from 1 to 65535.")
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError("The port of this URL is not a number from 1 to 65535.")
    if not _is_host(parts.hostname or ""):
        raise ValueError("This URL has no host, or one that is neither an address nor a name.")


def _mysql(text: str) -> None:
    _address(text, ("mysql",))
    parts = urlsplit(text)
    if not parts.path.strip("/"):
        raise ValueError("This URL does not name a database after the last /.")
    for option, value in _options(parts.query, ("ssl_ca", "ssl_cert", "ssl_key", "ssl_check_hostname")):
        if option == "ssl_check_hostname" and value not in ("true", "false"):
            raise ValueError("The option ssl_check_hostname of this URL is not true or false.")
        if option != "ssl_check_hostname" and not os.access(path(value), os.R_OK):
            raise ValueError(f"The file that {option} names in this URL can't be read.")


def _options(query: str, known: tuple[str, ...]) -> list[tuple[str, str]]:
    """What is behind the ? of a URL: what a client library doesn't know, it fails on later."""
    found = parse_qsl(query, keep_blank_values=True)
    if any(option not in known for option, _ in found):
        raise ValueError(f"After its ? this URL has something other than {', '.join(known)}.")
    return found


def _redis(text: str) -> None:
    _address(text, ("redis", "rediss"))
    number = urlsplit(text).path.strip("/")
    if number and not re.fullmatch(r"[0-9]{1,4}", number, re.ASCII):
        raise ValueError("The part after the last / of this URL is not the number of a Redis database.")


def _search(text: str) -> None:
    _address(text, ("http", "https"))
    if "?" in text or "#" in text:
        raise ValueError("This URL has a ? or a #, which the address of a search server does not have.")
    if urlsplit(text).port is None:
        raise ValueError("This URL has no port: add it, as in http://HOST:9200.")


def _amqp(text: str) -> None:
    _address(text, ("amqp", "amqps"))
    _options(urlsplit(text).query, ("cafile", "capath", "certfile", "keyfile", "no_verify_ssl"))


def _web(text: str) -> None:
    _address(text, ("http", "https"))


def _smtp(text: str) -> None:
    _address(text, ("smtp", "smtps"))
    parts = urlsplit(text)
    if parts.path.strip("/") or "?" in text or "#" in text:
        raise ValueError("This URL has something after its host and port, which a mail server's URL does not have.")


def _sender(text: str) -> None:
    # parseaddr also finds an address in other texts, such as a part of a URL.
    if not _SENDER.fullmatch(text) or not _EMAIL.fullmatch(parseaddr(text)[1]) or not text.isprintable():
        raise ValueError(f"{quoted(text)} is neither an email address nor NAME <ADDRESS>.")


def _checked(check: Callable[[str], None]) -> AfterValidator:
    """A text of one kind, or nothing."""

    def checked(text: str) -> str:
        text = text.strip()
        if text:
            check(text)
        return text

    return AfterValidator(checked)


def _all_redis(text: str) -> str:
    for url in text.split(","):
        if url.strip():
            _redis(url.strip())
    return text


def _all_mysql(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        _mysql(text)
    return texts


Host = Annotated[str, AfterValidator(_host)]
Networks = Annotated[tuple[str, ...], AfterValidator(_networks)]
Emails = Annotated[tuple[str, ...], AfterValidator(_emails)]
MySqlUrl = Annotated[str, _checked(_mysql)]
MySqlUrls = Annotated[tuple[str, ...], AfterValidator(_all_mysql)]
AmqpUrl = Annotated[str, _checked(_amqp)]
RedisUrls = Annotated[str, AfterValidator(_all_redis)]
SearchUrl = Annotated[str, _checked(_search)]
SmtpUrl = Annotated[str, _checked(_smtp)]
Sender = Annotated[str, _checked(_sender)]
WebUrl = Annotated[str, _checked(_web)]


def tls_fault(cert: Path, key: Path) -> tuple[str, str] | None:
    """Which of the settings is wrong and why, where HTTPS can't be served with these files."""
    for name, file, kind in (("tls_cert", cert, "CERTIFICATE"), ("tls_key", key, "PRIVATE KEY")):
        try:
            with file.open("rb") as opened:
                text = opened.read(_LARGEST_PEM)
        except OSError as error:
            return name, f"{quoted(str(file))} can't be read: {error.strerror}."
        if not re.search(rb"-----BEGIN [A-Z ]*%b-----" % kind.encode(), text):
            return name, f"{quoted(str(file))} has no PEM text that begins with -----BEGIN {kind}-----."
    asked = False

    def passphrase() -> str:
        nonlocal asked
        asked = True
        return ""

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, passphrase)
    except (OSError, ValueError) as error:
        if asked:
            return "tls_key", f"{quoted(str(key))} has a passphrase: write it without one (openssl pkey -in FILE)."
        if "KEY_VALUES_MISMATCH" in str(error):
            return "tls_key", f"{quoted(str(key))} is not the key of the certificate in {quoted(str(cert))}."
        return "tls_cert", f"{quoted(str(cert))} and {quoted(str(key))} can't be used: {error}."
    return None
