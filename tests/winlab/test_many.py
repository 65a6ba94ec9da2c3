"""Ensures that one process on Windows serves 16,000 connections at once, and gives all of them back."""

import resource
import socket
import time

import pytest

from helpers import net

CONNECTIONS = 16_000
OWN_DESCRIPTORS = 500  # more than the client, or the Wine server, has at rest


@pytest.mark.timeout(300)
def test_16000_in_one_process(windows, descriptors, capsys):
    assert descriptors == resource.RLIM_INFINITY or descriptors >= CONNECTIONS + OWN_DESCRIPTORS, "ulimit -Hn is too low"
    windows.open(CONNECTIONS)
    times = {}
    socks = []
    try:
        started = time.monotonic()
        for _ in range(CONNECTIONS):
            socks.append(socket.create_connection(windows.address, timeout=net.DEADLINE_S))
        windows.until("active", CONNECTIONS)
        times["connected"], started = time.monotonic() - started, time.monotonic()
        for number, sock in enumerate(socks):
            sock.sendall(b"%08d" % number)
        for number, sock in enumerate(socks):
            assert net.receive(sock, 8) == b"%08d" % number
        times["echoed to"], started = time.monotonic() - started, time.monotonic()
        cpu_s = windows.cpu_s()
        time.sleep(1.0)  # the span that is measured
        share = (windows.cpu_s() - cpu_s) / (time.monotonic() - started)
        figures = windows.look()
        started = time.monotonic()
    finally:
        for sock in socks:
            sock.close()
    windows.until("active", 0)
    times["released"] = time.monotonic() - started
    with capsys.disabled():
        print(f"\n{CONNECTIONS:,} connections in one process: " + ", ".join(f"{what} in {s:.1f} s" for what, s in times.items())
              + f"; idle: {share:.0%} of a CPU, {figures['user_space_bytes'] // CONNECTIONS} bytes each")  # fmt: skip
    assert cpu_s > 0.5, "after so much work: these are not the processes that do it"
    assert share < 0.05 and windows.look("accepted") == CONNECTIONS
