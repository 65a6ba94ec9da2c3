"""What all server scripts share: the command line, the listening socket, the readiness line.

Every peer gets the same listening socket, made here: TCP_NODELAY is inherited from it by accepted sockets,
and the backlog is as large as the system allows (the kernel cuts it to net.core.somaxconn). A server ends on
SIGTERM by the default action; nothing is cleaned up, because nothing is measured after that.
"""

from __future__ import annotations

import argparse
import socket

BACKLOG = 65535
# What gevent, trio and Twisted ask recv for; Twisted's and trio's own default.
READ_BYTES = 64 * 1024


def argument_parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("port", type=int, help="0: chosen by the kernel")
    parser.add_argument("--backlog", type=int, default=BACKLOG)
    return parser


def open_listener(port: int, backlog: int = BACKLOG) -> socket.socket:
    """Return a non-blocking listening socket on 127.0.0.1."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(backlog)
    sock.setblocking(False)
    return sock


def announce(port: int) -> None:
    """Tell the harness that clients may come."""
    print(f"listening {port}", flush=True)
