"""Ensures that what the systems tell of the kernel's memory is read as they mean it, and that nothing comes of what they do not tell."""

import os
import sys

import pytest

from fastaccept import memory
from fastaccept.memory import KernelMemory, PerformanceInfo, connections_by_memory, pool_max, tcp_bytes

GIB = 2**30
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096

linux = pytest.mark.linux("/proc, with which TCP tells of its memory")


@linux
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"sockets: used 12\nTCP: inuse 1 orphan 0 tw 1 alloc 1 mem 931\nUDP: inuse 0 mem 7\n", 931 * PAGE),
        (b"TCP: inuse 1 orphan 0 tw 1 alloc 1 mem 0\n", 0),
        (b"UDP: inuse 0 mem 7\n", None),
        (b"TCP: inuse 1 mem\n", None),
        (b"TCP: inuse 1 mem x\n", None),
        (b"", None),
    ],
)
def test_sockstat(text, expected):
    assert tcp_bytes(text) == expected


@linux
def test_figures_that_are_hidden_are_unknown(monkeypatch):
    monkeypatch.setattr(memory, "SOCKSTAT", "/nowhere")
    monkeypatch.setattr(memory, "TCP_MEM", "/nowhere")
    known = KernelMemory()
    assert known.used() is None and known.limit(0.5) is None
    assert known.limit(1234) == 1234 and known.limit(None) is None
    known.close()


@linux
def test_share_is_of_the_third_number(monkeypatch, tmp_path):
    file = tmp_path / "tcp_mem"
    monkeypatch.setattr(memory, "TCP_MEM", str(file))
    known = KernelMemory()
    for text, expected in [("287898\t383867\t575796\n", 575796 * PAGE // 2), ("1 2\n", None), ("a b c\n", None), ("0 0 0\n", 1)]:
        file.write_text(text)
        assert known.limit(0.5) == expected
    known.close()


@linux
def test_asked_again_it_needs_no_descriptor():
    import resource

    known = KernelMemory()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/dev/null", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(OSError):
            os.open("/dev/null", os.O_RDONLY)
        assert known.used() >= 0
        starving = KernelMemory()
        assert starving.used() is None and starving.limit(0.9) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    starving.open()
    assert starving.used() >= 0
    starving.close(), known.close()
    assert known.used() is None


@pytest.mark.parametrize(
    ("physical", "expected"), [(4 * GIB, 3 * GIB), (170 * GIB, 127.5 * GIB), (1024 * GIB, 128 * GIB), (0, None)]
)
def test_pool_may_come_to(physical, expected):
    assert pool_max(PerformanceInfo(physical, 0, 0, 0)) == expected
    assert pool_max(None) is None


@pytest.mark.parametrize(
    ("physical", "available", "nonpaged", "limit", "expected"),
    [
        (16 * GIB, 14 * GIB, 2 * GIB, None, (int(16 * GIB * 0.75 * 0.9) - 2 * GIB) // 8192),    # the pool is what is short
        (16 * GIB, 1 * GIB, 2 * GIB, None, int(GIB * 0.9) // 8192),                             # the memory is
        (16 * GIB, 14 * GIB, 2 * GIB, 3 * GIB, GIB // 8192),                                    # the limit is
        (16 * GIB, 14 * GIB, 0, None, int(16 * GIB * 0.75 * 0.9) // 8192),                      # Wine tells no use
        (16 * GIB, 14 * GIB, 2 * GIB, GIB, 1),                                                  # over it already
        (4096 * GIB, 4000 * GIB, GIB, 2000 * GIB, 1 << 24),                                     # the handles are
        (0, 0, 0, None, None),
    ],
)
def test_auto_by_memory(physical, available, nonpaged, limit, expected):
    assert connections_by_memory(PerformanceInfo(physical, available, nonpaged, 0), limit) == expected
    assert connections_by_memory(None, limit) is None


@pytest.mark.skipif(sys.platform != "win32", reason="GetPerformanceInfo is Windows'")
def test_windows_tells_its_memory():
    info = memory.performance_info()
    assert info.physical_bytes >= info.available_bytes > 0
    assert info.nonpaged_bytes < info.physical_bytes
    # Wine says 0 of the pool: unknown, and no pause comes of it.
    assert (KernelMemory().used() is None) == (info.nonpaged_bytes == 0)
    assert KernelMemory().limit(1.0) == pool_max(info)
    assert memory.auto_by_memory(None) >= 1000
