"""Ensures what the guide says of callbacks: one that raises, closes, drops the last reference or meets Ctrl-C; and a clean exit."""

import gc
import signal
import sys

import pytest

import fastaccept
from helpers import net
from helpers.console import InConsole

BULK = b"y" * 16_000_000  # more than the system takes at once, so that on_drain follows
NAMES = ["on_connect", "on_data", "on_eof", "on_drain", "on_close"]


def provoke(running):
    """One client for which every connection callback is called."""
    try:
        sock = running.connect(b"x")
        net.receive(sock, len(BULK))
        sock.close()
    except OSError:  # a reset may meet even connect()
        pass
    net.wait_until(lambda: running.server.stats().closed >= 1 and running.server.active == 0, "the end of the connection")


def options_with(name, callback):
    """Callbacks that make every one of them happen, with one replaced."""
    options = dict(
        on_connect=lambda conn: None,
        on_data=lambda conn, data: conn.write(BULK),
        on_eof=lambda conn: None,
        on_drain=lambda conn: None,
        on_close=lambda conn, error: None,
        limits=fastaccept.Limits(max_connections=5, write_high_water=1000),
    )
    if name == "on_data":
        options["on_data"] = callback
    elif name is not None:
        options[name] = callback
    return options


@pytest.mark.parametrize("name", NAMES)
def test_exception_goes_to_on_error_and_the_server_lives(serve, name):
    def fail(*args):
        raise LookupError(name)

    running = serve(**options_with(name, fail))
    provoke(running)
    net.wait_until(lambda: running.heard("error"), "on_error")
    event = running.heard("error")[0]
    assert (event.operation, str(event.exception), event.action) == (name, name, "connection aborted")
    assert running.server.stats().callback_errors >= 1
    net.wait_until(lambda: net.connects(running.address) == "connected", "the next client")


@pytest.mark.parametrize("name", ["on_pause", "on_resume"])
def test_exception_in_a_listeners_callback(serve, name):
    def fail(*args):
        raise LookupError(name)

    running = serve(**{name: fail})
    running.server.pause()
    running.server.resume()
    assert running.heard("error")[0].operation == name
    assert net.connects(running.address) == "connected"


def test_exception_in_on_error_is_logged_and_stops_nothing(serve, caplog):
    def fail(*args):
        raise LookupError("again")

    running = serve(on_data=fail, on_error=fail)
    provoke(running)
    net.wait_until(lambda: "on_error raised" in caplog.text, "the log line")
    assert net.connects(running.address) == "connected"


def test_default_on_error_logs_one_line_a_second(serve, caplog):
    def fail(conn, data):
        raise LookupError("bad data")

    running = serve(on_data=fail, on_error=None)
    for _ in range(5):
        provoke(running)
    assert 1 <= len([record for record in caplog.records if record.name == "fastaccept"]) <= 2


@pytest.mark.parametrize("name", [*NAMES, "on_pause", "on_resume"])
@pytest.mark.parametrize("call", ["close", "stop", "drain"])
def test_server_can_be_ended_inside_every_callback(serve, name, call):
    def end(*args):
        server = running.server
        server.drain(0, wait=False) if call == "drain" else getattr(server, call)()

    running = serve(**(options_with(name, end) if name in NAMES else {name: end}))
    if name in NAMES:
        try:
            sock = running.connect(b"x")
            net.receive(sock, len(BULK))
            sock.close()
        except OSError:
            pass
    else:
        running.server.call_soon_threadsafe(running.server.pause)
        if name == "on_resume":
            running.server.call_soon_threadsafe(lambda: running.server.call_later(0.001, running.server.resume))
    net.wait_until(lambda: running.server._is_closed, "the end")
    assert net.connects(running.address) == "refused"


@pytest.mark.parametrize("method", ["close", "abort"])
@pytest.mark.parametrize("name", NAMES)
def test_connection_can_be_ended_inside_every_callback(serve, name, method):
    closed = []

    def end(conn, *args):
        getattr(conn, method)()
        if name == "on_close":
            closed.append(args[0])

    options = options_with(name, end)
    if name != "on_close":
        options["on_close"] = lambda conn, error: closed.append(error)
    running = serve(**options)
    provoke(running)
    net.wait_until(lambda: len(closed) == 1, "on_close")
    assert running.heard("error") == []


def test_dropping_the_last_reference_in_a_callback(serve):
    kept = {}

    def keep(conn):
        kept[1] = conn
        conn.context = [conn]  # a cycle, as applications make them

    def drop(conn, data):
        conn.write(data)
        conn.context = None
        kept.clear()
        gc.collect()

    running = serve(on_connect=keep, on_data=drop)
    sock = running.connect(b"a")
    assert net.receive(sock, 1) == b"a"
    sock.sendall(b"b")
    assert net.receive(sock, 1) == b"b"


