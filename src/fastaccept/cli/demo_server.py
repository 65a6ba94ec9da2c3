"""The server of `fastaccept demo`: an echo server in a process of its own that does what it is told by lines of JSON on stdin and
answers each with one on stdout."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import sys
import threading
import time
from typing import Any

import fastaccept

if sys.platform != "win32":
    import resource


class DemoServer:
    def __init__(self) -> None:
        self.events = 0
        self.pauses = 0
        self.server: Any = None
        self.port = 0

    def open(self, max_connections: int | None, when_full: str, reject_message: str) -> dict[str, Any]:
        """Begin anew with other options; on the same port, so that clients can be told once."""
        if self.server is not None:
            self.server.close()
        self.events = self.pauses = 0
        self.server = fastaccept.Server(
            on_data=lambda conn, data: conn.write(data),
            on_error=self.count_event,
            on_pause=self.count_pause,
            limits=fastaccept.Limits(max_connections=max_connections, reserve_fds=0),
            when_full=when_full,
            reject_message=reject_message.encode(),
        )
        self.port = self.server.listen("127.0.0.1", self.port)[0].port
        self.server.start()
        return {"port": self.port}

    def count_event(self, event: Any) -> None:
        self.events += 1

    def count_pause(self, listener: Any, reasons: Any) -> None:
        self.pauses += 1

    def look(self) -> dict[str, Any]:
        """Figures of the server and of the process."""
        listener = self.server.listeners[0]
        return {
            **dataclasses.asdict(self.server.stats()),
            "state": listener.state, "reasons": sorted(listener.reasons), "events": self.events, "on_pause": self.pauses,
            "cpu_s": time.process_time(), "at_s": time.monotonic(), "private_bytes": private_bytes(),
        }  # fmt: skip

    def descriptors(self, free: int | None) -> dict[str, Any]:
        """Leave so many descriptors free by the soft limit; None = as many as there may be."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        soft = hard if free is None else self.server.stats().descriptors + free
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return {"soft": soft}

    def pause(self) -> dict[str, Any]:
        self.server.pause()
        return {}

    def resume(self) -> dict[str, Any]:
        self.server.resume()
        return {}


def private_bytes() -> int:
    """Memory that is this process's alone, 0 where it can't be had."""
    if sys.platform == "win32":
        return windows_private_bytes()
    try:
        with open("/proc/self/smaps_rollup", encoding="ascii") as file:
            return 1024 * next(int(line.split()[1]) for line in file if line.startswith("Private_Dirty"))
    except OSError:
        return 0


def windows_private_bytes() -> int:
    """The commit charge: PagefileUsage of PROCESS_MEMORY_COUNTERS, which is two DWORDs and eight SIZE_Ts.
    https://learn.microsoft.com/windows/win32/api/psapi/ns-psapi-process_memory_counters"""
    kernel32 = ctypes.WinDLL("kernel32")
    counters = (ctypes.c_size_t * 9)()
    process = ctypes.c_void_p(kernel32.GetCurrentProcess())
    done = kernel32.K32GetProcessMemoryInfo(process, counters, ctypes.sizeof(counters))
    return counters[7] if done else 0


def main() -> None:
    demo = DemoServer()
    threading.current_thread().name = "control"
    try:
        for line in sys.stdin:
            name, options = json.loads(line)
            print(json.dumps(getattr(demo, name)(**options)), flush=True)
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    if demo.server is not None:
        demo.server.close()


if __name__ == "__main__":
    main()
