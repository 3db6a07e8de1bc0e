"""Private RabbitMQ, MariaDB, Redis and OpenSearch servers on loopback: free ports, scratch data, generated passwords.

The first three are Debian's own, OpenSearch is made of jars; all are started as children of this process and stopped by
process id. Nothing that the system runs, and nothing in /etc, is used or touched.
"""

from __future__ import annotations

import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_START_S = 60.0
_STOP_S = 30.0
_PACKAGES = {"rabbitmq-server": "rabbitmq-server", "mariadbd": "mariadb-server", "redis-server": "redis-server"}


class ServerMissing(Exception):
    """A server's program is not installed; the text has the command that installs it."""


class ServerFailed(Exception):
    """A server did not start; the text has the end of its log."""


def missing() -> str | None:
    """Names what is not installed and how to install it; None when all is there."""
    absent = [package for program, package in _PACKAGES.items() if _program(program) is None]
    return f"not installed: {', '.join(absent)}. On Debian: scripts/install-servers.sh" if absent else None


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/lib/rabbitmq/bin")


_given: set[int] = set()


def free_port() -> int:
    """A port that is free now, below those that the system gives to outgoing connections, so it stays free."""
    while True:
        port = secrets.randbelow(12_000) + 20_000
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


class Server:
    """One server process. ``start`` again after ``kill`` uses the same data and port."""

    name = ""
    program = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.name
        self.folder.mkdir()
        self.port = free_port()
        self.password = secrets.token_hex(16)
        self.log = self.folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self.process is None:
            raise ServerFailed(f"{self.name} is not running.")
        return self.process.pid

    def start(self) -> None:
        """Raises ServerMissing or ServerFailed."""
        if _program(self.program) is None:
            raise ServerMissing(missing() or "")
        self._run()
        self._wait(self.ready)

    def _run(self) -> None:
        raise NotImplementedError

    def ready(self) -> bool:
        raise NotImplementedError

    def _spawn(self, command: list[str], environment: dict[str, str] | None = None) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self.folder,  # where a server that crashes leaves its dump
                start_new_session=True,
            )

    def _wait(self, ready: Callable[[], bool]) -> None:
        until = time.monotonic() + _START_S
        while not ready():
            gone = self.process is not None and self.process.poll() is not None
            if gone or time.monotonic() > until:
                raise ServerFailed(f"{self.name} did not start. The end of its log:\n{self._log_end()}")
            time.sleep(0.05)

    def _log_end(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    def kill(self) -> None:
        """As ``kill -9``, with all that it started."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        process, self.process = self.process, None
        self._signal(process.pid, number)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            number = signal.SIGKILL
        # The process group may outlive its leader by a moment, and hold the port and the files.
        until = time.monotonic() + _STOP_S
        while self._signal(process.pid, 0):
            if time.monotonic() > until:
                number = signal.SIGKILL
            if number == signal.SIGKILL:
                self._signal(process.pid, number)
            process.poll()
            time.sleep(0.01)

    @staticmethod
    def _signal(group: int, number: int) -> bool:
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            return False
        return True


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


class Redis(Server):
    name = "redis"
    program = "redis-server"

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def _run(self) -> None:
        config = self.folder / "redis.conf"
        config.touch(mode=0o600)
        config.write_text(
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\ndir {self.folder}\n"
            'save ""\nappendonly no\nmaxmemory-policy noeviction\n'
        )
        self._spawn([_program(self.program) or "", str(config)])

    def command(self, *words: str) -> bytes:
        """Send one command and return the reply's first bytes as they came."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(f"AUTH {self.password}\r\n{' '.join(words)}\r\n".encode())
            reply = b""
            while reply.count(b"\r\n") < 2:
                data = connection.recv(4096)
                if not data:
                    break
                reply += data
        return reply.split(b"\r\n", 1)[1]

    def ready(self) -> bool:
        try:
            return self.command("PING").startswith(b"+PONG")
        except (OSError, IndexError):
            return False


class MariaDb(Server):
    """``options`` are more of mariadbd's."""

    name = "mariadb"
    program = "mariadbd"

    def __init__(self, folder: Path, options: tuple[str, ...] = ()) -> None:
        super().__init__(folder)
        self.options = options
        self._socket = self.folder / "socket"

    def url(self, database: str = "hubbub") -> str:
        return f"mysql://hubbub:{self.password}@127.0.0.1:{self.port}/{database}"

    def _run(self) -> None:
        data = self.folder / "data"
        if not data.exists():
            self._install(data)
        self._spawn(
            [
                _program(self.program) or "",
                "--no-defaults",
                f"--datadir={data}",
                f"--tmpdir={self.folder}",  # one that starts deletes the temporary tables that it finds there
                f"--port={self.port}",
                "--bind-address=127.0.0.1",
                f"--socket={self._socket}",
                f"--pid-file={self.folder}/pid",
                f"--user={'root' if os.getuid() == 0 else ''}",
                f"--init-file={self.folder}/users.sql",
                "--innodb-flush-log-at-trx-commit=1",
                "--innodb-buffer-pool-size=256M",
                "--innodb-log-file-size=256M",
                "--skip-name-resolve",
                "--performance-schema=OFF",
                *self.options,
            ]
        )

    def _install(self, data: Path) -> None:
        users = self.folder / "users.sql"
        users.touch(mode=0o600)
        users.write_text(
            "CREATE DATABASE IF NOT EXISTS hubbub CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;\n"
            f"CREATE USER IF NOT EXISTS hubbub@'127.0.0.1' IDENTIFIED BY '{self.password}';\n"
            "GRANT ALL ON `hubbub%`.* TO hubbub@'127.0.0.1';\n"
        )
        with self.log.open("ab") as log:
            done = subprocess.run(
                [
                    _program("mariadb-install-db") or "",
                    "--no-defaults",
                    f"--datadir={data}",
                    f"--user={'root' if os.getuid() == 0 else ''}",
                    "--skip-test-db",
                    "--auth-root-authentication-method=normal",
                ],
                check=False,
                stdout=log,
                stderr=log,
                env=os.environ | {"TMPDIR": str(self.folder)},
            )
        if done.returncode:
            raise ServerFailed(f"MariaDB's data could not be made. The end of its log:\n{self._log_end()}")

    def root(self, sql: str) -> str:
        """Run a statement with all rights; returns the rows as text."""
        command = [_program("mariadb") or "", "--no-defaults", f"--socket={self._socket}", "-u", "root", "-e", sql]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def ready(self) -> bool:
        return _listens(self.port)


class RabbitMq(Server):
    name = "rabbitmq"
    program = "rabbitmq-server"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._epmd: subprocess.Popen[bytes] | None = None
        self._environment = {
            **os.environ,
            "HOME": str(self.folder),
            "PATH": f"{os.environ.get('PATH', '')}:/usr/lib/rabbitmq/bin",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(free_port()),
            "RABBITMQ_NODENAME": f"hubbub{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            # The rest is one line each: what a laptop's two cores should not be spun for while nothing arrives.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
        }

    @property
    def url(self) -> str:
        return f"amqp://hubbub:{self.password}@127.0.0.1:{self.port}/"

    def _run(self) -> None:
        config = self.folder / "rabbitmq.conf"
        if not config.exists():
            config.touch(mode=0o600)
            config.write_text(
                f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
                f"default_user = hubbub\ndefault_pass = {self.password}\n"
                "log.console = true\nlog.file = false\nlog.console.level = warning\n"
            )
            (self.folder / "enabled_plugins").write_text("[].\n")
            cookie = self.folder / ".erlang.cookie"
            cookie.touch(mode=0o600)
            cookie.write_text(secrets.token_hex(16))
            cookie.chmod(0o400)
        if self._epmd is None:
            # Erlang would start its port mapper as a daemon and leave it behind.
            self._epmd = subprocess.Popen(
                [_program("epmd") or "", "-port", self._environment["ERL_EPMD_PORT"], "-address", "127.0.0.1"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._spawn(["/usr/lib/rabbitmq/bin/rabbitmq-server"], self._environment)

    def ready(self) -> bool:
        return _listens(self.port)

    def control(self, *words: str) -> str:
        """``rabbitmqctl``; returns what it prints."""
        done = subprocess.run(
            ["/usr/lib/rabbitmq/bin/rabbitmqctl", "-q", *words],
            env=self._environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    def _end(self, number: signal.Signals) -> None:
        super()._end(number)
        if number == signal.SIGTERM and self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
            self._epmd = None


class SearchServer(Server):
    """A single node. It has no password, as its security module is not there: loopback is all that guards it.

    ``options`` are more of its settings, each ``name=value``.
    """

    program = "java"

    def __init__(self, folder: Path, options: tuple[str, ...] = ()) -> None:
        super().__init__(folder)
        self.options = options

    @classmethod
    def jars(cls) -> Path:
        given = os.environ.get("HUBBUB_SEARCH_SERVERS")
        return (Path(given) if given else Path.home() / ".cache" / "hubbub") / cls.name

    @classmethod
    def absent(cls) -> str | None:
        """How to install it; None when it is there."""
        there = (cls.jars() / "complete").exists() and _program("java") is not None
        return None if there else f"not installed: {cls.name}. With Maven: scripts/install-search.sh {cls.name}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        absent = self.absent()
        if absent:
            raise ServerMissing(absent)
        (self.folder / "config").mkdir(exist_ok=True)
        super().start()

    def _java(self, path: list[str], source: str) -> None:
        memory = ["-Xms512m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        program = Path(__file__).parent / "search_servers" / source
        arguments = [str(self.folder), str(self.port), *self.options]
        self._spawn([_program("java") or "", *memory, *path, str(program), *arguments])

    def ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/_cluster/health?wait_for_status=yellow&timeout=1s")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


class OpenSearch(SearchServer):
    name = "opensearch"

    def _run(self) -> None:
        self._java(["-cp", f"{self.jars()}/*"], "OpenSearchNode.java")


class Elasticsearch(SearchServer):
    """Its HTTP module must lie apart from the server's own jars, with a description beside it."""

    name = "elasticsearch"

    def _run(self) -> None:
        module, own = self.folder / "modules" / "transport-netty4", self.folder / "jars"
        if not module.exists():
            module.mkdir(parents=True)
            own.mkdir()
            for jar in self.jars().glob("*.jar"):
                apart = jar.name.startswith(("netty-", "transport-netty4-"))
                ((module if apart else own) / jar.name).symlink_to(jar)
            (self.folder / "plugins").mkdir()
            version = next(module.glob("transport-netty4-*.jar")).stem.rsplit("-", 1)[1]
            (module / "plugin-descriptor.properties").write_text(
                "name=transport-netty4\ndescription=HTTP\nclassname=org.elasticsearch.transport.netty4.Netty4Plugin\n"
                f"version={version}\nelasticsearch.version={version}\njava.version=17\n"
            )
        self._java(["-p", str(own), "--add-modules", "org.elasticsearch.server"], "ElasticsearchNode.java")
