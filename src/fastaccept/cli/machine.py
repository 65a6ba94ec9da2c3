"""Machine: the limits of this machine that a server with very many connections meets, as facts. Reading is in probe(), sense is
made of it by pure functions, so that tests can bring machines of their own."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from typing import Callable, Optional

# Kernel memory of one idle TCP connection, one side: sock, file, dentry, inode and epoll's item, as measured over loopback.
KERNEL_BYTES_PER_CONNECTION = 4096
PAGE_BYTES = 4096
# Windows' dynamic ports since Vista; `netsh int ipv4 show dynamicport tcp` tells them.
WINDOWS_PORTS = 16_384


@dataclass(frozen=True)
class Limit:
    """One limit.

    Attributes:
        name: what it is called; value: as the system says it; connections: how many it allows, None = not of that kind;
        when: what is seen when it is met; raise_it: the command that raises it; who: "server" or "client".
    """

    name: str
    value: str
    connections: Optional[int]
    when: str
    raise_it: str
    who: str = "server"


Read = Callable[[str], Optional[str]]


def read_file(path: str) -> Optional[str]:
    """A file's text, None if it isn't there or may not be read."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def describe() -> str:
    """The machine in one line."""
    from fastaccept.cli import package_version

    memory = memory_bytes(read_file)
    size = f", {memory / 2**30:.0f} GiB" if memory else ""
    return (
        f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs{size}, Python {platform.python_version()}, "
        f"fastaccept {package_version()}"
    )


def probe(read: Read = read_file) -> list[Limit]:
    """Every limit that can be found out, the tightest for a server first."""
    found = windows_limits() if sys.platform == "win32" else linux_limits(read, descriptor_limits())
    return sorted(found, key=lambda limit: (limit.connections is None, limit.connections or 0))


