"""Ensure that completions of reads, writes and connects end where they have to, also when the socket is closed before them."""
import errno
import socket
import sys

import pytest

import fastaccept

if sys.platform != "win32":
    pytest.skip("completions are Windows'", allow_module_level=True)

from fastaccept._iocp import IocpBackend
from fastaccept._iocp_faults import Faults
from fastaccept.errors import os_error
from helpers.net import receive, reset, wait_until

BIG = bytes(range(256)) * 32768      # 8 MiB: more than the system takes at once


def test_reset_has_errno_and_winerror(serve):
    server = serve()
    sock = server.connect(b"x")
    assert receive(sock, 1) == b"x"
    # Two turns later the next read is posted. Under Wine a reset that comes before looks like the end, to any program.
    server.in_loop(int), server.in_loop(int)
    reset(sock)
    wait_until(lambda: server.heard("close"))
    error = server.heard("close")[0]
    assert isinstance(error, ConnectionResetError)
    assert error.errno == errno.ECONNRESET and error.winerror in (64, 10054)


def test_slow_reader_gets_everything(serve):
    limits = fastaccept.Limits(write_high_water=1)
    server = serve(on_data=lambda conn, data: conn.write(BIG), limits=limits)
    sock = server.connect(b"go")
    wait_until(lambda: server.server.stats().write_buffered_bytes > 0)
    assert receive(sock, len(BIG)) == BIG
    wait_until(lambda: server.server.stats().write_buffered_bytes == 0)


def test_many_parts_go_out_in_order(serve):
    parts = [bytes([i % 256]) * (i * 37 % 4000 + 1) for i in range(2000)]
    server = serve(on_data=lambda conn, data: conn.writelines(parts))
    assert receive(server.connect(b"go"), sum(map(len, parts))) == b"".join(parts)


ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2 = 4, 5, 6          # TCPSTATE


def test_close_waits_until_the_fin_is_acknowledged(serve):
    """On a system that tells the state of a connection (Wine does not, so its words are put in)."""
    backend = IocpBackend()
    faults = Faults(backend)
    server = serve(_backend=backend, on_data=lambda conn, data: (conn.write(data), conn.close()))
    faults.fail("tcp_state", FIN_WAIT_1, times=2**32 - 1)
    sock = server.connect(b"x")
    assert receive(sock, 2) == b"x"                    # all of it, and the end
    wait_until(lambda: faults.made("tcp_state") > 5)
    assert server.server.active == 1 and not server.heard("close")
    server.in_loop(faults.fail, "tcp_state", FIN_WAIT_2, 0, 2**32 - 1)
    wait_until(lambda: server.server.active == 0)
    assert server.heard("close") == [None]


def test_close_where_the_state_is_not_told_ends_without_an_error(serve):
    server = serve(on_data=lambda conn, data: (conn.write(BIG), conn.close()))
    socks = [server.connect(b"x") for _ in range(3)]
    for sock in socks:
        assert receive(sock, len(BIG) + 1) == BIG
    wait_until(lambda: server.server.active == 0)
    assert server.heard("close") == [None] * 3


def test_close_with_a_send_under_way_frees_the_slot(serve):
    server = serve(on_data=lambda conn, data: conn.write(BIG))
    server.connect(b"go")
    wait_until(lambda: server.server.stats().write_buffered_bytes > 0)
    server.in_loop(lambda: [conn.abort() for conn in server.server.connections])
    wait_until(lambda: server.server.active == 0)
    assert server.server.stats().write_buffered_bytes == 0


def test_peer_that_goes_while_a_send_is_under_way(serve):
    server = serve(on_data=lambda conn, data: conn.write(BIG))
    sock = server.connect(b"go")
    wait_until(lambda: server.server.stats().write_buffered_bytes > 0)
    reset(sock)
    wait_until(lambda: server.server.active == 0)
    assert isinstance(server.heard("close")[0], OSError)


def test_idle_connections_and_close(serve):
    """Each has a read posted; all of them come back."""
    server = serve()
    for _ in range(50):
        server.connect()
    wait_until(lambda: server.server.active == 50)
    server.server.close()
    assert len(server.heard("close")) == 50


def test_connect(serve):
    server = serve()
    answers = []
    client = serve(on_data=lambda conn, data: answers.append(data), on_connect=lambda conn: conn.write(b"hello"))
    client.in_loop(client.server.connect, *server.address[:2])
    wait_until(lambda: answers == [b"hello"])


def test_connect_refused(serve):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
        client = serve()
        client.in_loop(client.server.connect, *address)
        wait_until(lambda: client.heard("close"))
    assert isinstance(client.heard("close")[0], ConnectionRefusedError)


@pytest.mark.parametrize("point, code", [("receive", 10055), ("send", 10055), ("associate", 8)])
def test_shortage_ends_one_connection_alone(serve, point, code):
    backend = IocpBackend()
    faults = Faults(backend)
    server = serve(_backend=backend)
    others = [server.connect(b"o") for _ in range(3)]
    assert [receive(sock, 1) for sock in others] == [b"o"] * 3
    server.in_loop(faults.fail, point, code)
    sock = server.connect(b"x")
    try:
        sock.recv(1)
    except ConnectionError:
        pass
    wait_until(lambda: server.heard("close") or server.heard("error"))
    told = (server.heard("close") or [server.heard("error")[0].exception])[0]
    assert told.winerror == code
    for other in others:
        other.sendall(b"y")
        assert receive(other, 1) == b"y"


def test_os_error_is_what_python_would_raise():
    for code, kind, number in [(108 | 64 << 8, ConnectionResetError, errno.ECONNRESET), (106, ConnectionAbortedError, errno.ECONNABORTED),
                               (24 | 10024 << 8, OSError, errno.EMFILE), (138 | 121 << 8, TimeoutError, errno.ETIMEDOUT)]:
        error = os_error(code)
        assert isinstance(error, kind) and error.errno == number
        assert (error.winerror or 0) == code >> 8
        assert str(error)
