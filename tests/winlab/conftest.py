"""Fixtures: a server that runs on Windows, which is Wine here. Its clients are plain sockets of Linux: what they see is the truth."""

import json
import os
import resource
import selectors
import socket
import subprocess
import time

import pytest

from helpers import net

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class WindowsServer:
    """tests/winlab/server.py in a process of CPython for Windows. A Wine server with a descriptor limit of its own, if one is given."""

    def __init__(self, descriptors=""):
        self.process = subprocess.Popen(
            [os.path.join(ROOT, "ci", "winlab"), "pipe", os.path.join(ROOT, "tests", "winlab", "server.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ, WINLAB_NOFILE=str(descriptors)),
        )  # fmt: skip
        assert self.read() == "ready"
        self.address = None

    def read(self):
        line = self.process.stdout.readline()
        assert line, f"the server's process ended with exit code {self.process.wait()}"
        return json.loads(line)

    def ask(self, name, **options):
        self.process.stdin.write(json.dumps([name, options]) + "\n")
        self.process.stdin.flush()
        return self.read()

    def open(self, max_connections=None, **options):
        self.address = ("127.0.0.1", self.ask("open", max_connections=max_connections, **options))

    def look(self, name=None):
        figures = self.ask("look")
        return figures if name is None else figures[name]

    def until(self, name, value):
        net.wait_until(lambda: self.look(name) == value, f"{name} = {value}")

    def cpu_s(self):
        """CPU seconds of the process and of the Wine server, which does its system calls."""
        return sum(map(cpu_s, [self.process.pid, wine_server()]))

    def end(self):
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(30) == 0


def wine_server():
    """The process id of this prefix's Wine server."""
    prefix = os.path.join(ROOT, "build", "winlab", "prefix")
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/comm") as comm, open(f"/proc/{name}/environ", "rb") as environ:
                if "wineserver" in comm.read() and f"WINEPREFIX={prefix}".encode() in environ.read().split(b"\0"):
                    return int(name)
        except OSError:  # it has just ended, or is somebody else's
            pass
    raise AssertionError(f"no Wine server for {prefix}")


def cpu_s(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def windows():
    """One server process for the tests of a file; each opens it anew."""
    server = WindowsServer()
    yield server
    server.end()


@pytest.fixture
def clients(windows):
    """clients(n, data) -> n connected sockets that have sent data; closed after the test."""
    made = []

    def connect(n=1, data=b"?"):
        new = [socket.create_connection(windows.address, timeout=net.DEADLINE_S) for _ in range(n)]
        made.extend(new)
        for sock in new:
            sock.sendall(data)
        return new

    yield connect
    for sock in made:
        sock.close()


@pytest.fixture
def descriptors():
    """As many as may be, for the clients; a socket in Wine is one of the Wine server, which has the same limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def readable(socks, enough, within_s=net.DEADLINE_S):
    """Those that have something to read, as soon as there are enough; all that have, when the time is over."""
    deadline = time.monotonic() + within_s
    found = []
    with selectors.DefaultSelector() as selector:
        for sock in socks:
            selector.register(sock, selectors.EVENT_READ)
        while True:
            left = max(0.0, deadline - time.monotonic())
            for key, _ in selector.select(left):
                selector.unregister(key.fileobj)
                found.append(key.fileobj)
            if len(found) >= enough or not left:
                return found


def fate(sock):
    """What became of a client: what it was sent, or "end", "reset" or "waits"."""
    if not readable([sock], 1, 0.0):
        return "waits"
    try:
        return sock.recv(100).decode() or "end"
    except ConnectionResetError:
        return "reset"
