"""Settings: where they come from, what is reported about a wrong one, and what is never shown."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from hubbub.cli import main
from hubbub.cluster.engine import engine_of
from hubbub.logs import without_passwords
from hubbub.settings import Settings, SettingsWrong, load, shown, warnings

SECRET = "pa55" + str(2**17)


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set these settings in the environment, and no others."""
    others = {name: value for name, value in os.environ.items() if not name.upper().startswith("HUBBUB_")}
    with patch.dict(os.environ, others | variables, clear=True):
        yield


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that HUBBUB_CONFIG names."""
    monkeypatch.setenv("HUBBUB_CONFIG", str(tmp_path / "hubbub.toml"))
    return tmp_path / "hubbub.toml"


def faults(**flags: str) -> list[str]:
    with pytest.raises(SettingsWrong) as raised:
        load(files=True, **flags)
    return raised.value.faults


# Sources -------------------------------------------------------------------------------------------------------------


def test_passwords_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBBUB_MYSQL_URL", "mysql://hubbub:se:cret@db:3306/hubbub")
    monkeypatch.setenv("HUBBUB_AMQP_URL", "amqp://hubbub:secret@mq:5672/")
    monkeypatch.setenv("HUBBUB_REDIS_URL", "redis://:secret@cache:6379/0")
    monkeypatch.setenv("HUBBUB_MYSQL_REPLICAS", "mysql://hubbub:secret@one/hubbub, mysql://hubbub:secret@two/hubbub")
    monkeypatch.setenv("HUBBUB_TRACE_URL", "https://hubbub:sec%40ret@traces:4318/v1/traces")
    monkeypatch.setenv("HUBBUB_SEARCH_URL", "http://elastic:secret@search:9200")
    monkeypatch.setenv("HUBBUB_SMTP_URL", "smtp://chat:secret@mail:587")
    monkeypatch.setenv("HUBBUB_MAIL_FROM", "chat@example.com")
    monkeypatch.setenv("HUBBUB_PUBLIC_URL", "https://chat.example.com")
    monkeypatch.setenv("HUBBUB_OPERATORS", "ann@example.com")
    settings = shown(load())
    assert settings["mysql_url"] == "mysql://hubbub:…@db:3306/hubbub"
    assert settings["redis_url"] == "redis://:…@cache:6379/0"
    assert settings["mysql_replicas"] == "mysql://hubbub:…@one/hubbub, mysql://hubbub:…@two/hubbub"
    assert settings["trace_url"] == "https://hubbub:…@traces:4318/v1/traces"
    assert settings["search_url"] == "http://elastic:…@search:9200"
    assert settings["operators"] == "ann@example.com"
    assert not any("secret" in value or "se:cr" in value or "ret@" in value for value in settings.values())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://:a,b@one,redis://:c@two", "redis://:…@one,redis://:…@two"),
        ("mysql://hubbub:se:cr/et@db:3306/hubbub", "mysql://hubbub:…@db:3306/hubbub"),
        ("https://hubbub:sec@ret@traces:4318/v1/traces", "https://hubbub:…@traces:4318/v1/traces"),
        ("https://token@traces/v1", "https://…@traces/v1"),
        ("http://traces:4318/v1/traces", "http://traces:4318/v1/traces"),
        (
            "at http://user:pass@word@host:1/ nobody answers ann@example.com",
            "at http://user:…@host:1/ nobody answers ann@example.com",
        ),
    ],
)
def test_passwords_in_texts_are_hidden(text: str, expected: str) -> None:
    assert without_passwords(text) == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"smtp_url": "mail.example.com"}, "smtp_url (flag --smtp-url): This URL does not begin with smtp://"),
        ({"smtp_url": "smtp://mail:no"}, "smtp_url (flag --smtp-url): This URL has no host, or a port that is not a"),
        ({"smtp_url": "smtp://mail/x"}, "smtp_url (flag --smtp-url): This URL has something after its host and port"),
        ({"mail_from": "Ann"}, "mail_from (flag --mail-from): 'Ann' is neither an email address nor NAME <ADDRESS>."),
        ({"mail_from": "=x:y@h://z["}, "mail_from (flag --mail-from): The value is neither an email address nor NAME"),
        (
            {"smtp_url": "smtp://mail", "public_url": "https://chat"},
            "smtp_url (flag --smtp-url): This needs mail_from beside it. Set all three, or none.",
        ),
        ({"smtp_url": "smtp://mail"}, "smtp_url (flag --smtp-url): This needs mail_from and public_url beside it."),
        ({"public_url": "chat.example.com"}, "public_url (flag --public-url): This URL does not begin with http://"),
        ({"registration": "sometimes"}, "registration (flag --registration): 'sometimes' is not open or invited or"),
    ],
)
def test_a_wrong_setting_of_mail_or_registration_is_reported(flags: dict[str, str], expected: str) -> None:
    (fault,) = faults(**flags)
    assert fault.startswith(expected)


def test_mail_may_come_from_a_name() -> None:
    settings = load(smtp_url="smtp://mail", mail_from="Our Chat <chat@example.com>", public_url="https://chat")
    assert settings.mail_from == "Our Chat <chat@example.com>"


def test_flags_come_before_the_environment_and_the_file(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    file.write_text("port = 1\nshards = 7\nuser_rate = 5\n")
    monkeypatch.setenv("HUBBUB_PORT", "2")
    monkeypatch.setenv("HUBBUB_SHARDS", "8")
    settings = load(port="3")
    assert (settings.port, settings.shards, settings.user_rate) == (3, 8, 5)


@pytest.mark.parametrize("text", ["127.0.0.1,10.0.0.0/8", " 127.0.0.1 , 10.0.0.0/8,", '["127.0.0.1", "10.0.0.0/8"]'])
def test_a_list_is_written_with_commas_or_as_json(text: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(f"proxies = '{text}'")
    assert load().proxies == ("127.0.0.1", "10.0.0.0/8")
    file.write_text("")
    monkeypatch.setenv("HUBBUB_PROXIES", text)
    assert load().proxies == ("127.0.0.1", "10.0.0.0/8")


def test_a_list_in_the_file_may_be_one_of_toml(file: Path) -> None:
    file.write_text('proxies = ["::1", "2001:db8::/32"]')
    assert load().proxies == ("::1", "2001:db8::/32")


def test_an_empty_text_takes_away_what_the_file_sets(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('search_url = "http://search:9200"\nproxies = "::1"\ntls_cert = "a"\ntls_key = "b"')
    for name in ("SEARCH_URL", "PROXIES", "TLS_CERT", "TLS_KEY"):
        monkeypatch.setenv(f"HUBBUB_{name}", "")
    settings = load(files=True)
    assert (settings.search_url, settings.proxies, settings.tls_cert, settings.tls_key) == ("", (), None, None)


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 1), (3, 1), (4, 2), (6, 4), (64, 4)])
def test_as_many_processes_serve_as_suit_the_cores(cores: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.settings.os.sched_getaffinity", lambda _: set(range(cores)))
    assert load().serving_processes == expected
    assert load(processes="7").serving_processes == 7
    assert faults(processes="17")[0].startswith(
        "processes (flag --processes): '17' is not a whole number from 0 to 16."
    )


# Errors --------------------------------------------------------------------------------------------------------------


def test_all_faults_of_all_sources_are_reported_at_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('# ours\nprot = 3\nshards = true\n[server]\nport = "x"\n')
    monkeypatch.setenv("HUBBUB_PROXIES", "127.0.0.1, 10.0.0.1/8")
    monkeypatch.setenv("HUBBUB_LOG_FORMAT", "xml")
    assert faults(port="tcp://10.0.0.1:3000") == [
        f"prot (file {file} line 2): There is no such setting. Did you mean port?",
        f"server (file {file} line 4): There is no such setting. hubbub config shows all there are.",
        "port (flag --port): 'tcp://10.0.0.1:3000' is not a whole number from 0 to 65535."
        " Write, for example: --port 3000",
        f"shards (file {file} line 3): 'true' is not a whole number from 1 to 256. Write, for example: shards = 4",
        "proxies (environment HUBBUB_PROXIES): '10.0.0.1/8' is an address in a network: write 10.0.0.0/8 for all of"
        " that. Write, for example: HUBBUB_PROXIES=127.0.0.1,10.0.0.0/8",
        "log_format (environment HUBBUB_LOG_FORMAT): 'xml' is not text or json."
        " Write, for example: HUBBUB_LOG_FORMAT=text",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'port = 3\nhost "x"', "file {} line 2: This is not TOML: Expected '=' after a key in a key/value pair."),
        (b"port = " + b"9" * 5000, "file {}: This is not TOML: Exceeds the limit"),
        (b"a = " + b"[" * 5000, "file {}: This is not TOML: too deep."),
        (b"port = '\xff'", "{} (environment HUBBUB_CONFIG): This is not UTF-8 text."),
        (b"#" * 1_100_000, "{} (environment HUBBUB_CONFIG): This file is larger than 1048576 bytes."),
    ],
)
def test_a_file_that_cannot_be_read_is_reported(content: bytes, expected: str, file: Path) -> None:
    file.write_bytes(content)
    (fault,) = faults()
    assert fault.startswith(expected.format(file))


def test_a_named_file_that_does_not_exist_is_reported(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = "There is no such file. Name one that is there, or unset HUBBUB_CONFIG."
    assert faults() == [f"{file} (environment HUBBUB_CONFIG): {expected}"]
    monkeypatch.setenv("HUBBUB_CONFIG", str(file.parent))
    assert "can't be read: Is a directory" in faults()[0]
    monkeypatch.chdir(file.parent)
    monkeypatch.delenv("HUBBUB_CONFIG")
    assert load(port="5").port == 5, "the default file need not be there"


@pytest.mark.parametrize("command", [name for name in main.commands if name not in ("dead", "search", "perftest")])
def test_every_command_refuses_a_wrong_setting(command: str, tmp_path: Path) -> None:
    (tmp_path / "backup").touch()
    arguments = {
        "backup": ["x"],
        "restore": [str(tmp_path / "backup")],
        "operators": ["list"],
        "users": ["delete", "a@example.com"],
    }.get(command, [])
    with environment(HUBBUB_CONFIG="/nope.toml", HUBBUB_PORT="x"):
        result = CliRunner().invoke(main, [command, *arguments])
    assert result.exit_code == 2, result.output
    assert [line.split(" (")[0] for line in result.stderr.splitlines()] == ["hubbub: /nope.toml", "hubbub: port"]


def test_a_warning_about_an_unknown_variable_names_the_nearest() -> None:
    with environment(HUBBUB_PROT="1", hubbub_port="2", HUBBUB_ZZZ="3", HUBBUB_CONFIG="", HUBBUB_MODEL_REAL="4"):
        assert warnings() == [
            "environment HUBBUB_PROT: No such setting; it is ignored. Did you mean HUBBUB_PORT?",
            "environment HUBBUB_ZZZ: No such setting; it is ignored. hubbub config shows all there are.",
            "environment hubbub_port: No such setting; it is ignored. Did you mean HUBBUB_PORT?",
        ]
        assert CliRunner().invoke(main, ["config"]).stderr.splitlines() == [f"hubbub: {each}" for each in warnings()]


def test_our_own_variables_give_no_warning() -> None:
    root = Path(__file__).parents[2]
    named = subprocess.run(
        ["grep", "-rhoE", r'environ[^"]*"HUBBUB_\w+|KEY_VARIABLE = "HUBBUB_\w+', "src", "tests", "benchmarks"],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
    ).stdout.split('"')[1:]
    names = {text.split("\n")[0] for text in named}
    assert len(names) > 4
    with environment(**dict.fromkeys(names, "")):
        assert warnings() == []


# Certificates --------------------------------------------------------------------------------------------------------


def pem(folder: Path, name: str, *more: str) -> tuple[str, str]:
    """A certificate and its key."""
    cert, key = str(folder / f"{name}.pem"), str(folder / f"{name}.key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "1"]
    command += [*(more or ["-nodes"]), "-subj", "/CN=localhost", "-out", cert, "-keyout", key]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def test_tls_files_must_exist_and_match(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = pem(tmp_path, "one")
    _, other = pem(tmp_path, "other")
    _, locked = pem(tmp_path, "locked", "-passout", "pass:secret")

    def fault(cert: str, key: str) -> str:
        monkeypatch.setenv("HUBBUB_TLS_CERT", cert)
        monkeypatch.setenv("HUBBUB_TLS_KEY", key)
        (fault,) = faults()
        return fault

    assert fault("/nope", key).startswith(
        "tls_cert (environment HUBBUB_TLS_CERT): '/nope' can't be read: No such file or directory. Write, for example:"
    )
    assert "tls_key (environment HUBBUB_TLS_KEY): '/' can't be read: Is a directory." in fault(cert, "/")
    assert "'/dev/zero' has no PEM text that begins with -----BEGIN PRIVATE KEY-----." in fault(cert, "/dev/zero")
    assert "has no PEM text that begins with -----BEGIN CERTIFICATE-----." in fault(key, key)
    assert f"'{other}' is not the key of the certificate in '{cert}'." in fault(cert, other)
    assert "has a passphrase: write it without one" in fault(cert, locked)
    (tmp_path / "bad.pem").write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    assert "can't be used" in fault(str(tmp_path / "bad.pem"), key)
    assert (
        fault(cert, "") == "tls_cert (environment HUBBUB_TLS_CERT): This needs tls_key beside it. Set both, or neither."
    )
    monkeypatch.setenv("HUBBUB_TLS_KEY", key)
    assert load(files=True).tls_key == Path(key)


# Any values ----------------------------------------------------------------------------------------------------------

_SOME = st.sampled_from(
    [
        *(
            "mysql",
            "amqp",
            "redis",
            "http",
            "://",
            "@",
            ":",
            "/",
            "[",
            "]",
            ",",
            '"',
            "'",
            "\n",
            "\t",
            " ",
            "%",
            "?",
            "#",
        ),
        *(
            "::1",
            "127.0.0.1",
            "10.0.0.0/8",
            "host",
            "99999",
            "0",
            "-1",
            "1e9",
            "true",
            "json",
            "ann@example.com",
            "=",
            "é",
        ),
        *(f"mysql://u:{SECRET}@h/d", f"http://u:{SECRET}@h:1/", f"redis:/u:{SECRET}@h", f"x:{SECRET}@h", "{}", "inf"),
    ]
)
_TEXTS = st.one_of(
    st.lists(_SOME, max_size=6).map("".join),
    # Hypothesis may draw the secret alone, from values it has seen. As a name or a host it is no secret.
    st.text(max_size=30).filter(lambda text: SECRET not in text),
    st.binary(max_size=30).map(os.fsdecode),
)
_NAMES = st.sampled_from([*Settings.model_fields])
_ANY = settings(
    max_examples=settings.default.max_examples // 2 if settings.default else 100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize("name", ["data", "tls_cert", "operators", "host", "mail_from"])
@pytest.mark.parametrize("value", [f"mysql://u:{SECRET}@h/d", f"redis:/u:{SECRET}@h", f"x:{SECRET}@h"])
def test_a_url_in_the_wrong_place_is_refused_and_not_shown(name: str, value: str) -> None:
    with environment():
        assert SECRET not in faults(**{name: value})[0]


def check_reported(attempt: Callable[[], Any]) -> None:
    """Check that it works, or that there is one line for each fault, and that no secret is shown."""
    lines = []
    try:
        lines = list(shown(attempt()).values())
    except SettingsWrong as error:
        lines = error.faults
        assert all(fault.isprintable() for fault in lines)
        assert len({fault.split("): ")[0] for fault in lines}) == len(lines)  # a setting and its source
    assert not any(SECRET in each for each in lines)


@_ANY
@given(values=st.dictionaries(_NAMES, _TEXTS.filter(lambda text: "\0" not in text), max_size=4))
def test_no_value_in_the_environment_breaks_anything(values: dict[str, str]) -> None:
    with suppress(UnicodeEncodeError):  # the environment can't hold every text
        with environment(**{f"HUBBUB_{name.upper()}": value for name, value in values.items()}):
            check_reported(lambda: load(files=True))
            result = CliRunner().invoke(main, ["config"])
            assert result.exit_code in (0, 2), result.output
            assert SECRET not in result.output


@_ANY
@given(values=st.dictionaries(_NAMES, _TEXTS, max_size=4))
def test_no_value_of_a_flag_breaks_anything(values: dict[str, Any]) -> None:
    with environment():
        check_reported(lambda: load(files=True, **values))


_TOML = st.one_of(
    _TEXTS,
    _TEXTS.map(lambda text: f"'{text}'"),
    _TEXTS.map(lambda text: '"' + "".join(f"\\U{ord(each) % 0xD800:08x}" for each in text) + '"'),
    st.lists(st.sampled_from(["1", '"::1"', "'a@b'", "[]", "{}", "1.5"]), max_size=3).map(
        lambda items: f"[{','.join(items)}]"
    ),
    st.sampled_from(
        ["true", "inf", "nan", "1979-05-27", "{a = 1}", "0x10", "1_0", "9" * 30, "9" * 5000, "-1", "[" * 2000]
    ),
)


@_ANY
@given(values=st.lists(st.tuples(st.one_of(_NAMES, _TEXTS, _TEXTS.map(lambda text: f"'{text}'")), _TOML), max_size=3))
def test_no_file_breaks_anything(values: list[tuple[str, str]], tmp_path: Path) -> None:
    file = tmp_path / "any.toml"
    file.write_bytes("\n".join(f"{name} = {value}" for name, value in values).encode("utf-8", "surrogateescape"))
    with environment(HUBBUB_CONFIG=str(file)):
        check_reported(lambda: load(files=True))


@_ANY
@given(
    name=st.sampled_from(["mysql_url", "amqp_url", "redis_url", "search_url", "host"]),
    value=st.one_of(
        _TEXTS,
        st.tuples(st.sampled_from(["mysql", "amqp", "redis", "http", "https"]), st.just("://"), _TEXTS, _TEXTS).map(
            "".join
        ),
    ),
)
def test_an_accepted_url_or_host_can_be_used(name: str, value: str) -> None:
    """The library that uses it accepts it too."""
    from elasticsearch import Elasticsearch
    from opensearchpy import OpenSearch

    with environment():
        try:
            found = getattr(load(files=False, **{name: value}), name)
        except SettingsWrong:
            return
    if not found:
        return
    if name == "host":
        with suppress(OSError):
            socket.getaddrinfo(found, 0, flags=socket.AI_NUMERICHOST)
    elif name == "mysql_url":
        engine_of(found).dispose()
        assert engine_of(found).url.host == urlsplit(found).hostname
    elif name == "amqp_url":
        assert URL(found).host == urlsplit(found).hostname
    elif name == "redis_url":
        for url in found.split(","):
            assert int(urlsplit(url.strip()).path.strip("/") or 0) >= 0
    else:
        Elasticsearch(found).close()
        OpenSearch([found]).close()
