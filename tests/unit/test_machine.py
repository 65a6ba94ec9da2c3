"""Ensures that what /proc says is read right, on machines that are made up."""

import pytest

from fastaccept.cli import machine
from fastaccept.cli.machine import CLIENT, SERVER, PerformanceInfo, linux_limits, windows_limits

GIB = 1 << 30

MADE_UP = {
    "/proc/sys/fs/nr_open": "1048576\n",
    "/proc/sys/fs/file-max": "9223372036854775807\n",
    "/proc/sys/fs/file-nr": "1200\t200\t9223372036854775807\n",
    "/proc/sys/fs/epoll/max_user_watches": "400000\n",
    "/proc/sys/net/core/somaxconn": "128\n",
    "/proc/sys/net/ipv4/tcp_max_syn_backlog": "512\n",
    "/proc/sys/net/ipv4/tcp_syncookies": "0\n",
    "/proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
    "/proc/sys/net/ipv4/ip_local_reserved_ports": "80,40000,50000-50009\n",
    "/proc/sys/net/ipv4/tcp_mem": "18000\t24000\t36000\n",
    "/proc/sys/net/netfilter/nf_conntrack_max": "65536\n",
    "/proc/sys/net/netfilter/nf_conntrack_count": "536\n",
    "/proc/net/sockstat": "TCP: inuse 5 orphan 0 tw 0 alloc 6 mem 1000\nUDP: inuse 1 mem 7\n",
    "/proc/meminfo": "MemTotal: 4194304 kB\nMemAvailable: 2097152 kB\nHugePages_Total: 0\n",
    "/proc/self/cgroup": "0::/app.slice/web.service\n",
    "/proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n",
    "/sys/fs/cgroup/app.slice/web.service/memory.max": "max\n",
    "/sys/fs/cgroup/app.slice/web.service/memory.current": "1000\n",
    "/sys/fs/cgroup/app.slice/memory.max": f"{GIB}\n",
    "/sys/fs/cgroup/app.slice/memory.current": f"{GIB // 2}\n",
    "/sys/fs/cgroup/app.slice/memory.stat": f"anon 5\ninactive_file {GIB // 4}\nactive_file 1\n",
}


def limits_of(changes=(), soft=1024, hard=4096, queued_bytes=4096):
    files = {**MADE_UP, **dict(changes)}
    return {limit.name: limit for limit in linux_limits(files.get, soft, hard, queued_bytes)}


