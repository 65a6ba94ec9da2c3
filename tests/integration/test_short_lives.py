"""Ensures that the shortcuts for clients that come, ask and go hold nobody else up: a socket that is read before it is watched, and
an accept that takes one client at first (_reactor, _epoll_accept); nor does spin_us."""

import pytest

from helpers import net


@pytest.fixture
def busy(serve):
    """A server whose loop never sleeps."""
    running = serve()
    is_over = []

    def again():
        if not is_over:
            running.server.call_soon_threadsafe(again)

    running.server.call_soon_threadsafe(again)
    yield running
    is_over.append(True)


@pytest.fixture(params=["busy", "idle", "spinning"])
def running(request, serve):
    return request.getfixturevalue("busy") if request.param == "busy" else serve(spin_us=200 if request.param == "spinning" else 0)


def test_a_new_client_is_answered_again_and_again(running):
    sock = running.connect()
    for i in range(20):
        sock.sendall(b"%2d" % i)
        assert net.receive(sock, 2) == b"%2d" % i


def test_many_new_clients_at_once(running):
    socks = [running.connect(b"first") for _ in range(300)]
    for word in (b"first", b"again", b"third"):
        for sock in socks:
            assert net.receive(sock, 5) == word
        for sock in socks:
            sock.sendall({b"first": b"again", b"again": b"third", b"third": b"bye.."}[word])
    for sock in socks:
        assert net.receive(sock, 5) == b"bye.."
        sock.close()
    net.wait_until(lambda: running.server.active == 0, "the end of all")
    assert running.heard("close") == [None] * 300


def test_a_new_client_that_resets_is_noticed(running):
    sock = running.connect(b"x")
    assert net.receive(sock, 1) == b"x"
    net.reset(sock)
    net.wait_until(lambda: running.server.active == 0, "the end")


def test_reading_paused_after_the_first_message(serve):
    conns = []

    def read_one(conn, data):
        conns.append((conn, data))
        conn.pause_reading()

    running = serve(on_data=read_one)
    sock = running.connect(b"a")
    net.wait_until(lambda: conns, "the first message")
    sock.sendall(b"b")
    turns = running.server.stats().turns
    for _ in range(3):
        running.in_loop(lambda: None)
    assert [data for _, data in conns] == [b"a"]
    assert running.server.stats().turns - turns < 20  # it is not asked for ever
    running.in_loop(conns[0][0].resume_reading)
    net.wait_until(lambda: len(conns) == 2, "the second message")


def test_clients_that_come_one_by_one_cost_one_accept_call_each(serve):
    running = serve()
    before = running.server.stats().accept_calls
    for _ in range(50):
        with running.connect(b"x") as sock:
            assert net.receive(sock, 1) == b"x"
    # Two that come in waits one after the other cost a third call, and a busy machine brings that about; one in two is bad luck enough.
    assert running.server.stats().accept_calls - before <= 75
