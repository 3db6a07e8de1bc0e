"""The workers' connections: sockets on which nothing waits, with TLS or without it."""

from __future__ import annotations

import asyncio
import socket
import ssl

# What a socket raises if it can neither give nor take anything now.
NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_HANDSHAKE_STEP_S = 0.002


def secure() -> ssl.SSLContext:
    """The context with which ``connect`` uses TLS."""
    context = ssl.create_default_context()
    context.sslsocket_class = _Secured
    return context


async def connect(host: str, port: int, tls: ssl.SSLContext | None) -> socket.socket:
    """Raises OSError when no address of the host takes the connection."""
    loop = asyncio.get_running_loop()
    failed = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.setblocking(False)
            await loop.sock_connect(connection, address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                connection = tls.wrap_socket(connection, server_hostname=host, do_handshake_on_connect=False)
                await _shake_hands(connection)
        except OSError as error:
            connection.close()
            failed = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise failed


async def _shake_hands(connection: ssl.SSLSocket) -> None:
    while True:
        try:
            connection.do_handshake()
        except NOT_NOW:
            await asyncio.sleep(_HANDSHAKE_STEP_S)
        else:
            return


class _Secured(ssl.SSLSocket):
    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """All that was decrypted: epoll does not see what stays here."""
        data = super().recv(buflen, flags)
        while self.pending():
            data += super().recv(buflen, flags)
        return data
