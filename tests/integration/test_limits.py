"""Ensures that limits, policies and pauses do on real sockets what the README says."""

import socket

import pytest

import fastaccept
from fastaccept import Limits
from helpers import net


def answered(socks):
    return [sock for sock in socks if net.is_answered(sock)]


def fill(running, n):
    socks = [running.connect(b"?") for _ in range(n)]
    net.wait_until(lambda: len(answered(socks)) >= min(n, running.server.stats().limit or n), "the limit")
    return socks


def test_limit_is_exact_and_a_waiting_client_is_served_at_the_first_release(serve):
    running = serve(limits=Limits(max_connections=3))
    socks = fill(running, 5)
    assert running.server.active == 3 and running.listener.state == "full" and running.listener.reasons == {"limit"}
    assert len(answered(socks)) == 3
    stats = running.server.stats()
    if stats.queued is not None:
        assert (stats.queued, stats.backlog) == (2, 512)
    inside = answered(socks)
    waiting = [sock for sock in socks if sock not in inside]
    inside[0].close()
    net.wait_until(lambda: answered(waiting), "service for the next one")
    assert running.heard("pause")[0] == {"limit"} and running.heard("resume")


def test_refuse_at_the_limit_resets_those_who_wait_and_refuses_those_who_come(serve):
    running = serve(limits=Limits(max_connections=1), when_full="refuse")
    (sock,) = fill(running, 1)
    net.wait_until(lambda: running.server.stats().refused_episodes == 1, "refusing")
    assert net.connects(running.address) == "refused"
    sock.close()
    net.wait_until(lambda: running.listener.state == "accepting", "listening again")
    assert net.connects(running.address) == "connected"


@pytest.mark.parametrize("message", [b"", b"too many\n", b"m" * 65536], ids=["none", "short", "longest"])
def test_reject_at_the_limit_tells_the_client(serve, message):
    running = serve(limits=Limits(max_connections=1), when_full="reject", reject_message=message)
    fill(running, 1)
    net.wait_until(lambda: running.listener.state == "full", "the limit")
    for _ in range(3):
        assert net.receive_all(running.connect()) == message
    net.wait_until(lambda: running.server.stats().rejected == 3, "the count")
    assert running.server.active == 1


def test_users_pause_refuses_and_is_undone_by_the_user_alone(serve):
    running = serve(limits=Limits(max_connections=2))
    socks = fill(running, 2)
    running.server.pause()
    assert running.listener.state == "paused" and net.connects(running.address) == "refused"
    socks[0].recv(16)
    socks[0].sendall(b"!")
    assert net.receive(socks[0], 1) == b"!"  # those inside are served on
    socks[1].close()
    net.wait_until(lambda: running.server.active == 1, "the release")
    assert running.listener.reasons == {"user"} and net.connects(running.address) == "refused"
    running.server.resume()
    assert net.connects(running.address) == "connected"


def test_users_pause_can_let_clients_wait(serve):
    running = serve()
    running.server.pause("queue")
    sock = running.connect(b"?")
    assert not net.is_answered(sock, 0.05) and running.server.active == 0
    running.server.resume()
    assert net.receive(sock, 1) == b"?"


def test_limits_change_while_running(serve):
    running = serve(limits=Limits(max_connections=5))
    socks = fill(running, 8)
    running.server.limits = Limits(max_connections=2)
    inside = answered(socks)
    assert len(inside) == 5 and running.server.active == 5
    for sock in inside[:3]:
        sock.close()
    net.wait_until(lambda: running.server.active == 2, "the releases")
    assert running.listener.reasons == {"limit"}
    running.server.limits = Limits(max_connections=None)
    waiting = [sock for sock in socks if sock not in inside]
    net.wait_until(lambda: len(answered(waiting)) == 3, "service for all")


def test_auto_is_a_share_of_the_descriptors(serve):
    running = serve()
    limit = running.server.stats().limit
    if running.server.stats().descriptor_limit is None:  # Windows: a share of its memory
        assert limit > 1000
    else:
        free = running.server.stats().descriptor_limit - running.server.stats().descriptors
        assert 0.85 * free < limit <= 0.9 * free


