"""The listening sockets: TCP and unix.

Owns: binding, the lock that keeps a second process from stealing a live unix socket, stopping.
Does not know: what a client says.
"""

import asyncio
import fcntl
import os
from pathlib import Path
from typing import IO

from proxy.session.client_login import make_factory
from proxy.session.frontdesk import Frontdesk
from proxy.session.transports import keep_alive

_BACKLOG = 4096  # fifty workers that start in the same millisecond must not see a reset


class CannotListen(Exception):  # noqa: N818 - says what happened
    """A listening socket could not be made; the text names the setting."""


class Listener:
    """Accepts clients until `stop`."""

    def __init__(self, desk: Frontdesk) -> None:
        self._desk = desk
        self._servers: list[asyncio.Server] = []
        self._lock: IO[str] | None = None
        self._socket_path: Path | None = None

    async def start(self) -> None:
        """Raises CannotListen."""
        listen = self._desk.settings.listen
        try:
            if listen.host is not None:
                await self._listen_tcp(listen.host, listen.port)
            if listen.unix_socket_dir is not None:
                await self._listen_unix(Path(listen.unix_socket_dir) / f".s.PGSQL.{listen.port}")
        except OSError as error:
            where = f"{listen.host} port {listen.port}"
            raise CannotListen(
                f"cannot listen on {where}: {error.strerror or error}; see listen.host, listen.port"
            ) from error

    async def _listen_tcp(self, host: str, port: int) -> None:
        factory = make_factory(self._desk, is_local=False)
        loop = self._desk.loop
        server = await loop.create_server(factory, host, port, backlog=_BACKLOG, start_serving=False)
        for sock in server.sockets:
            keep_alive(sock)  # once, and not for each client
        await server.start_serving()
        self._servers.append(server)

    async def _listen_unix(self, path: Path) -> None:
        # Binding would replace the socket of a live process without a word; the lock tells that there is one.
        self._lock = path.with_name(path.name + ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CannotListen(f"another process serves {path}; see listen.unix_socket_dir") from error
        path.unlink(missing_ok=True)  # noqa: ASYNC240 (once, at start)
        factory = make_factory(self._desk, is_local=True)
        self._servers.append(await self._desk.loop.create_unix_server(factory, str(path), backlog=_BACKLOG))
        os.chmod(path, 0o777)  # noqa: S103 (as PostgreSQL's own: authentication decides, not file modes)
        self._socket_path = path

    @property
    def port(self) -> int:
        """The TCP port, also where 0 let the kernel choose."""
        for server in self._servers:
            for sock in server.sockets:
                name = sock.getsockname()
                if isinstance(name, tuple):
                    return int(name[1])
        return self._desk.settings.listen.port

    async def stop(self) -> None:
        """Take no new clients. Those already accepted are not touched."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._socket_path is not None:
            self._socket_path.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
