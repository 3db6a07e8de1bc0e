"""RabbitMQ over TLS, where each side shows a certificate: the options of the URL mean the same to all that connect."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from hubbub.cluster import broker, confirming
from hubbub.cluster.protocol import Barrier
from hubbub.cluster.publisher import Publisher
from hubbub.loadtest.servers import RabbitMq, free_port
from tests.cluster.test_confirming import connected, new_queue, outcome, read
from tests.servers import need_servers


class Secured(RabbitMq):
    """Also listens at ``tls_port``, with a certificate for 127.0.0.1, for clients that show the same one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tls_port = free_port()
        self.authority, _ = self._certificate("authority", "/CN=authority")
        self.cert, self.key = self._certificate(
            "both",
            "/CN=hubbub",
            *("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:false"),
            *("-CA", str(self.authority), "-CAkey", str(self.folder / "authority.key")),
        )

    def _certificate(self, name: str, subject: str, *more: str) -> tuple[Path, Path]:
        """A certificate, signed by itself unless ``more`` says otherwise, and its key."""
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", subject]
        subprocess.run([*command, *more, "-keyout", key, "-out", cert], check=True, capture_output=True)
        return cert, key

    def secure(self) -> None:
        """Start again with the second listener. It must have run before, which makes its other settings."""
        self.stop()
        with (self.folder / "rabbitmq.conf").open("a") as config:
            config.write(
                f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}\nssl_options.cacertfile = {self.authority}\n"
                f"ssl_options.certfile = {self.cert}\nssl_options.keyfile = {self.key}\n"
                "ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n"
            )
        self.start()

    def over_tls(self, *options: tuple[str, object], host: str = "127.0.0.1") -> str:
        """The URL with these options."""
        return f"amqps://hubbub:{self.password}@{host}:{self.tls_port}/?{urlencode(options)}"

    @property
    def known(self) -> tuple[str, object]:
        """The option with which a client knows the server's certificate."""
        return "cafile", self.authority

    @property
    def mine(self) -> list[tuple[str, object]]:
        """The options with which a client shows its own."""
        return [("certfile", self.cert), ("keyfile", self.key)]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    need_servers()
    server = Secured(tmp_path_factory.mktemp("secured"))
    try:
        server.start()
        server.secure()
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("size", [0, 1_000_000])
async def test_what_is_confirmed_over_tls_is_in_the_queue(secured: Secured, size: int) -> None:
    url = secured.over_tls(secured.known, *secured.mine)
    name = await new_queue(url)
    async with connected(url) as connection:
        assert await outcome(connection.publish(name, b"x" * size)) is None
        assert await outcome(connection.publish(name, b"after")) is None
    assert await read(secured.url, name) == [(b"x" * size, None), (b"after", None)]


async def test_a_publisher_and_the_doctor_connect_over_tls(secured: Secured) -> None:
    url = secured.over_tls(secured.known, *secured.mine)
    assert (await broker.probe(url)).version
    publisher = Publisher(url, 1)
    try:
        assert await publisher.connected(20)
        ticket = publisher.accept_barrier(0, Barrier(0, "candidate", 1))
        assert ticket is not None
        assert await ticket is None
    finally:
        await publisher.close()


async def test_an_unknown_certificate_is_refused_unless_the_url_says_otherwise(secured: Secured) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        await confirming.connect(secured.over_tls(*secured.mine), "test", heartbeat_s=3, within_s=10)
    async with connected(secured.over_tls(("no_verify_ssl", 1), *secured.mine)) as connection:
        assert not connection.lost.is_set()


async def test_a_certificate_for_another_host_is_refused(secured: Secured) -> None:
    url = secured.over_tls(secured.known, *secured.mine, host="localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match="localhost"):
        await confirming.connect(url, "test", heartbeat_s=3, within_s=10)


async def test_who_shows_no_certificate_is_a_lost_connection(secured: Secured) -> None:
    url = secured.over_tls(secured.known)
    with pytest.raises(OSError):
        await confirming.connect(url, "test", heartbeat_s=3, within_s=10)
    with pytest.raises(broker.LOST):
        await broker.connect(url, "test")
