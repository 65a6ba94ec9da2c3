"""What this machine allows: each limit that a server, or a load generator, can run into.

`probe()` asks the system. Everything below it is pure: the Linux half is given `read(path) -> text or None`,
the Windows half a record of numbers, so that a test can describe a machine that nobody has.

Two estimates are made, and both are stated in the report:
- An idle connection costs the kernel about 4 KiB a side (Linux 6.18, loopback: 3.6). That is memory of the
  machine and of the control group, but it is not charged to tcp_mem.
- Data waiting in a socket buffer is charged to tcp_mem by whole pages: one byte costs a page (Linux 6.18:
  8,000 connections with one byte queued each raised the count by 7,936 pages, and reading gave all back).
"""

from __future__ import annotations

import os
import posixpath
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Callable, Optional

from fastaccept.cli.terminal import format_bytes
from fastaccept.memory import PerformanceInfo, performance_info

SERVER = "server"
CLIENT = "client"
BOTH = (SERVER, CLIENT)

HELD = "held"  # limits how many connections are open
WAITING = "waiting"  # limits how many clients wait to be accepted: how large a burst may be, no more

IDLE_BYTES = 4096  # kernel memory of one idle connection, one side
QUEUED_BYTES = 4096  # assumed to wait in each connection's socket buffers, unless told otherwise
RESERVED_DESCRIPTORS = 32  # stdin, stdout, stderr, listeners, epoll, logs, libraries
PORTS_FIRST, PORTS_LAST = 1024, 65535  # the widest range that leaves the privileged ports alone
WINDOWS_PORTS = 65535 - 49152 + 1
WINDOWS_HANDLES = 1 << 24  # per process: the handle table's size
NO_LIMIT_FROM = 1 << 60  # what systems write when they mean "none": 2**63 - 1, rounded down to a page or not

Read = Callable[[str], Optional[str]]


@dataclass(frozen=True)
class Limit:
    name: str
    value: int | None  # None: there is no limit, or it cannot be read: `shown` says which
    unit: str
    shown: str
    connections: int | None  # how many it allows; None: it does not limit them
    per: str
    symptom: str
    # The command that sets it to a value; or, where no setting does it, what helps instead.
    raise_to: Callable[[int], str] = field(repr=False, compare=False)
    roles: tuple[str, ...] = BOTH
    kind: str = HELD
    cost: float = 1  # units of the value that one connection takes
    note: str = ""

    def remedy(self, wanted: int | None = None) -> str:
        """The command that makes room for so many connections, or for twice as many as now."""
        if self.value is None or self.connections is None:
            return ""
        goal = wanted if wanted is not None and wanted > self.connections else max(2 * self.connections, 1024)
        return self.raise_to(self.value + int((goal - self.connections) * self.cost))


@dataclass(frozen=True)
class Machine:
    facts: dict[str, object]
    limits: tuple[Limit, ...]


class UnsupportedSystem(Exception):
    pass


def probe(queued_bytes: int = QUEUED_BYTES) -> Machine:
    """Read this machine, for connections that have so many bytes each in their socket buffers."""
    if sys.platform.startswith("linux"):
        return _probe_linux(queued_bytes)
    if sys.platform == "win32":
        return _probe_windows(queued_bytes)
    raise UnsupportedSystem(f"knows the limits of Linux and Windows, not of {sys.platform}")


