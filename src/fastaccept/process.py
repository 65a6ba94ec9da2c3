"""Process: what a server does with the process that it runs in: its signals, and its end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

# How people and service managers ask a program to end; SIGBREAK is Ctrl-Break, on Windows only.
_END_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]


@contextmanager
def drain_on_signals(drain: Callable[[], None]) -> Iterator[None]:
    """Have drain() called by the signals that end a program, where it has no handler of its own for them. Main thread only."""
    replaced: list[tuple[int, Any]] = []
    for number in _END_SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            replaced.append((number, signal.signal(number, lambda *_: drain())))
    try:
        yield
    finally:
        for number, handler in replaced:
            signal.signal(number, handler)


# Servers with a thread of their own: they stop before the interpreter's end, so that none runs into it.
_started: Any = None


def close_at_exit(server: Any) -> None:
    """Have a server closed when the program ends, if it is still there and open."""
    global _started
    if _started is None:
        import atexit
        import weakref

        _started = weakref.WeakSet()
        atexit.register(_close_started)
    _started.add(server)


def _close_started() -> None:
    for server in list(_started):
        server.close()