def descriptor_limits() -> tuple[int, int]:
    """(soft, hard) of RLIMIT_NOFILE."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = 2**31 - 1
    return (top if soft == resource.RLIM_INFINITY else soft, top if hard == resource.RLIM_INFINITY else hard)


def linux_limits(read: Read, descriptors: tuple[int, int]) -> list[Limit]:
    """What Linux's files and two descriptor limits mean. A file that is not there makes no limit."""
    soft, hard = descriptors
    found = [] if soft == hard else [
        Limit("descriptors, soft limit", f"{soft:,}", soft, 'EMFILE in accept(); max_connections="auto" raises it to the hard one',
              f"ulimit -n {hard}"),
    ]  # fmt: skip
    found += [
        Limit("descriptors, hard limit", f"{hard:,}", hard, "EMFILE in accept()",
              "as root: prlimit --nofile=1048576 COMMAND, or systemd: LimitNOFILE=1048576"),
    ]  # fmt: skip
    simple = [
        ("fs.nr_open", "a hard limit above it is refused (EPERM)", 1),
        ("fs.file-max", "ENFILE in accept(), for every process", 1),
        ("fs.epoll.max_user_watches", "ENOSPC in epoll_ctl()", 1),
        ("net.netfilter.nf_conntrack_max", "SYNs are dropped; 'nf_conntrack: table full' in the kernel's log", 1),
    ]
    for name, when, divisor in simple:
        value = number(read("/proc/sys/" + name.replace(".", "/")))
        if value is not None:
            found.append(Limit(name, f"{value:,}", value // divisor, when, f"sysctl -w {name}={max(2 * value, 1_048_576)}"))
    found += queue_limits(read) + port_limits(read) + memory_limits(read)
    return found


def queue_limits(read: Read) -> list[Limit]:
    """These bound clients that wait, not connections."""
    found = []
    for name, when in (
        ("net.core.somaxconn", "a listener's backlog is cut down to it; when full, SYNs are dropped and clients see time-outs"),
        ("net.ipv4.tcp_max_syn_backlog", "in a storm SYNs are dropped, and sent again after 1 s"),
    ):
        value = number(read("/proc/sys/" + name.replace(".", "/")))
        if value is not None:
            found.append(Limit(name, f"{value:,} waiting", None, when, f"sysctl -w {name}={max(2 * value, 65_535)}"))
    return found


def port_limits(read: Read) -> list[Limit]:
    words = (read("/proc/sys/net/ipv4/ip_local_port_range") or "").split()
    if len(words) != 2:
        return []
    ports = int(words[1]) - int(words[0]) + 1
    return [
        Limit("net.ipv4.ip_local_port_range", f"{words[0]}-{words[1]}", ports,
              "EADDRNOTAVAIL in connect(), for each pair of source address and target",
              'sysctl -w net.ipv4.ip_local_port_range="1024 65535", or more source addresses', "client"),
    ]  # fmt: skip


def memory_limits(read: Read) -> list[Limit]:
    """By KERNEL_BYTES_PER_CONNECTION for one side; connections from this machine to itself cost both."""
    found = []
    pages = (read("/proc/sys/net/ipv4/tcp_mem") or "").split()
    if len(pages) == 3:
        # Only queued bytes count against it: a page for each connection is a busy one's share.
        value = int(pages[2])
        found.append(
            Limit("net.ipv4.tcp_mem", f"{value:,} pages", value, "buffers shrink, then ENOBUFS; a page each, queued bytes count",
                  f'sysctl -w net.ipv4.tcp_mem="{2 * int(pages[0])} {2 * int(pages[1])} {2 * value}"')
        )  # fmt: skip
    group = cgroup_bytes(read)
    if group is not None:
        found.append(
            Limit("cgroup memory", f"{group / 2**30:.1f} GiB", group // KERNEL_BYTES_PER_CONNECTION, "ENOMEM, or the OOM killer",
                  "raise memory.max of the group (systemd: MemoryMax=)")
        )  # fmt: skip
    memory = memory_bytes(read, "MemAvailable")
    if memory is not None:
        found.append(
            Limit("memory available", f"{memory / 2**30:.1f} GiB", memory // KERNEL_BYTES_PER_CONNECTION, "ENOMEM, or the OOM killer",
                  "more memory")
        )  # fmt: skip
    return found


def number(text: Optional[str]) -> Optional[int]:
    """The first whole number of a file's text; None if there is none. Values beyond any use count as 2**63."""
    word = (text or "").split()[:1]
    return min(int(word[0]), 2**63) if word and word[0].isdigit() else None


def memory_bytes(read: Read, name: str = "MemTotal") -> Optional[int]:
    for line in (read("/proc/meminfo") or "").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return None


def cgroup_bytes(read: Read) -> Optional[int]:
    """What the control group leaves: v2's memory.max or v1's limit, less what is used; None where there is no limit."""
    group = next((line[3:] for line in (read("/proc/self/cgroup") or "").splitlines() if line.startswith("0::")), "/")
    places = (
        (f"/sys/fs/cgroup{group.rstrip('/')}/memory.max", f"/sys/fs/cgroup{group.rstrip('/')}/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    )
    for limit_file, used_file in places:
        limit, used = number(read(limit_file)), number(read(used_file))
        if limit is not None and limit < 2**60:
            return max(0, limit - (used or 0))
    return None


def windows_limits() -> list[Limit]:
    """What GetPerformanceInfo tells. A figure of 0 is not known."""
    import ctypes

    class PerformanceInformation(ctypes.Structure):
        _fields_ = [("cb", ctypes.c_uint32)] + [
            (name, ctypes.c_size_t)
            for name in (
                "commit_total", "commit_limit", "commit_peak", "physical_total", "physical_available", "system_cache",
                "kernel_total", "kernel_paged", "kernel_nonpaged", "page_size",
            )
        ] + [("handles", ctypes.c_uint32), ("processes", ctypes.c_uint32), ("threads", ctypes.c_uint32)]  # fmt: skip

    info = PerformanceInformation(cb=ctypes.sizeof(PerformanceInformation))
    if not ctypes.WinDLL("psapi").GetPerformanceInfo(ctypes.byref(info), info.cb):
        raise ctypes.WinError()
    available = info.physical_available * info.page_size
    found = [
        Limit("memory available", f"{available / 2**30:.1f} GiB", available // KERNEL_BYTES_PER_CONNECTION,
              "WSAENOBUFS (10055): non-paged pool is physical memory", "more memory"),
        Limit("dynamic ports", f"{WINDOWS_PORTS:,} by default", WINDOWS_PORTS, "WSAEADDRINUSE or WSAENOBUFS in connect",
              "netsh int ipv4 set dynamicport tcp start=1025 num=64510", "client"),
    ]  # fmt: skip
    if info.kernel_nonpaged:
        used = info.kernel_nonpaged * info.page_size
        when = "WSAENOBUFS, ERROR_NO_SYSTEM_RESOURCES"
        found.append(Limit("non-paged pool in use", f"{used / 2**20:.0f} MiB", None, when, "more memory"))
    return found