def _probe_linux(queued_bytes: int) -> Machine:
    import resource

    soft, hard = (
        None if n == resource.RLIM_INFINITY else n for n in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    memory = meminfo(read_text("/proc/meminfo") or "")
    facts = {
        "system": "Linux " + os.uname().release,
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": memory.get("MemTotal"),
        "memory_available_bytes": memory.get("MemAvailable"),
        "memory_free_bytes": memory.get("MemFree"),
    }
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    return Machine(facts, tuple(linux_limits(read_text, soft, hard, queued_bytes, page_bytes)))


def _probe_windows(queued_bytes: int) -> Machine:
    performance = performance_info()
    if performance is None:
        raise UnsupportedSystem("has nothing to go by: GetPerformanceInfo failed")
    version = sys.getwindowsversion()
    facts = {
        "system": f"Windows {version.major}.{version.minor}.{version.build}",
        "cpus": os.cpu_count(),
        "memory_bytes": performance.physical_bytes,
        "memory_available_bytes": performance.available_bytes,
        "memory_free_bytes": None,
        "nonpaged_pool_bytes": performance.nonpaged_bytes or None,
        "handles": performance.handles,
    }
    return Machine(facts, tuple(windows_limits(performance, queued_bytes)))


def read_text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:  # not there, or hidden by a container: it is unknown, and said to be
        return None


# ---- Linux: the files' formats

def integers(text: str | None) -> list[int] | None:
    """The numbers of a one-line /proc/sys file; None if it is not there or is not one."""
    if text is None or not re.fullmatch(r"\s*\d+(\s+\d+)*\s*", text):
        return None
    return [int(word) for word in text.split()]


def meminfo(text: str) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    return {
        found[1]: int(found[2]) * 1024 for found in re.finditer(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)
    }


def reserved_ports(text: str, first: int, last: int) -> int:
    """How many of first..last ip_local_reserved_ports ("8080,9000-9010") takes away."""
    taken = 0
    for part in filter(None, text.strip().split(",")):
        low, _, high = part.partition("-")
        taken += max(0, min(int(high or low), last) - max(int(low), first) + 1)
    return taken


def tcp_pages_used(sockstat: str | None) -> int:
    found = re.search(r"^TCP:.*\bmem (\d+)", sockstat or "", re.MULTILINE)
    return int(found[1]) if found else 0


@dataclass(frozen=True)
class CgroupMemory:
    limit_file: str
    limit_bytes: int | None
    used_bytes: int  # without the file pages that the kernel would give back first

    @property
    def room_bytes(self) -> int | None:
        return None if self.limit_bytes is None else max(0, self.limit_bytes - self.used_bytes)


def cgroup_memory(read: Read) -> CgroupMemory | None:
    """The control group that leaves this process the least memory, among its own and all above it.

    Both hierarchies may be mounted at once; the memory controller is in one of them. None: no such files.
    """
    found = [
        level
        for directory, version in _cgroup_directories(read)
        if (level := _cgroup_level(read, directory, version)) is not None
    ]
    bounded = [level for level in found if level.room_bytes is not None]
    if bounded:
        return min(bounded, key=lambda level: level.room_bytes or 0)
    return found[0] if found else None


def _cgroup_directories(read: Read):
    """(directory, version) from the process's own group up to the mount point, for each hierarchy."""
    own_paths = {}  # 2, or 1 for the memory controller of v1 -> path within the hierarchy
    for line in (read("/proc/self/cgroup") or "").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            own_paths[2] = path
        elif "memory" in controllers.split(","):
            own_paths[1] = path
    for line in (read("/proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        root, mount_point = before.split()[3:5]
        kind, _, options = after.split()[:3]
        version = {"cgroup2": 2, "cgroup": 1}.get(kind)
        if version not in own_paths or (version == 1 and "memory" not in options.split(",")):
            continue
        # In a container the mount shows only the part of the tree below `root`.
        path = posixpath.relpath(own_paths[version], root)
        parts = [] if path.startswith("..") or path == "." else path.split("/")
        for length in range(len(parts), -1, -1):
            yield posixpath.join(mount_point, *parts[:length]), version


def _cgroup_level(read: Read, directory: str, version: int) -> CgroupMemory | None:
    limit_name, used_name, cache_key = (
        ("memory.max", "memory.current", "inactive_file")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    text = read(f"{directory}/{limit_name}")
    if text is None:
        return None  # the root group of v2 has none
    limit = None if text.strip() == "max" else int(text)
    if limit is not None and limit >= NO_LIMIT_FROM:
        limit = None
    used = (integers(read(f"{directory}/{used_name}")) or [0])[0]
    cache = re.search(rf"^{cache_key} (\d+)$", read(f"{directory}/memory.stat") or "", re.MULTILINE)
    return CgroupMemory(f"{directory}/{limit_name}", limit, max(0, used - (int(cache[1]) if cache else 0)))


# ---- Linux: the limits

def linux_limits(
    read: Read, soft: int | None, hard: int | None, queued_bytes: int = QUEUED_BYTES, page_bytes: int = 4096
) -> list[Limit]:
    return [
        *_descriptor_limits(read, soft, hard),
        *_memory_limits(read, queued_bytes),
        _tcp_mem_limit(read, queued_bytes, page_bytes),
        *_conntrack_limits(read),
        _port_limit(read),
        *_queue_limits(read),
    ]


def _limit(
    name: str, value: int | None, unit: str, used: int = 0, *, known: bool = True, limits: bool = True, **rest
):
    """One row: what is left of `value` after `used`, shared by connections of `cost` each."""
    if not known:
        value, shown = None, "unknown"
    elif value is None or value >= NO_LIMIT_FROM:
        value, shown = None, "none"
    else:
        shown = format_bytes(value) if unit == "bytes" else f"{value:,}"
    connections = max(0, int((value - used) / rest.get("cost", 1))) if value is not None and limits else None
    return Limit(name=name, value=value, unit=unit, shown=shown, connections=connections, **rest)


def _sysctl(name: str) -> Callable[[int], str]:
    return lambda value: f"sysctl -w {name}={value}"


def _more_memory(value: int) -> str:
    return f"no setting: {format_bytes(value)} of available memory, or less queued"


def _first(read: Read, path: str) -> int | None:
    numbers = integers(read(path))
    return numbers[0] if numbers else None


def _descriptor_limits(read: Read, soft: int | None, hard: int | None) -> list[Limit]:
    nr_open = _first(read, "/proc/sys/fs/nr_open")
    file_max = _first(read, "/proc/sys/fs/file-max")
    file_nr = integers(read("/proc/sys/fs/file-nr")) or [0, 0, 0]
    watches = _first(read, "/proc/sys/fs/epoll/max_user_watches")

    def raise_hard(value: int) -> str:
        # Not even root may set a hard limit beyond fs.nr_open.
        first = f"sysctl -w fs.nr_open={value} && " if nr_open is not None and value > nr_open else ""
        return f"{first}prlimit --pid $$ --nofile={value}:{value}  (systemd: LimitNOFILE={value})"

    def raise_soft(value: int) -> str:
        return f"ulimit -n {'unlimited' if hard is None else hard}" if soft != hard else raise_hard(value)

    emfile = "EMFILE, Too many open files, in accept"
    reserve = RESERVED_DESCRIPTORS
    return [
        _limit("descriptors, soft limit", soft, "descriptors", reserve, per="process", symptom=emfile,
               raise_to=raise_soft, note='max_connections="auto" raises it to the hard limit by itself'),
        _limit("descriptors, hard limit", hard, "descriptors", reserve, per="process", symptom=emfile,
               raise_to=raise_hard),
        _limit("fs.nr_open", nr_open, "descriptors", reserve, known=nr_open is not None, per="process",
               symptom="EPERM in setrlimit: the hard limit cannot go beyond", raise_to=_sysctl("fs.nr_open")),
        _limit("fs.file-max", file_max, "descriptors", file_nr[0] - file_nr[1], known=file_max is not None,
               per="machine", symptom="ENFILE in accept (root is spared)", raise_to=_sysctl("fs.file-max"),
               note=f"{file_nr[0] - file_nr[1]:,} in use"),
        _limit("fs.epoll.max_user_watches", watches, "watches", known=watches is not None, per="user",
               symptom="ENOSPC in epoll_ctl", raise_to=_sysctl("fs.epoll.max_user_watches")),
    ]  # fmt: skip


def _memory_limits(read: Read, queued_bytes: int) -> list[Limit]:
    memory = meminfo(read("/proc/meminfo") or "")
    available = memory.get("MemAvailable")
    cost = IDLE_BYTES + queued_bytes
    rows = [
        _limit("memory available", available, "bytes", known=available is not None, per="machine", cost=cost,
               symptom="the OOM killer; ENOMEM or ENOBUFS in accept",
               raise_to=_more_memory,
               note="watch MemFree in a run: MemAvailable counts the inodes of open sockets as free"),
    ]  # fmt: skip
    group = cgroup_memory(read)
    if group is not None:
        rows.append(
            _limit("cgroup memory", group.limit_bytes, "bytes", group.used_bytes, per="cgroup", cost=cost,
                   symptom="the OOM killer, within the group; ENOMEM in accept",
                   raise_to=lambda value: f"echo {value} > {group.limit_file}  (systemd: MemoryMax={value})",
                   note=f"{format_bytes(group.used_bytes)} in use")
        )  # fmt: skip
    return rows


def _tcp_mem_limit(read: Read, queued_bytes: int, page_bytes: int) -> Limit:
    marks = integers(read("/proc/sys/net/ipv4/tcp_mem"))
    known = marks is not None and len(marks) == 3
    low, pressure, high = marks if known else (0, 0, 0)
    used = tcp_pages_used(read("/proc/net/sockstat"))
    pages = -(-queued_bytes // page_bytes)

    def scaled(value: int) -> str:
        # The three marks keep their proportions.
        marks = (low * value // max(1, high), pressure * value // max(1, high), value)
        return 'sysctl -w net.ipv4.tcp_mem="{} {} {}"'.format(*marks)

    return _limit(
        "net.ipv4.tcp_mem", high, "pages", used, known=known, limits=pages > 0, per="machine",
        cost=max(1, pages), symptom='kernel log "TCP: out of memory"; segments dropped, writes stall',
        raise_to=scaled, note=f"{used:,} pages in use; idle connections are not charged",
    )  # fmt: skip


def _conntrack_limits(read: Read) -> list[Limit]:
    most = _first(read, "/proc/sys/net/netfilter/nf_conntrack_max")
    if most is None:
        return []  # the module is not loaded
    used = _first(read, "/proc/sys/net/netfilter/nf_conntrack_count") or 0
    # The module alone tracks nothing: a firewall rule must ask for it, and then any traffic makes an entry.
    return [
        _limit("net.netfilter.nf_conntrack_max", most, "entries", used, limits=used > 0, per="machine",
               symptom='kernel log "nf_conntrack: table full"; SYN dropped, connect times out',
               raise_to=_sysctl("net.netfilter.nf_conntrack_max"),
               note=f"{used:,} in use" if used else "no entry: no firewall rule tracks connections now"),
    ]  # fmt: skip


def _port_limit(read: Read) -> Limit:
    ends = integers(read("/proc/sys/net/ipv4/ip_local_port_range"))
    known = ends is not None and len(ends) == 2
    first, last = ends if known else (0, -1)
    reserved = reserved_ports(read("/proc/sys/net/ipv4/ip_local_reserved_ports") or "", first, last)
    ports = last - first + 1 - reserved
    widest = PORTS_LAST - PORTS_FIRST + 1

    def raise_to(value: int) -> str:
        addresses = -(-value // max(1, widest))
        more = f"connect from {addresses} source addresses" if addresses > 1 else ""
        if first <= PORTS_FIRST and last >= PORTS_LAST:
            return more or "free some of net.ipv4.ip_local_reserved_ports"
        wider = f'sysctl -w net.ipv4.ip_local_port_range="{PORTS_FIRST} {PORTS_LAST}"'
        return f"{wider}  (and {more})" if more else wider

    return _limit(
        "net.ipv4.ip_local_port_range", ports, "ports", known=known, per="source and destination address",
        roles=(CLIENT,), symptom="EADDRNOTAVAIL in connect", raise_to=raise_to,
        note=f"{first}..{last}" + (f", {reserved:,} reserved" if reserved else ""),
    )  # fmt: skip


def _queue_limits(read: Read) -> list[Limit]:
    somaxconn = _first(read, "/proc/sys/net/core/somaxconn")
    half_open = _first(read, "/proc/sys/net/ipv4/tcp_max_syn_backlog")
    cookies = _first(read, "/proc/sys/net/ipv4/tcp_syncookies") or 0
    return [
        # The queue takes clients while it is not longer than the backlog: one more than it says.
        _limit("net.core.somaxconn", somaxconn, "clients", -1, known=somaxconn is not None, per="listener",
               roles=(SERVER,), kind=WAITING, symptom="SYN dropped: connect takes 1 s, 3 s, 7 s longer",
               raise_to=lambda value: f"sysctl -w net.core.somaxconn={value}  (and listen with that backlog)",
               note="a larger backlog given to listen() is cut to this"),
        # With SYN cookies the kernel does not look at it; without, unknown peers get three quarters of it.
        _limit("net.ipv4.tcp_max_syn_backlog", half_open, "handshakes", known=half_open is not None,
               limits=not cookies, cost=4 / 3, per="listener", roles=(SERVER,), kind=WAITING,
               symptom="SYN dropped while SYN cookies are off",
               raise_to=_sysctl("net.ipv4.tcp_max_syn_backlog"),
               note="SYN cookies are on: not enforced" if cookies else "SYN cookies are off"),
    ]  # fmt: skip


# ---- Windows

def windows_limits(performance: PerformanceInfo, queued_bytes: int = QUEUED_BYTES) -> list[Limit]:
    pool = performance.nonpaged_bytes
    return [
        _limit("handles", WINDOWS_HANDLES, "handles", RESERVED_DESCRIPTORS, per="process",
               symptom="WSAENOBUFS or WSAEMFILE in accept",
               raise_to=lambda value: "no setting: more processes",
               note=f"{performance.handles:,} open in the whole system"),
        # Socket buffers and connection records live in the non-paged pool, which is physical memory and may
        # grow until that is gone. How much a connection takes was measured on Linux only.
        _limit("non-paged pool", performance.available_bytes, "bytes", per="machine",
               cost=IDLE_BYTES + queued_bytes,
               symptom="WSAENOBUFS in accept, ERROR_NO_SYSTEM_RESOURCES from AcceptEx",
               raise_to=_more_memory,
               note=(f"{format_bytes(pool)} in use now" if pool else "in use now: unknown")
                    + "; may grow by the available memory"),
        _limit("dynamic port range", WINDOWS_PORTS, "ports", per="source and destination address",
               roles=(CLIENT,), symptom="WSAEADDRINUSE or WSAENOBUFS in connect",
               raise_to=lambda value: "netsh int ipv4 set dynamicport tcp start=1025 num=64510",
               note="the default, 49152..65535; yours: netsh int ipv4 show dynamicport tcp"),
    ]  # fmt: skip


# ---- questions to ask of a machine's limits

def by_connections(limits) -> list[Limit]:
    """The tightest first; those that do not limit at the end."""
    return sorted(limits, key=lambda limit: (limit.connections is None, limit.connections or 0))


def first_to_bite(limits, role: str) -> Limit | None:
    ranked = by_connections(limit for limit in limits if limit.kind == HELD and role in limit.roles)
    return ranked[0] if ranked and ranked[0].connections is not None else None


def below(limits, role: str, connections: int) -> list[Limit]:
    """The limits that do not let a process of that role have so many connections, tightest first."""
    return [
        limit
        for limit in by_connections(limits)
        if limit.kind == HELD
        and role in limit.roles
        and limit.connections is not None
        and limit.connections < connections
    ]


def as_json(limit: Limit, wanted: int | None = None) -> Mapping[str, object]:
    return {
        "name": limit.name,
        "value": limit.value,
        "unit": limit.unit,
        "shown": limit.shown,
        "connections": limit.connections,
        "kind": limit.kind,
        "per": limit.per,
        "roles": list(limit.roles),
        "symptom": limit.symptom,
        "raise": limit.remedy(wanted) or None,
        "note": limit.note or None,
    }