@pytest.mark.linux("/proc/net/sockstat")
def test_kernel_memory_at_its_limit_pauses_until_there_is_more(serve):
    """Bytes that nobody reads fill the kernel's buffers; a limit below what they take pauses, a limit above ends it."""
    running = serve(on_data=None, on_connect=lambda conn: conn.pause_reading())
    full = running.connect()
    full.setblocking(False)
    with pytest.raises(BlockingIOError):
        while full.send(b"x" * 65536):
            pass
    used = running.server.stats().kernel_memory
    assert used > 2**16
    running.server.limits = Limits(max_kernel_memory=used // 2)
    assert running.listener.state == "full" and running.listener.reasons == {"memory"}
    running.connect(b"?")
    net.wait_until(lambda: running.listener.queued == 1, "the client in the queue")
    assert running.heard("pause") == [{"memory"}] and running.server.active == 1
    assert running.server.stats().kernel_memory_limit == used // 2
    running.server.limits = Limits(max_kernel_memory=1.0)
    net.wait_until(lambda: running.server.active == 2, "the client that waited")
    assert len(running.heard("resume")) == 1
    # Accepting is what makes it look: a limit that is met later is found by the next client.
    running.server.limits = Limits(max_kernel_memory=running.server.stats().kernel_memory + 2**21)
    more = running.connect()
    more.setblocking(False)
    with pytest.raises(BlockingIOError):
        while more.send(b"x" * 65536):
            pass

    def paused():
        if not running.listener.reasons:
            running.connect().close()
        return running.listener.reasons == {"memory"}

    net.wait_until(paused, "the pause")
    running.in_loop(lambda: [conn.abort() for conn in running.server.connections])
    net.wait_until(lambda: running.listener.state == "accepting", "the end of the pause, as the memory comes back")


@pytest.mark.linux("AF_UNIX")
@pytest.mark.parametrize("policy", ["queue", "refuse", "reject"])
def test_unix_domain_socket(tmp_path, policy):
    path = str(tmp_path / "s")
    server = fastaccept.Server(on_data=net.echo, limits=Limits(max_connections=1), when_full=policy, reject_message=b"busy")
    listener = server.listen_unix(path, mode=0o600)
    server.start()

    def connect():
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(net.DEADLINE_S)
        sock.connect(path)
        sock.sendall(b"?")
        return sock

    with server, connect() as first:
        assert net.receive(first, 1) == b"?"
        net.wait_until(lambda: listener.state == "full", "the limit")
        if policy == "reject":
            with socket.socket(socket.AF_UNIX) as second:
                second.connect(path)
                assert net.receive_all(second) == b"busy"
        else:  # a Unix-domain listener can't refuse and come back, so it queues
            with connect() as second:
                assert not net.is_answered(second, 0.05)
                first.close()
                assert net.receive(second, 1) == b"?"
    assert not (tmp_path / "s").exists()


def test_several_listeners_share_the_limit_and_adopted_sockets_serve(serve):
    running = serve(limits=Limits(max_connections=2))
    own = socket.create_server(("127.0.0.1", 0))
    listener = running.server.adopt(own)
    with socket.create_connection(listener.address, timeout=net.DEADLINE_S) as sock:
        sock.sendall(b"a")
        assert net.receive(sock, 1) == b"a"
        assert running.connect(b"b").recv(1) == b"b"
        net.wait_until(lambda: running.listener.state == listener.state == "full", "the limit on both")
        listener.close()
        assert listener.state == "closed" and net.connects(listener.address) == "refused"
        sock.sendall(b"c")
        assert net.receive(sock, 1) == b"c"  # connections that came by it live on


def test_names_ipv6_and_dual_stack():
    with fastaccept.Server() as server:
        for host, options in (("localhost", {}), ("::1", {}), (None, {}), ("::", {"dual_stack": True})):
            try:
                listeners = server.listen(host, 0, **options)
            except OSError:
                if socket.has_ipv6 and host != "::1":
                    raise
                continue
            assert len({listener.port for listener in listeners}) == 1
