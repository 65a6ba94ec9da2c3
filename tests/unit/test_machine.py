"""Ensures that doctor makes sense of machines that are not this one."""

from fastaccept.cli import machine

FILES = {
    "/proc/sys/fs/nr_open": "1048576",
    "/proc/sys/fs/file-max": "9223372036854775807",
    "/proc/sys/net/core/somaxconn": "128",
    "/proc/sys/net/ipv4/tcp_max_syn_backlog": "256",
    "/proc/sys/net/ipv4/ip_local_port_range": "32768\t60999",
    "/proc/sys/net/ipv4/tcp_mem": "100 200 300",
    "/proc/meminfo": "MemTotal: 2000 kB\nMemAvailable: 1000 kB",
    "/proc/self/cgroup": "0::/app",
    "/sys/fs/cgroup/app/memory.max": "8192000",
    "/sys/fs/cgroup/app/memory.current": "192000",
}


def limits(files=FILES, descriptors=(1024, 4096)):
    return {limit.name: limit for limit in machine.linux_limits(files.get, descriptors)}


def test_each_limit_and_the_connections_that_it_allows():
    found = limits()
    assert found["descriptors, soft limit"].connections == 1024 and found["descriptors, soft limit"].raise_it == "ulimit -n 4096"
    assert found["descriptors, hard limit"].connections == 4096
    assert found["net.ipv4.ip_local_port_range"].connections == 28232 and found["net.ipv4.ip_local_port_range"].who == "client"
    assert found["net.ipv4.tcp_mem"].raise_it == 'sysctl -w net.ipv4.tcp_mem="200 400 600"'
    assert found["memory available"].connections == 1000 * 1024 // 4096
    assert found["cgroup memory"].connections == 8_000_000 // 4096
    assert found["net.core.somaxconn"].connections is None


def test_soft_limit_is_left_out_when_it_can_not_be_raised():
    assert "descriptors, soft limit" not in limits(descriptors=(4096, 4096))


def test_machine_that_tells_nothing():
    assert list(limits(files={})) == ["descriptors, soft limit", "descriptors, hard limit"]


def test_cgroup_without_a_limit_is_none():
    assert "cgroup memory" not in limits({**FILES, "/sys/fs/cgroup/app/memory.max": "max"})