def test_handle_is_the_same_while_it_is_kept_and_says_when_it_is_stale(serve):
    seen = []
    running = serve(on_connect=seen.append, on_data=lambda conn, data: (seen.append(conn), conn.write(data)))
    sock = running.connect(b"a")
    assert net.receive(sock, 1) == b"a"
    assert seen[0] is seen[1] and running.in_loop(lambda: seen[0].peername) == sock.getsockname()
    sock.close()
    net.wait_until(lambda: running.server.active == 0, "the end")
    assert repr(seen[0]) == "<fastaccept.Connection closed>"
    assert running.in_loop(lambda: (seen[0].peername, seen[0].is_closing, seen[0].close())) == (None, True, None)
    with pytest.raises(fastaccept.ConnectionClosed):
        running.in_loop(seen[0].write, b"late")


def test_connection_refuses_a_wrong_thread(serve):
    seen = []
    running = serve(on_connect=seen.append)
    running.connect()
    net.wait_until(lambda: seen, "the client")
    with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
        seen[0].write(b"x")


def test_keyboard_interrupt_passes_and_the_loop_can_go_on():
    def interrupt(conn, data):
        if data == b"stop":
            raise KeyboardInterrupt
        conn.write(data)

    import socket

    with fastaccept.Server(on_data=interrupt) as server:
        port = server.listen("127.0.0.1", 0)[0].port
        first = socket.create_connection(("127.0.0.1", port))
        second = socket.create_connection(("127.0.0.1", port))
        first.sendall(b"stop")
        with pytest.raises(KeyboardInterrupt):
            server.serve_forever(handle_signals=False)
        assert server.active >= 1
        second.sendall(b"on")
        server.call_later(0.2, server.stop)
        server.serve_forever(handle_signals=False)
        assert second.recv(10) == b"on"
        first.close()
        second.close()


SERVE = """
import sys, fastaccept
server = fastaccept.Server(on_data=lambda c, d: c.write(d), timeouts=fastaccept.Timeouts(drain=20))
print(server.listen("127.0.0.1", 0)[0].port, flush=True)
try:
    print(server.serve_forever())
except KeyboardInterrupt:
    print("interrupted")
    server.close()
"""


@pytest.mark.parametrize("number", ["Ctrl-C", pytest.param(signal.SIGTERM, marks=pytest.mark.linux("SIGTERM"))])
def test_first_signal_drains_and_the_second_interrupts(number):
    import socket

    child = InConsole(sys.executable, "-c", SERVE)
    send = child.interrupt if number == "Ctrl-C" else lambda: child.process.send_signal(number)
    address = ("127.0.0.1", int(child.stdout.readline()))
    with socket.create_connection(address, timeout=net.DEADLINE_S) as sock:
        sock.sendall(b"a")
        assert sock.recv(1) == b"a"
        send()
        net.wait_until(lambda: net.connects(address) == "refused", "draining")
        sock.sendall(b"b")
        assert sock.recv(1) == b"b"
        send()
        code, out, err = child.end()
    assert (code, out.strip(), err) == (0, "interrupted", "")


@pytest.mark.parametrize("name", [name for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)])
def test_signals_that_end_a_program_drain(name):
    """Raised from inside, which every system can; the loop is woken by the signal, or looks once a second."""
    source = f"""
import signal, fastaccept
server = fastaccept.Server()
server.listen("127.0.0.1", 0)
server.call_later(0, signal.raise_signal, signal.{name})
print(server.serve_forever())
"""
    done = net.run_python(source)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "DrainResult(finished=0, aborted=0)", "")


@pytest.mark.parametrize("end", ["pass", "sys.exit(3)", "server.stop()", "raise SystemExit(3)"])
@pytest.mark.parametrize("kept", ["conns.append(conn)", "pass"])
def test_interpreter_exit_with_open_connections_is_clean(end, kept):
    source = f"""
import socket, sys, threading, fastaccept
conns, ready = [], threading.Event()
def connected(conn):
    {kept}
    conn.write(b"w" * 5_000_000)
    ready.set()
server = fastaccept.Server(on_connect=connected)
port = server.listen("127.0.0.1", 0)[0].port
server.start()
socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
ready.wait(20)
{end}
"""
    done = net.run_python(source)
    assert (done.returncode, done.stderr) == (3 if "3" in end else 0, "")


def test_dropped_server_is_closed_with_a_warning():
    source = """
import gc, warnings, fastaccept, socket
warnings.simplefilter("error", ResourceWarning)
server = fastaccept.Server()
address = server.listen("127.0.0.1", 0)[0].address
del server
gc.collect()
try:
    socket.create_connection(address)
except ConnectionRefusedError:
    print("closed")
"""
    done = net.run_python(source)
    assert done.stdout.strip() == "closed" and "unclosed <fastaccept.Server" in done.stderr
