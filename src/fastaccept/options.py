"""Options: what a server is given, checked at the door. Every message names the option, what was given and what is allowed."""

from __future__ import annotations

from fastaccept.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Union

__all__ = ["Limits", "Timeouts"]

CONNECTIONS_MAX = 2**31 - 1
BYTES_MAX = 2**62
# The system cuts this down to what it allows (listen(2): net.core.somaxconn), so the default is "as many as may wait".
BACKLOG_MAX = 65535
WHEN_FULL = ("queue", "refuse", "reject")
PAUSE_MODES = ("refuse", "queue")
SPIN_MAX_US = 1_000_000  # as long as signals may have to wait
# More than fits into any send buffer would not arrive: a rejected client gets one non-blocking send.
REJECT_MESSAGE_MAX = 65536


def check_int(name: str, value: Any, low: int, high: int, also: str = "") -> int:
    """Return value if it is an int within low..high; raise TypeError or ValueError that says what is allowed."""
    allowed = f"an int in {low}..{high}{also}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; allowed is {allowed}")
    if not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; allowed is {allowed}")
    return value


def check_spin(value: Any) -> Optional[int]:
    """Return spin_us as the loop takes it: None for "auto"; raise TypeError or ValueError for what is not allowed."""
    return None if value == "auto" else check_int("spin_us", value, 0, SPIN_MAX_US, ', or "auto"')


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Return value if it is one of the choices; raise ValueError that names them."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; allowed are {', '.join(map(repr, choices))}")
    return value


