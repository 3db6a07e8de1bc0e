"""The files in deploy/ work with the programs that they are for."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import Service, eventually

DEPLOY = Path(__file__).parents[2] / "deploy"


def program(name: str, package: str) -> str:
    """Return the path of a program, or skip the test if it is not installed."""
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin:/bin")
    if found is None:
        pytest.skip(f"not installed: {name}. On Debian: apt-get install {package}")
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def replaced(name: str, **changes: str) -> str:
    """Return a file of deploy/ with texts replaced. Each of them must be there."""
    text = (DEPLOY / name).read_text()
    for old, new in changes.items():
        assert old in text, f"{name} does not have {old}"
        text = text.replace(old, new)
    return text


@contextmanager
def running(command: list[str], port: int, log: Path, **environment: str) -> Iterator[None]:
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={"PATH": "/usr/bin:/bin"} | environment)

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually(answers)
        yield
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("behind") / "data")
    service.start(HUBBUB_PROXIES="127.0.0.1")
    yield service
    service.stop()


def check_proxied(url: str, service: Service, who: str) -> httpx.Response:
    """Check the service behind the proxy as a client at 127.0.0.2, and return the answer to its registration."""
    transport = httpx.HTTPTransport(local_address="127.0.0.2", verify=False)
    with httpx.Client(base_url=url, transport=transport, timeout=10) as client:
        account = {"name": "Ann", "email": f"{who}@example.com", "password": "correct horse"}
        registered = client.post("/api/v1/auth/register", json=account)
        assert registered.status_code == 201, registered.text
        client.headers["authorization"] = f"Bearer {registered.cookies['auth_token']}"
        token = client.post("/api/v1/applications", json={"name": "Ours"}).json()["token"]
        assert client.post(f"/api/v1/applications/{token}/chats").status_code == 201
        messages = f"/api/v1/applications/{token}/chats/1/messages"
        with client.stream("GET", f"{messages}/stream?after=0") as stream:
            lines = stream.iter_lines()
            assert client.post(messages, json={"body": "at once"}).status_code == 200
            assert next(line for line in lines if "at once" in line)
        assert client.get("/metrics").status_code == 404
        assert client.post(messages, json={"body": "x" * 300_000}).status_code == 413
        wrong = {"email": account["email"], "password": "wrong"}
        lie = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "ftp"}
        assert client.post("/api/v1/auth/login", json=wrong, headers=lie).status_code == 401
    line = f"A login to {who[0]}***@example.com from 127.0.0.2 failed."
    eventually(lambda: line in service.log)
    return registered


def test_nginx_passes_on_requests_streams_and_addresses(behind: Service, tmp_path: Path) -> None:
    nginx = program("nginx", "nginx-light")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    made += ["-subj", "/CN=localhost", "-out", str(cert), "-keyout", str(key)]
    subprocess.run(made, check=True, capture_output=True)
    plain, port = free_port(), free_port()
    live = "/etc/letsencrypt/live/chat.example.com"
    text = replaced(
        "nginx.conf",
        **{
            "listen 80;": f"listen 127.0.0.1:{plain};",
            "    listen [::]:80;\n": "",
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "    listen [::]:443 ssl http2;\n": "",
            f"{live}/fullchain.pem": str(cert),
            f"{live}/privkey.pem": str(key),
            "127.0.0.1:3000": behind.url.removeprefix("http://"),
        },
    )
    (tmp_path / "hubbub.conf").write_text(text)
    scratch = " ".join(
        f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/pid; error_log stderr; worker_processes 1; user root;"
        f" events {{}} http {{ access_log off; {scratch} include {tmp_path}/hubbub.conf; }}\n"
    )
    command = [nginx, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    tested = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stderr
    with running(command, port, tmp_path / "log"):
        registered = check_proxied(f"https://127.0.0.1:{port}", behind, "nginx")
        assert "; Secure" in registered.headers["set-cookie"], "the service believes that it is TLS"
        moved = httpx.get(f"http://127.0.0.1:{plain}/x?y=1", headers={"Host": "chat.example.com"})
        assert (moved.status_code, moved.headers["location"]) == (301, "https://chat.example.com/x?y=1")


def test_caddy_passes_on_requests_streams_and_addresses(behind: Service, tmp_path: Path) -> None:
    caddy = program("caddy", "caddy")
    port = free_port()
    text = replaced(
        "Caddyfile",
        **{
            "chat.example.com {": f"https://localhost:{port}, https://127.0.0.1:{port} {{\n\ttls internal",
            "127.0.0.1:3000": behind.url.removeprefix("http://"),
        },
    )
    options = "{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n\tdefault_sni localhost\n}\n"
    (tmp_path / "Caddyfile").write_text(options + text)
    command = [caddy, "run", "--config", str(tmp_path / "Caddyfile"), "--adapter", "caddyfile"]
    home = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    with running(command, port, tmp_path / "log", **home):

        def greets() -> bool:
            try:
                return httpx.get(f"https://localhost:{port}/healthz", verify=False).status_code == 200  # noqa: S501
            except httpx.ConnectError:
                return False

        eventually(greets)  # it makes its certificate after it begins to listen
        registered = check_proxied(f"https://localhost:{port}", behind, "caddy")
        assert "; Secure" in registered.headers["set-cookie"]


@pytest.mark.parametrize("name", ["hubbub.service", "hubbub-backup.service", "hubbub-backup.timer"])
def test_systemd_accepts_the_units(name: str, tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "systemd")
    for unit in DEPLOY.glob("hubbub*.*"):
        text = unit.read_text().replace("/opt/hubbub/bin/hubbub", sys.executable)
        (tmp_path / unit.name).write_text(text)
    checked = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / name)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (checked.returncode, checked.stderr) == (0, "")
