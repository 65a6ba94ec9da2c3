"""What the numbers were taken on: printed first, and kept with every result."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterable


def _read(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return None


def _field(text: str | None, name: str) -> str | None:
    for line in (text or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _first_line(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return None
    return done.stdout.splitlines()[0] if done.stdout else None


def version_of(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _mitigations() -> str:
    """The CPU bugs that the kernel works around: they decide what a syscall costs."""
    folder = "/sys/devices/system/cpu/vulnerabilities"
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    active = [name for name in names if (_read(f"{folder}/{name}") or "").startswith("Mitigation")]
    return ", ".join(active) or "none"


def facts(distributions: Iterable[str], cores: tuple[int, int], compiler: str) -> dict[str, str]:
    """Return the machine as name and text, in the order in which it is to be read."""
    cpuinfo = _read("/proc/cpuinfo")
    system = "/sys/devices/system"
    governor = _read(f"{system}/cpu/cpu{cores[0]}/cpufreq/scaling_governor")
    clock = _read(f"{system}/clocksource/clocksource0/current_clocksource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    memory_kib = int((_field(_read("/proc/meminfo"), "MemTotal") or "0").split()[0])
    found = {
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "command": "python bench/run.py " + " ".join(sys.argv[1:]),
        "CPU": f"{_field(cpuinfo, 'model name') or platform.processor()}, {os.cpu_count()} cores"
        + (", virtual" if " hypervisor " in (_field(cpuinfo, "flags") or "") else ""),
        "cores used": f"server on {cores[0]}, load on {cores[1]}",
        "governor": governor or "unknown",
        "clock source": clock or "unknown",
        "mitigations": _mitigations(),
        "memory": f"{memory_kib / 2**20:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()),
        "C compiler": f"{_first_line(compiler, '--version') or compiler}, -O2",
        "load average before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "descriptors": f"{soft} soft, {hard} hard",
        "somaxconn": _read("/proc/sys/net/core/somaxconn") or "unknown",
        "Python": " ".join((platform.python_implementation(), platform.python_version())),
    }
    for distribution in distributions:
        found[distribution] = version_of(distribution) or "not installed"
    return found
