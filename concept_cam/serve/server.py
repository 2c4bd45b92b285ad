"""Runs the app under uvicorn: on the loopback interface, or elsewhere with a token; sockets are bounded and silent ones are closed."""

from __future__ import annotations

import asyncio
import secrets
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from concept_cam.core.errors import ConfigurationError
from concept_cam.serve.guard import LOOPBACK

if TYPE_CHECKING:
    import uvicorn

    from concept_cam.serve.desk import Desk

__all__ = ["MOST_CONNECTIONS", "Address", "bind", "make_server", "plan_address"]

MOST_CONNECTIONS = 256
"""Connections that are held at once; further ones are closed when they come."""

SILENCE = 15.0
"""Seconds within which a new connection must have sent a request."""


@dataclass(frozen=True)
class Address:
    """Where the app listens.

    Attributes:
        host: Address to bind to.
        port: Port; 0 for any free one.
        token: Secret that every request must carry; empty on the loopback interface.
        hosts: Host names that are answered for besides the loopback ones.
    """

    host: str
    port: int
    token: str = ""
    hosts: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """The address to open, with its token."""
        shown = "127.0.0.1" if self.host in ("0.0.0.0", "") else f"[{self.host}]" if ":" in self.host else self.host
        if self.host in ("0.0.0.0", "::") and self.hosts:
            shown = self.hosts[0]
        return f"http://{shown}:{self.port}/" + (f"?token={self.token}" if self.token else "")


def plan_address(host: str | None, port: int, token: str | None = None, allowed: tuple[str, ...] = ()) -> Address:
    """Decides where to listen: loopback by default, elsewhere only with a token.

    Args:
        host: Address given by the person; ``None`` for the loopback interface.
        port: Port.
        token: Token given by the person; made where one is needed and none was given.
        allowed: Further host names.

    Raises:
        ConfigurationError: A token that is too short to keep anybody out.
    """
    if token is not None and (len(token) < 16 or not token.isascii() or not all(letter.isalnum() or letter in "-_" for letter in token)):
        raise ConfigurationError("--token takes at least 16 letters, digits, - and _; leave it out to have one made.")
    if host is None or host in LOOPBACK:
        return Address(host or "127.0.0.1", port, token or "", allowed)
    own = () if host in ("0.0.0.0", "::") else (host,)
    # Bound to every interface, the machine's own names are those that people will type.
    names = (socket.gethostname(),) if not own else ()
    return Address(host, port, token or secrets.token_urlsafe(24), (*own, *allowed, *names))


def bind(address: Address) -> tuple[socket.socket, Address]:
    """Takes the port, so that a port in use is reported before the model is loaded.

    Raises:
        ConfigurationError: The port is taken or not allowed.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {address.host}:{address.port}: {error.strerror or error}. Give another --port or --host."
        ) from error
    return listener, Address(address.host, listener.getsockname()[1], address.token, address.hosts)


def make_server(desk: Desk, address: Address) -> uvicorn.Server:
    """Returns the server; ``server.run(sockets=[listener])`` runs it until it is interrupted."""
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from concept_cam.serve.app import build_app

    class Protocol(H11Protocol):
        """Closes connections past the limit, and those that stay silent: uvicorn itself waits for a first request without end."""

        _silence: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            if len(self.connections) >= MOST_CONNECTIONS:
                transport.abort()
                self.transport = transport
                return
            super().connection_made(transport)
            self._silence = self.loop.call_later(SILENCE, self._give_up)

        def _give_up(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._silence is not None:
                self._silence.cancel()
            if self in self.connections:
                super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self in self.connections:
                super().data_received(data)

    config = uvicorn.Config(
        build_app(desk, hosts=address.hosts, token=address.token),
        http=Protocol,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=10,
        h11_max_incomplete_event_size=64 * 1024,
        lifespan="on",
    )
    return uvicorn.Server(config)
