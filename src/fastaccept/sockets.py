"""Sockets: bound ones by the standard library, for a server to listen on. Imported by the first listen(): `socket` takes longer to
import than all of this package."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from typing import Any, Optional

from fastaccept.errors import reworded

# With port 0 and several addresses the first socket's port must be free on the others as well.
SAME_PORT_TRIES = 16


def check_adoptable(sock: Any) -> None:
    """Raise ValueError for what a server can't listen on."""
    if not isinstance(sock, socket.socket) or sock.type != socket.SOCK_STREAM:
        raise ValueError(f"sock is {sock!r}; allowed is a bound stream socket")


def resolve(host: Optional[str], port: int) -> list[tuple[int, Any]]:
    """Return the (family, address) pairs that a host stands for, without repetitions. Raises OSError (socket.gaierror)."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def open_sockets(host: Optional[str], port: int, reuse_port: bool, dual_stack: bool) -> list[socket.socket]:
    """Return a bound socket for each address of host, all with the same port. Raises OSError; then none is left open."""
    addresses = resolve(host, port)
    for attempt in range(SAME_PORT_TRIES):
        sockets: list[socket.socket] = []
        try:
            for family, address in addresses:
                if sockets and port == 0:
                    address = (address[0], sockets[0].getsockname()[1], *address[2:])
                sockets.append(_bind(family, address, reuse_port, dual_stack))
            return sockets
        except OSError as error:
            for sock in sockets:
                sock.close()
            if not (port == 0 and sockets and error.errno == errno.EADDRINUSE and attempt + 1 < SAME_PORT_TRIES):
                raise
    raise AssertionError("unreachable")


def _bind(family: int, address: Any, reuse_port: bool, dual_stack: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":
            # There SO_REUSEADDR lets anybody take the port away; this forbids it.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            # Without it a port is not free until its old connections have left TIME_WAIT (socket(7)).
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            if not hasattr(socket, "SO_REUSEPORT"):
                raise ValueError("reuse_port is True; this system has no SO_REUSEPORT")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual_stack else 1)
        # Accepted sockets inherit it (tcp(7)), which saves a call for each.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise reworded(error, f"can't listen on {address[0]} port {address[1]}: {error.strerror}") from None
    except BaseException:
        sock.close()
        raise
    return sock


def open_unix_socket(path: str, mode: Optional[int]) -> socket.socket:
    """Return a socket bound to a path. A socket file that nobody listens on is replaced; a live one is EADDRINUSE."""
    if not hasattr(socket, "AF_UNIX"):
        raise OSError("this system has no Unix-domain sockets")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        sock.bind(path)
        if mode is not None:
            os.chmod(path, mode)
    except OSError as error:
        sock.close()
        raise reworded(error, f"can't listen on {path}: {error.strerror}") from None
    return sock


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