@pytest.mark.parametrize(
    ("name", "connections"),
    [
        ("descriptors, soft limit", 1024 - 32),
        ("descriptors, hard limit", 4096 - 32),
        ("fs.nr_open", 1048576 - 32),
        ("fs.file-max", None),
        ("fs.epoll.max_user_watches", 400000),
        ("memory available", 2 * GIB // 8192),
        ("cgroup memory", 3 * GIB // 4 // 8192),
        ("net.ipv4.tcp_mem", 35000),
        ("net.netfilter.nf_conntrack_max", 65000),
        ("net.ipv4.ip_local_port_range", 28232 - 11),
        ("net.core.somaxconn", 129),
        ("net.ipv4.tcp_max_syn_backlog", 384),
    ],
)
def test_connections_allowed(name, connections):
    assert limits_of()[name].connections == connections


@pytest.mark.parametrize(
    ("name", "wanted", "remedy"),
    [
        ("descriptors, soft limit", None, "ulimit -n 4096"),
        (
            "descriptors, hard limit",
            10000,
            "prlimit --pid $$ --nofile=10032:10032  (systemd: LimitNOFILE=10032)",
        ),
        (
            "descriptors, hard limit",
            2_000_000,
            "sysctl -w fs.nr_open=2000032 && prlimit --pid $$ --nofile=2000032:2000032"
            "  (systemd: LimitNOFILE=2000032)",
        ),
        ("fs.nr_open", 2_000_000, "sysctl -w fs.nr_open=2000032"),
        ("fs.file-max", 2_000_000, ""),
        ("fs.epoll.max_user_watches", 500_000, "sysctl -w fs.epoll.max_user_watches=500000"),
        ("net.ipv4.tcp_mem", 71000, 'sysctl -w net.ipv4.tcp_mem="36000 48000 72000"'),
        ("net.netfilter.nf_conntrack_max", 100_000, "sysctl -w net.netfilter.nf_conntrack_max=100536"),
        ("net.ipv4.ip_local_port_range", 60000, 'sysctl -w net.ipv4.ip_local_port_range="1024 65535"'),
        (
            "net.ipv4.ip_local_port_range",
            100_000,
            'sysctl -w net.ipv4.ip_local_port_range="1024 65535"  (and connect from 2 source addresses)',
        ),
        ("memory available", 2 * GIB // 4096, "no setting: 4.0 GiB of available memory, or less queued"),
    ],
)
def test_what_raises_it(name, wanted, remedy):
    assert limits_of()[name].remedy(wanted) == remedy


def test_the_cgroup_above_bounds_the_one_below():
    group = machine.cgroup_memory(MADE_UP.get)
    assert group.limit_file == "/sys/fs/cgroup/app.slice/memory.max"
    assert (group.limit_bytes, group.used_bytes) == (GIB, GIB // 4)


def test_a_container_sees_only_its_part_of_cgroup_v1():
    files = {
        "/proc/self/cgroup": "4:memory:/docker/abc\n1:name=systemd:/docker/abc\n0::/docker/abc\n",
        "/proc/self/mountinfo": (
            "40 30 0:27 /docker/abc /sys/fs/cgroup/systemd ro - cgroup cgroup rw,xattr,name=systemd\n"
            "41 30 0:28 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
        ),
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes": "136870912\n",
        "/sys/fs/cgroup/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 100000000\n",
    }
    group = machine.cgroup_memory(files.get)
    assert group == machine.CgroupMemory(
        "/sys/fs/cgroup/memory/memory.limit_in_bytes", 536870912, 36870912
    )


def test_a_cgroup_v1_without_a_limit_writes_a_huge_one():
    files = {
        "/proc/self/cgroup": "4:memory:/\n",
        "/proc/self/mountinfo": "41 30 0:28 / /cg/memory rw - cgroup cgroup rw,memory\n",
        "/cg/memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    assert machine.cgroup_memory(files.get).room_bytes is None


def test_a_cgroup_outside_the_mount_is_taken_for_the_mount():
    files = {
        "/proc/self/cgroup": "0::/../../other\n",
        "/proc/self/mountinfo": "41 30 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "/sys/fs/cgroup/memory.max": "4096\n",
    }
    assert machine.cgroup_memory(files.get).limit_bytes == 4096


def test_a_machine_that_shows_nothing_is_unknown_and_not_unlimited():
    limits = linux_limits({}.get, None, None)
    by_name = {limit.name: limit for limit in limits}
    assert {limit.connections for limit in limits} == {None}
    assert {limit.remedy(10**6) for limit in limits} == {""}
    assert by_name["descriptors, hard limit"].shown == "none"
    assert by_name["net.ipv4.tcp_mem"].shown == "unknown"
    assert "net.netfilter.nf_conntrack_max" not in by_name
    assert machine.first_to_bite(limits, SERVER) is None
    assert machine.below(limits, CLIENT, 10**9) == []


def test_idle_connections_are_not_charged_to_tcp_mem():
    idle = limits_of(queued_bytes=0)
    assert idle["net.ipv4.tcp_mem"].connections is None
    assert idle["memory available"].connections == 2 * GIB // 4096


def test_one_byte_queued_takes_a_page():
    assert limits_of(queued_bytes=1)["net.ipv4.tcp_mem"].connections == 35000
    assert limits_of(queued_bytes=4097)["net.ipv4.tcp_mem"].connections == 17500


def test_conntrack_without_an_entry_tracks_nothing():
    row = limits_of({"/proc/sys/net/netfilter/nf_conntrack_count": "0\n"})["net.netfilter.nf_conntrack_max"]
    assert (row.value, row.connections) == (65536, None)


def test_syn_cookies_switch_the_syn_backlog_off():
    row = limits_of({"/proc/sys/net/ipv4/tcp_syncookies": "1\n"})["net.ipv4.tcp_max_syn_backlog"]
    assert (row.value, row.connections) == (512, None)


def test_what_is_used_up_allows_nothing_and_not_less():
    files = {"/proc/sys/fs/file-max": "1000\n", "/proc/sys/fs/file-nr": "1500 0 1000\n"}
    limits = limits_of(files, soft=8)
    assert limits["fs.file-max"].connections == 0
    assert limits["descriptors, soft limit"].connections == 0


def test_ports_limit_a_load_generator_only():
    limits = limits_of(soft=100_000, hard=100_000).values()
    assert "net.ipv4.ip_local_port_range" not in [limit.name for limit in machine.below(limits, SERVER, 10**9)]
    assert machine.first_to_bite(limits, CLIENT).name == "net.ipv4.ip_local_port_range"
    assert machine.first_to_bite(limits, SERVER).name == "net.ipv4.tcp_mem"


def test_a_short_queue_is_no_limit_of_connections():
    limits = limits_of().values()
    assert machine.first_to_bite(limits, SERVER).name == "descriptors, soft limit"
    assert machine.below(limits, SERVER, 500) == []


def test_reserved_ports_count_within_the_range_only():
    assert machine.reserved_ports("", 1000, 2000) == 0
    assert machine.reserved_ports("999-1001,1500,1999-2001\n", 1000, 2000) == 5
    assert machine.reserved_ports("1-10", 1000, 2000) == 0


@pytest.mark.parametrize("text", [None, "", "max\n", "-1\n", "1 x"])
def test_what_is_no_number_is_none(text):
    assert machine.integers(text) is None


def test_windows():
    limits = {row.name: row for row in windows_limits(PerformanceInfo(8 * GIB, 4 * GIB, GIB, 50_000), 4096)}
    assert limits["non-paged pool"].connections == 4 * GIB // 8192
    assert limits["non-paged pool"].note.startswith("1.0 GiB in use now")
    assert limits["dynamic port range"].connections == 16384
    assert limits["dynamic port range"].remedy() == "netsh int ipv4 set dynamicport tcp start=1025 num=64510"
    assert machine.first_to_bite(limits.values(), CLIENT).name == "dynamic port range"
    assert machine.first_to_bite(limits.values(), SERVER).name == "non-paged pool"


def test_windows_that_does_not_tell_its_pool():
    limits = {row.name: row for row in windows_limits(PerformanceInfo(8 * GIB, 4 * GIB, 0, 50_000))}
    assert limits["non-paged pool"].note.startswith("in use now: unknown")


def test_another_system_is_refused(monkeypatch):
    monkeypatch.setattr(machine.sys, "platform", "plan9")
    with pytest.raises(machine.UnsupportedSystem, match="plan9"):
        machine.probe()