def check_callback(name: str, value: Any) -> Any:
    """Return value if it is None or callable; raise TypeError."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} is {value!r}; allowed is a callable or None")
    return value


class Limits(Record):
    """How much a server takes on.

    Args:
        max_connections: connections accepted and not yet released, exactly: an int in 1..2**31-1, None for no limit, or "auto"
            (default): 90 % of the descriptors that are free when listening begins, `reserve_fds` taken off, after the soft limit
            was raised to the hard one (getrlimit(2), RLIMIT_NOFILE). Windows has no such limit: there it is what
            `max_kernel_memory` leaves, or 90 % of the free memory if that is less, at 8 KiB a connection (an estimate).
        resume_at: when full, accept again once so few are open: an int in 0..max_connections-1, or a float in 0..1 as a share of
            max_connections. Default None: max_connections - 1, so that nobody waits while a slot is free.
        reserve_fds: descriptors, 0..2**20, default 32, that are left free for the application's own files; when only these are left,
            it is as if there were none. Linux only: Windows has no such limit.
        write_high_water: bytes, 1..2**62, default 64 KiB: with more than that waiting on a connection, write() returns False and
            reading from it pauses; on_drain is called at a quarter of it.
        max_write_buffer: bytes, 1..2**62, default 16 MiB: with so many waiting on a connection, the next write aborts it.
        max_write_buffer_total: bytes, 1..2**62, default 1 GiB: the same, counted over the whole server.
        max_kernel_memory: accepting pauses while the kernel holds so much for TCP, over all processes, and goes on when it has fallen
            1/16 below: a float over 0 and up to 1 (default 0.9) as a share of the most that it may hold, an int in 1..2**62 as
            bytes, or None for no limit. Linux: "mem" of /proc/net/sockstat against the third number of net.ipv4.tcp_mem (tcp(7)),
            which a container may not be shown; then a share has no effect, and bytes have. Windows: the non-paged pool, whose
            most is taken to be 75 % of the memory, and 128 GiB ("Memory Limits for Windows and Windows Server Releases").
    Raises:
        TypeError, ValueError: an option is out of its range.
    """

    max_connections: Union[int, str, None] = "auto"
    resume_at: Union[int, float, None] = None
    reserve_fds: int = 32
    write_high_water: int = 65536
    max_write_buffer: int = 16 * 2**20
    max_write_buffer_total: int = 2**30
    max_kernel_memory: Union[int, float, None] = 0.9

    def __post_init__(self) -> None:
        if self.max_connections is not None and self.max_connections != "auto":
            check_int("max_connections", self.max_connections, 1, CONNECTIONS_MAX, ', None, or "auto"')
        self._check_resume_at()
        check_int("reserve_fds", self.reserve_fds, 0, 2**20)
        for name in ("write_high_water", "max_write_buffer", "max_write_buffer_total"):
            check_int(name, getattr(self, name), 1, BYTES_MAX)
        self._check_max_kernel_memory()
        if self.max_write_buffer < self.write_high_water:
            raise ValueError(
                f"max_write_buffer is {self.max_write_buffer}; allowed is write_high_water ({self.write_high_water}) or more"
            )

    def _check_resume_at(self) -> None:
        if self.resume_at is None:
            return
        if isinstance(self.resume_at, float):
            if not 0 <= self.resume_at < 1:
                raise ValueError(f"resume_at is {self.resume_at!r}; allowed is an int, or a float in 0..1 (1 not included)")
            return
        high = self.max_connections - 1 if isinstance(self.max_connections, int) else CONNECTIONS_MAX
        check_int("resume_at", self.resume_at, 0, high, ", or a float in 0..1")

    def _check_max_kernel_memory(self) -> None:
        value, also = self.max_kernel_memory, ", a float over 0 and up to 1, or None"
        if isinstance(value, float):
            if not 0 < value <= 1:
                raise ValueError(f"max_kernel_memory is {value!r}; allowed is an int in 1..{BYTES_MAX}{also}")
        elif value is not None:
            check_int("max_kernel_memory", value, 1, BYTES_MAX, also)

    def marks(self, max_connections: Optional[int]) -> tuple[Optional[int], Optional[int]]:
        """Return (high, low) for a maximum that is a number or None: pause at high, resume at low."""
        if max_connections is None:
            return None, None
        low: int = max_connections - 1
        if isinstance(self.resume_at, float):
            low = int(max_connections * self.resume_at)
        elif self.resume_at is not None:
            low = self.resume_at
        return max_connections, min(low, max_connections - 1)


class Timeouts(Record):
    """How long a server waits. All in seconds, as int or float, over 0 and up to 2,000,000 (23 days); None = for ever.

    Args:
        idle: without a byte in either direction (default None); the connection is closed.
        first_byte: from accepting to the first byte received (default None); the connection is aborted.
        write_stall: without progress while bytes wait to be sent (default None); the connection is aborted.
        close: from close() without progress until all is sent and the peer has closed too (default 30); then it is aborted.
        connect: for connect() (default None).
        drain: what drain() and the signals of serve_forever() take when no other time is given (default 30).
    Each end by a timeout gives on_close a TimeoutError that names it. A timeout is never early, and late by one turn of the loop.
    Raises:
        TypeError, ValueError: a time is out of its range.
    """

    idle: Optional[float] = None
    first_byte: Optional[float] = None
    write_stall: Optional[float] = None
    close: Optional[float] = 30.0
    connect: Optional[float] = None
    drain: Optional[float] = 30.0

    def __post_init__(self) -> None:
        for name in ("idle", "first_byte", "write_stall", "close", "connect", "drain"):
            check_seconds(name, getattr(self, name))


def check_seconds(name: str, value: Any, low: float = 0.0) -> Optional[float]:
    """Return value if it is None or a number of seconds over low (or equal, where low is not 0)."""
    if value is None:
        return None
    allowed = "a number of seconds over 0 and up to 2000000, or None"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is {value!r}; allowed is {allowed}")
    if not low < value <= 2_000_000:
        raise ValueError(f"{name} is {value!r}; allowed is {allowed}")
    return value


def to_ms(seconds: Optional[float]) -> int:
    """Return seconds in whole milliseconds, at least 1; 0 for None."""
    return 0 if seconds is None else max(1, round(seconds * 1000))


def check_instance(name: str, value: Any, kind: type) -> Any:
    """Return value, or a kind() for None; raise TypeError for anything that is not a kind."""
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {value!r}; allowed is a fastaccept.{kind.__name__} or None")
    return value


def check_reject_message(value: Any) -> None:
    """Raise TypeError or ValueError for what can't be sent to a rejected client."""
    if not isinstance(value, (bytes, bytearray)):
        raise TypeError(f"reject_message is {value!r}; allowed is bytes")
    if len(value) > REJECT_MESSAGE_MAX:
        raise ValueError(f"reject_message has {len(value)} bytes; allowed are up to {REJECT_MESSAGE_MAX}")
