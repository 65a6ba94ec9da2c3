"""Ensures that nothing which has come is left lying, though the system tells of it once: long messages, ends that come with the data,
urgent data, and what came while reading was paused."""

import socket

import pytest

from helpers import net

READ_BYTES = 69632  # the most that on_data gets


@pytest.fixture
def collecting(serve):
    """A server that keeps what it hears: (running, conns, received). It answers nothing."""
    conns, received = [], bytearray()
    running = serve(on_connect=conns.append, on_data=lambda conn, data: received.extend(data))
    return running, conns, received


def _holds(received, wanted):
    """Compared once nothing more comes: comparing holds the buffer, and without the GIL the loop's extend() would fail meanwhile."""
    return len(received) == len(wanted) and received == wanted


@pytest.mark.parametrize("extra", [-1, 0, 1])
@pytest.mark.parametrize("reads", [1, 2, 5])
def test_messages_around_the_size_of_a_read(collecting, reads, extra):
    running, conns, received = collecting
    sock = running.connect()
    net.wait_until(lambda: conns, "the connection")
    sent = bytes(reads * READ_BYTES + extra)
    for _ in range(3):
        received.clear()
        sock.sendall(sent)
        net.wait_until(lambda: _holds(received, sent), "the message")


@pytest.mark.parametrize("size", [1, READ_BYTES, 3 * READ_BYTES + 5])
@pytest.mark.parametrize("when", ["at once", "after a message"])
def test_the_end_that_comes_with_the_data(collecting, size, when):
    running, conns, received = collecting
    sock = running.connect(b"!" if when == "after a message" else b"")
    net.wait_until(lambda: _holds(received, b"!") if when == "after a message" else conns, "the connection")
    received.clear()
    running.in_loop(conns[0].pause_reading)
    sock.sendall(bytes(size))
    sock.shutdown(socket.SHUT_WR)
    running.in_loop(conns[0].resume_reading)
    net.wait_until(lambda: running.heard("close"), "the end")
    assert received == bytes(size) and running.heard("close") == [None]


def test_bytes_around_urgent_data(collecting):
    """A read stops short at the urgent mark (tcp_recvmsg_locked() in net/ipv4/tcp.c)."""
    running, conns, received = collecting
    sock = running.connect()
    net.wait_until(lambda: conns, "the connection")
    for turn in range(1, 6):
        running.in_loop(conns[0].pause_reading)
        sock.sendall(b"before")
        sock.send(b"!", socket.MSG_OOB)
        sock.sendall(b"after")
        running.in_loop(conns[0].resume_reading)
        net.wait_until(lambda turn=turn: _holds(received, b"beforeafter" * turn), "what is not urgent")


def test_what_comes_while_reading_is_paused(collecting):
    running, conns, received = collecting
    sock = running.connect(b"first")
    net.wait_until(lambda: _holds(received, b"first"), "the first message")
    for _ in range(3):
        received.clear()
        running.in_loop(conns[0].pause_reading)
        for word in (b"one ", b"two ", b"three"):
            sock.sendall(word)
            running.in_loop(lambda: None)
        assert received == b""
        running.in_loop(conns[0].resume_reading)
        net.wait_until(lambda: _holds(received, b"one two three"), "what waited")


def test_pause_and_resume_before_the_message_is_read(collecting):
    """The event that tells of it meets a connection which does not want it, and then one which does again."""
    running, conns, received = collecting
    sock = running.connect(b"first")
    net.wait_until(lambda: _holds(received, b"first"), "the first message")

    def pause_while_it_comes():
        conns[0].pause_reading()
        sock.sendall(b"second")
        running.server.call_soon_threadsafe(conns[0].resume_reading)

    for turn in range(1, 20):
        running.in_loop(pause_while_it_comes)
        net.wait_until(lambda turn=turn: _holds(received, b"first" + b"second" * turn), "the message")


def test_a_sender_that_dribbles_while_reading_is_paused_costs_one_turn(collecting):
    running, conns, received = collecting
    sock = running.connect(b"first")
    net.wait_until(lambda: _holds(received, b"first"), "the first message")
    running.in_loop(conns[0].pause_reading)
    sock.sendall(b".")
    running.in_loop(lambda: None)
    turns = running.server.stats().turns
    for _ in range(200):
        sock.sendall(b".")
    running.in_loop(lambda: None)
    assert running.server.stats().turns - turns < 20
    running.in_loop(conns[0].resume_reading)
    net.wait_until(lambda: len(received) == len(b"first") + 201, "all of it")
