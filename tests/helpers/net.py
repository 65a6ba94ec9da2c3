"""Real sockets for tests: servers in threads, clients, resets, and waiting for a condition with a deadline instead of sleeping."""

import contextlib
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time

import fastaccept

DEADLINE_S = 20.0  # only ever reached by a test that fails


def open_descriptors():
    """Descriptors of this process, 0 where it can't be known."""
    if not sys.platform.startswith("linux"):
        return 0
    return len(os.listdir("/proc/self/fd"))


def echo(conn, data):
    conn.write(data)


def wait_until(condition, what="the condition"):
    """Look until a condition holds; the only waiting there is, and it ends as soon as it can."""
    deadline = time.monotonic() + DEADLINE_S
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about in {DEADLINE_S} s"
        tick.wait(0.001)


class Running:
    """A server in a thread of its own, and what its callbacks heard."""

    def __init__(self, host="127.0.0.1", backlog=512, **options):
        self.log = []
        self.clients = []
        options.setdefault("on_data", echo)
        options.setdefault("on_error", lambda event: self.log.append(("error", event)))
        options.setdefault("on_pause", lambda listener, reasons: self.log.append(("pause", reasons)))
        options.setdefault("on_resume", lambda listener: self.log.append(("resume", listener)))
        options.setdefault("on_close", lambda conn, error: self.log.append(("close", error)))
        self.server = fastaccept.Server(**options)
        self.listener = self.server.listen(host, 0, backlog=backlog)[0]
        self.address = self.listener.address
        self.server.start()

    def heard(self, name):
        return [what for kind, what in list(self.log) if kind == name]

    def connect(self, data=b""):
        sock = socket.create_connection(self.address[:2], timeout=DEADLINE_S)
        self.clients.append(sock)
        if data:
            try:
                sock.sendall(data)
            except ConnectionError:  # a server that ends a connection at once may be faster than its client
                pass
        return sock

    def in_loop(self, call, *args):
        """Run something in the loop's thread and return what it returns."""
        return self.server._run_in_loop(call, *args)

    @contextlib.contextmanager
    def busy(self):
        """The loop's thread is in a callback meanwhile: what happens here is found by one look at the sockets."""
        is_busy, go_on = threading.Event(), threading.Event()
        self.server.call_soon_threadsafe(lambda: (is_busy.set(), go_on.wait(DEADLINE_S)))
        assert is_busy.wait(DEADLINE_S)
        try:
            yield
        finally:
            go_on.set()

    def close(self):
        for sock in self.clients:
            sock.close()
        self.server.close()


def receive(sock, n):
    """Exactly n bytes, or what came before the end."""
    got = bytearray()
    while len(got) < n:
        part = sock.recv(min(65536, n - len(got)))
        if not part:
            break
        got += part
    return bytes(got)


def receive_all(sock):
    return b"".join(iter(lambda: sock.recv(65536), b""))


def is_answered(sock, wait_s=0.0):
    return bool(select.select([sock], [], [], wait_s)[0])


def reset(sock):
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii" if os.name != "nt" else "hh", 1, 0))
    sock.close()


def is_ended(sock):
    """The connection was reset. Under Wine a client that waits sees its end instead."""
    try:
        return sock.recv(1) == b"" and sys.platform == "win32"
    except ConnectionResetError:
        return True


def connects(address):
    """What a new client meets: "connected", "refused" or another error's name."""
    try:
        socket.create_connection(address[:2], timeout=5).close()
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        return type(error).__name__
    return "connected"


def run_python(source, *args, timeout=60, **options):
    """Run a program in a process of its own; return what came of it."""
    paths = [os.path.dirname(os.path.dirname(__file__)), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(paths), **options.pop("env", {}))
    return subprocess.run(
        [sys.executable, "-c", source, *map(str, args)], capture_output=True, text=True, timeout=timeout, env=env, **options
    )
