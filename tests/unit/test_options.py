"""Ensures that bad options meet a clear error at the door, which names the option, what was given and what is allowed, and that
nothing is left open by it."""

import errno
import socket

import pytest

import fastaccept
from fastaccept import Limits, Server, Timeouts
from helpers import net


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_connections": 0}, "max_connections is 0; allowed is an int in 1..2147483647, None, or \"auto\""),
        ({"max_connections": 2**31}, "max_connections"),
        ({"max_connections": "many"}, "max_connections is 'many'"),
        ({"max_connections": True}, "max_connections is True"),
        ({"max_connections": 5, "resume_at": 5}, "resume_at is 5; allowed is an int in 0..4"),
        ({"resume_at": 1.0}, "resume_at is 1.0"),
        ({"resume_at": -0.1}, "resume_at"),
        ({"reserve_fds": -1}, "reserve_fds is -1; allowed is an int in 0..1048576"),
        ({"write_high_water": 0}, "write_high_water"),
        ({"max_write_buffer": 10, "write_high_water": 11}, "max_write_buffer is 10; allowed is write_high_water (11) or more"),
        ({"max_write_buffer_total": 1.5}, "max_write_buffer_total is 1.5"),
        ({"max_kernel_memory": 0.0}, "max_kernel_memory is 0.0; allowed is an int in 1..4611686018427387904, a float over 0 and"),
        ({"max_kernel_memory": 1.01}, "max_kernel_memory is 1.01"),
        ({"max_kernel_memory": float("nan")}, "max_kernel_memory is nan"),
        ({"max_kernel_memory": 0}, "max_kernel_memory is 0; allowed is an int in 1..4611686018427387904, a float over 0 and up to 1"),
        ({"max_kernel_memory": True}, "max_kernel_memory is True"),
        ({"max_kernel_memory": "90%"}, "max_kernel_memory is '90%'"),
    ],
)
def test_limits(options, said):
    with pytest.raises((TypeError, ValueError)) as caught:
        Limits(**options)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["idle", "first_byte", "write_stall", "close", "connect", "drain"])
@pytest.mark.parametrize("value", [0, -1, "1", float("nan"), 3_000_000, True])
def test_timeouts(name, value):
    with pytest.raises((TypeError, ValueError), match=f"{name} is "):
        Timeouts(**{name: value})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"on_data": 5}, "on_data is 5; allowed is a callable or None"),
        ({"on_error": "x"}, "on_error is 'x'"),
        ({"limits": 5}, "limits is 5; allowed is a fastaccept.Limits or None"),
        ({"timeouts": {}}, "timeouts is {}"),
        ({"when_full": "drop"}, "when_full is 'drop'; allowed are 'queue', 'refuse', 'reject'"),
        ({"reject_message": "text"}, "reject_message is 'text'; allowed is bytes"),
        ({"reject_message": b"x" * 65537}, "reject_message has 65537 bytes"),
        ({"spin_us": -1}, "spin_us is -1; allowed is an int in 0..1000000, or \"auto\""),
        ({"spin_us": 1.5}, "spin_us is 1.5"),
        ({"spin_us": "always"}, "spin_us is 'always'"),
        ({"spin_us": None}, "spin_us is None"),
    ],
)
def test_server(options, said):
    with pytest.raises((TypeError, ValueError)) as caught:
        Server(**options)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("call", "args", "said"),
    [
        ("listen", (5, 80), "host is 5"),
        ("listen", ("127.0.0.1", 65536), "port is 65536; allowed is an int in 0..65535"),
        ("listen", ("127.0.0.1", "80"), "port is '80'"),
        ("adopt", ("x",), "sock is 'x'"),
        ("pause", ("stop",), "how is 'stop'; allowed are 'refuse', 'queue'"),
        ("drain", (-1,), "timeout is -1"),
        ("connect", ("127.0.0.1", 0), "port is 0"),
        ("connect", ("localhost", 80), "host is 'localhost'; a numeric"),
        ("call_later", (-1, print), "delay is -1"),
        ("call_soon_threadsafe", (7,), "callback is 7"),
    ],
)
def test_calls(call, args, said):
    with Server() as server, pytest.raises((TypeError, ValueError)) as caught:
        getattr(server, call)(*args)
    assert said in str(caught.value)


def test_address_in_use_leaves_nothing_open():
    with socket.create_server(("127.0.0.1", 0)) as other, Server() as server:
        before = net.open_descriptors()
        with pytest.raises(OSError, match=r"can't listen on 127.0.0.1 port \d+: ") as caught:
            server.listen("127.0.0.1", other.getsockname()[1])
        assert caught.value.errno == errno.EADDRINUSE
        assert getattr(caught.value, "winerror", 10048) == 10048  # as Python itself would raise it there
        assert server.listeners == [] and net.open_descriptors() == before


def test_adopt_that_fails_leaves_the_socket_to_the_caller():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, Server() as server:
        with pytest.raises(ValueError, match="stream socket"):
            server.adopt(datagrams)
        assert datagrams.fileno() >= 0


def test_closed_server_says_so():
    server = Server()
    server.close()
    server.close()
    for call in (lambda: server.listen("127.0.0.1", 0), server.serve_forever, server.start, server.pause, server.drain):
        with pytest.raises(fastaccept.ServerClosed):
            call()
    assert repr(server) == "<fastaccept.Server closed>"


def test_connection_is_not_made_by_hand():
    with pytest.raises(TypeError, match="made by a Server"):
        fastaccept.Connection()


def test_running_twice_is_refused(serve):
    running = serve()
    with pytest.raises(RuntimeError, match="already running"):
        running.server.start()
    with pytest.raises(RuntimeError, match="already running"):
        running.server.serve_forever()


def test_drain_tells_how_many_finished_and_how_many_were_cut(serve):
    running = serve()
    stays, leaves = running.connect(b"a"), running.connect(b"b")
    for sock in (stays, leaves):
        assert sock.recv(1)
    running.server.call_soon_threadsafe(lambda: running.server.call_later(0.05, leaves.close))
    assert running.server.drain(0.5) == fastaccept.DrainResult(finished=1, aborted=1)
    assert net.is_ended(stays)


def test_drain_inside_the_loop_must_not_wait(serve):
    running = serve()
    with pytest.raises(RuntimeError, match="drain\\(wait=False\\)"):
        running.in_loop(running.server.drain)


def test_call_later_order_and_cancel(serve):
    running = serve()
    called = []

    def plan():
        timers = [running.server.call_later(delay, called.append, delay) for delay in (0.03, 0.01, 0.02, 0.015)]
        timers[3].cancel()

    running.in_loop(plan)
    net.wait_until(lambda: len(called) == 3, "the calls")
    assert called == [0.01, 0.02, 0.03]
