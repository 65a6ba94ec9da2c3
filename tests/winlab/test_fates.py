"""Ensures that a client of a server on Windows is served, told or reset by the policy that was chosen, and never left believing."""

import pytest

from helpers import net
from winlab.conftest import fate, readable


def test_queue_a_client_waits_and_is_served_at_the_first_release(windows, clients):
    windows.open(2)
    inside = clients(2)
    assert len(readable(inside, 2)) == 2
    waiting = clients(20)
    assert readable(waiting, 1, 0.3) == []
    while waiting:
        inside.pop().close()
        (served,) = readable(waiting, 1)
        assert fate(served) == "?"
        waiting.remove(served)
        inside.append(served)
    assert windows.look("accepted") == 22


def test_refuse_a_client_is_refused_and_those_inside_are_served_on(windows, clients):
    windows.open(1, when_full="refuse")
    (sock,) = clients()
    assert net.receive(sock, 1) == b"?"
    windows.until("refused_episodes", 1)
    for _ in range(5):
        assert net.connects(windows.address) == "refused"
    sock.sendall(b"!")
    assert net.receive(sock, 1) == b"!"
    sock.close()
    windows.until("state", "accepting")
    (sock,) = clients()
    assert net.receive(sock, 1) == b"?"


def test_refuse_of_many_at_once_nobody_is_left_believing(windows, clients):
    """A posted accept may have taken one of them when the limit is reached."""
    for _ in range(20):
        windows.open(1, when_full="refuse")
        socks = []
        try:
            while len(socks) < 50:
                socks += clients()
        except ConnectionError:  # from now on they are refused
            pass
        assert len(readable(socks, len(socks))) == len(socks), "somebody waits for an answer that does not come"
        fates = [fate(sock) for sock in socks]
        assert fates.count("?") == 1 and set(fates) <= {"?", "reset"}


@pytest.mark.parametrize("message", ["", "busy\n"])
def test_reject_a_client_gets_the_message_and_the_end(windows, clients, message):
    windows.open(1, when_full="reject", reject_message=message)
    (sock,) = clients()
    assert net.receive(sock, 1) == b"?"
    windows.until("state", "full")
    for _ in range(20):
        (sock,) = clients(data=b"")
        assert net.receive_all(sock) == message.encode()
    windows.until("rejected", 20)


def test_close_is_an_end_after_the_last_byte_and_abort_a_reset(windows, clients):
    windows.open()
    for _ in range(20):
        (sock,) = clients(data=b"close")
        assert net.receive_all(sock) == b"bye"
        sock.close()
        (sock,) = clients(data=b"abort")
        with pytest.raises(ConnectionResetError):
            net.receive_all(sock)
    windows.until("active", 0)


def test_a_pause_that_refuses(windows, clients):
    windows.open()
    (sock,) = clients()
    assert net.receive(sock, 1) == b"?"
    windows.ask("pause", how="refuse")
    for _ in range(5):
        assert net.connects(windows.address) == "refused"
    sock.sendall(b"!")
    assert net.receive(sock, 1) == b"!"
    windows.ask("resume")
    (sock,) = clients()
    assert net.receive(sock, 1) == b"?"


def test_a_pause_that_lets_them_wait_while_they_pour_in(windows, clients):
    """Each pause cancels accepts that may have taken a client."""
    windows.open()
    socks = []
    for _ in range(20):
        socks += clients(5)
        windows.ask("pause", how="queue")
        socks += clients(5)
        windows.ask("resume")
    assert len(readable(socks, 200)) == 200
    assert {fate(sock) for sock in socks} == {"?"}
    assert windows.look("active") == 200


def test_a_paused_queue_is_silent_until_the_resume(windows, clients):
    windows.open()
    windows.ask("pause", how="queue")
    socks = clients(20)
    assert readable(socks, 1, 0.5) == [] and windows.look("active") == 0
    windows.ask("resume")
    assert len(readable(socks, 20)) == 20 and {fate(sock) for sock in socks} == {"?"}


def test_close_of_the_server_resets_those_who_wait(windows, clients):
    windows.open(1)
    (inside,) = clients()
    assert net.receive(inside, 1) == b"?"
    waiting = clients(10)
    assert readable(waiting, 1, 0.2) == []
    windows.ask("close")
    assert len(readable(waiting, 10)) == 10 and {fate(sock) for sock in waiting} == {"reset"}
    assert len(readable([inside], 1)) == 1 and fate(inside) == "end"
    assert net.connects(windows.address) == "refused"
