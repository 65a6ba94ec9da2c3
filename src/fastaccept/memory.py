"""Memory: how much of it the kernel's TCP holds, and the most that it may hold.

Linux    "mem" in the line "TCP:" of /proc/net/sockstat, in pages, is what all TCP sockets of the machine hold in their buffers (of
         the machine also where the rest of that file is of one network namespace), within some MiB: since Linux 6.0 each CPU keeps
         an account of its own. The most is the third number of net.ipv4.tcp_mem (tcp(7)), which a network namespace other than
         the first one does not show.
Windows  the non-paged pool of the machine (GetPerformanceInfo). How large it may grow is no call's to tell. Microsoft names "RAM or
         128 GB, whichever is smaller" and, for Windows 7, 75 % of it ("Memory Limits for Windows and Windows Server Releases").

None stands for what is not known, and then nothing is done about it: figures may be hidden, as in a container, and Wine says 0.
"""

from __future__ import annotations

import os
import sys
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Union

SOCKSTAT = "/proc/net/sockstat"
TCP_MEM = "/proc/sys/net/ipv4/tcp_mem"

POOL_SHARE = 0.75
POOL_MAX = 128 * 2**30
# Non-paged pool that one connection takes: an estimate, for Microsoft gives no figure. Windows 2003 had 256 MiB of pool at most,
# and a server there met its end at 31,200 connections (Holgate, "Handling lots of socket connections"): 8.4 KiB each, at most.
CONNECTION_BYTES = 8192
# Its size, nine numbers of pages and the size of one, handles, processes, threads; as C lays it out.
PERFORMANCE_INFORMATION = "L10N3L0N"
# A process has so many handles, and a connection takes one (Russinovich, "Pushing the Limits of Windows: Handles").
HANDLES_MAX = 1 << 24
# max_connections="auto" takes this share of what is there, as it does of descriptors.
AUTO_SHARE = 0.9

_get_performance_info: Any = None  # once it was wanted


class PerformanceInfo(namedtuple("PerformanceInfo", "physical_bytes available_bytes nonpaged_bytes handles")):
    """What GetPerformanceInfo tells; nonpaged_bytes is 0 where it is not told (Wine)."""

    __slots__ = ()
    physical_bytes: int
    available_bytes: int
    nonpaged_bytes: int
    handles: int


class KernelMemory:
    """What the kernel holds for TCP, to be asked often, also when no descriptor is left: it keeps one open (Linux). Threads: any."""

    def __init__(self) -> None:
        self._file = -1
        self.open()

    def open(self) -> None:
        """Try again what may have failed when this was made."""
        if self._file < 0 and sys.platform.startswith("linux"):
            try:
                self._file = os.open(SOCKSTAT, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                pass

    def close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def used(self) -> Optional[int]:
        """Return the bytes in use; None = unknown."""
        if sys.platform == "win32":
            info = performance_info()
            return info.nonpaged_bytes or None if info else None
        if self._file < 0:
            return None
        try:
            return tcp_bytes(os.pread(self._file, 4096, 0))
        except OSError:
            return None

    def limit(self, wanted: Union[int, float, None]) -> Optional[int]:
        """Return Limits.max_kernel_memory in bytes; None for none, and for a share of what is unknown."""
        if not isinstance(wanted, float):
            return wanted
        most = pool_max(performance_info()) if sys.platform == "win32" else tcp_max()
        return None if most is None else max(1, int(most * wanted))


def tcp_bytes(sockstat: bytes) -> Optional[int]:
    """Return what a text of /proc/net/sockstat says that TCP holds."""
    for line in sockstat.splitlines():
        words = line.split()
        if words[:1] == [b"TCP:"] and b"mem" in words[:-1]:
            pages = words[words.index(b"mem") + 1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE") if pages.isdigit() else None
    return None


def tcp_max() -> Optional[int]:
    """Return the most that Linux lets TCP hold, as it is set now."""
    try:
        with open(TCP_MEM, "rb") as file:
            return int(file.read().split()[2]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def pool_max(info: Optional[PerformanceInfo]) -> Optional[int]:
    """Return the most that the non-paged pool may come to."""
    if info is None or not info.physical_bytes:
        return None
    return min(int(info.physical_bytes * POOL_SHARE), POOL_MAX)


def connections_by_memory(info: Optional[PerformanceInfo], limit: Optional[int]) -> Optional[int]:
    """Return what max_connections="auto" stands for on Windows, where no limit of descriptors is in the way: what a limit of the pool
    (None: 90 % of the most) leaves, and 90 % of the memory that is free for it to grow into. None = unknown."""
    most = pool_max(info)
    if info is None or most is None:
        return None
    pool = (int(most * AUTO_SHARE) if limit is None else limit) - info.nonpaged_bytes
    return max(1, min(pool // CONNECTION_BYTES, int(info.available_bytes * AUTO_SHARE) // CONNECTION_BYTES, HANDLES_MAX))


def auto_by_memory(limit: Optional[int]) -> Optional[int]:
    """Return what "auto" stands for now, on Windows. Elsewhere None: there descriptors decide."""
    return connections_by_memory(performance_info(), limit) if sys.platform == "win32" else None


def performance_info() -> Optional[PerformanceInfo]:
    """Return what Windows tells of its memory; None if it does not."""
    global _get_performance_info
    import ctypes  # slow to import, and wanted here alone
    import struct

    if _get_performance_info is None:
        _get_performance_info = ctypes.WinDLL("psapi").GetPerformanceInfo  # type: ignore[attr-defined]
    size = struct.calcsize(PERFORMANCE_INFORMATION)
    raw = ctypes.create_string_buffer(struct.pack("L", size), size)
    if not _get_performance_info(raw, size):
        return None
    _, _, _, _, physical, available, _, _, _, nonpaged, page, handles, _, _ = struct.unpack(PERFORMANCE_INFORMATION, raw.raw)
    return PerformanceInfo(physical * page, available * page, nonpaged * page, handles)
