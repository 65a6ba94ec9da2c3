"""Ensures that every errno of accept4, injected below the engine by a preloaded library, leads to quiet waiting and to service when
it clears, with no connection of the server's own being released."""

import errno
import os
import shutil
import socket
import subprocess
import sys

import pytest

from helpers import net

pytestmark = pytest.mark.linux("LD_PRELOAD")

CHILD = """
import sys, time, fastaccept
events = []
server = fastaccept.Server(on_data=lambda c, d: c.write(d), on_error=lambda e: events.append(e.action))
print(server.listen("127.0.0.1", 0)[0].port, flush=True)
server.start()
cpu, calls = time.process_time(), 0
for line in sys.stdin:
    stats = server.stats()
    print(stats.accept_calls - calls, time.process_time() - cpu, ",".join(events) or "-", server.listeners and server.listeners[0].state,
          flush=True)
    cpu, calls = time.process_time(), stats.accept_calls
server.close()
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    assert compiler, "the tests need the C compiler that built the package"
    library = tmp_path_factory.mktemp("shim") / "accept_shim.so"
    source = os.path.join(os.path.dirname(__file__), "accept_shim.c")
    subprocess.run([*compiler.split(), "-shared", "-fPIC", "-o", str(library), source, "-ldl"], check=True)
    return library


@pytest.mark.parametrize(
    "name", ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EXDEV", "ECONNABORTED", "EPERM", "EPROTO", "ENETDOWN"]
)
def test_failure_that_clears_by_itself(shim, tmp_path, name):
    failing = tmp_path / "failing"
    failing.touch()
    env = dict(os.environ, LD_PRELOAD=str(shim), SHIM_WHILE=str(failing), SHIM_ERRNO=str(getattr(errno, name)))
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    try:
        port = int(child.stdout.readline())

        def look():
            child.stdin.write("\n")
            child.stdin.flush()
            calls, cpu, events, state = child.stdout.readline().split()
            return int(calls), float(cpu), events, state

        with socket.create_connection(("127.0.0.1", port), timeout=net.DEADLINE_S) as sock:
            sock.sendall(b"hello")
            net.wait_until(lambda: look()[3] == "throttled", "a shortage")
            look()
            assert not net.is_answered(sock, 1.0)
            calls, cpu, events, _ = look()
            # One client's errors are tried again 256 times before they are taken for a fault of the listener.
            assert events == "paused" and cpu < 0.05 and calls <= (10 if name[:3] in ("EMF", "ENF", "ENO", "EXD") else 3000)
            failing.unlink()
            assert net.receive(sock, 5) == b"hello"
    finally:
        _, errors = child.communicate(timeout=30)
    assert child.returncode == 0 and errors == ""


@pytest.mark.parametrize("name", ["EBADF", "EINVAL", "ENOTSOCK", "EOPNOTSUPP"])
def test_listener_that_is_dead_is_closed_and_said_so(shim, tmp_path, name):
    failing = tmp_path / "failing"
    failing.touch()
    env = dict(os.environ, LD_PRELOAD=str(shim), SHIM_WHILE=str(failing), SHIM_ERRNO=str(getattr(errno, name)))
    source = """
import threading, socket, fastaccept
told = threading.Event()
events = []
def report(event):
    events.append((event.exception.errno, event.action, event.listener.port == port))
    told.set()
server = fastaccept.Server(on_error=report)
port = server.listen("127.0.0.1", 0)[0].port
server.start()
sock = socket.create_connection(("127.0.0.1", port))
assert told.wait(20)
sock.close()
print(events, server.listeners)
server.close()
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, env=env, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == f"[({getattr(errno, name)}, 'listener closed', True)] []"
