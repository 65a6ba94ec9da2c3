"""Errors: what is raised, what on_close is given, and what on_error is told."""

from __future__ import annotations

import errno
import os
import sys

from fastaccept.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

__all__ = ["ConnectionClosed", "ErrorEvent", "ServerClosed", "WriteBufferFull"]


class ConnectionClosed(ConnectionError):
    """An operation on a connection that is closed, or that close() or shutdown_write() has ended for writing."""


class ServerClosed(RuntimeError):
    """An operation on a server that is closed."""


class WriteBufferFull(ConnectionError):
    """A connection was aborted because more waited to be written than `Limits.max_write_buffer` or `max_write_buffer_total` allow:
    its peer does not read, and the application went on writing after write() had returned False."""


class ErrorEvent(Record):
    """What on_error is called with. str() of it is one line, made without opening a file.

    Attributes:
        operation: what failed: "accept", "listen", or the name of the callback that raised.
        exception: an OSError with errno (and winerror on Windows), or what the callback raised.
        connection: the Connection concerned, or None.
        listener: the Listener concerned, or None.
        action: what the server does about it: "paused", "listener closed", "connection aborted", "ignored".
        retry_in_s: seconds until accepting is tried again if nothing is released before; None where that does not apply.
        count: failures since start with this operation.
        suppressed: failures since the last event of this operation that were not reported by one of their own.
        active: connections open now.
        queued: clients that wait in the kernel's queue; None where the system does not tell.
    """

    operation: str
    exception: BaseException
    connection: Optional[Any] = None
    listener: Optional[Any] = None
    action: str = "ignored"
    retry_in_s: Optional[float] = None
    count: int = 1
    suppressed: int = 0
    active: int = 0
    queued: Optional[int] = None

    def __str__(self) -> str:
        what = str(self.exception) if isinstance(self.exception, OSError) else repr(self.exception)
        text = f"{self.operation} failed: {what}; {self.action}, {self.active:,} active"
        if self.queued is not None:
            text += f", {self.queued:,} queued"
        if self.retry_in_s is not None:
            text += f", next try in {self.retry_in_s:g} s at the latest"
        if self.suppressed:
            text += f", {self.suppressed:,} more since the last report"
        return text


# By end_cause_t of _connection.pxd, from END_BY_IDLE on.
_TIMEOUTS = {
    2: "idle for longer than Timeouts.idle",
    3: "no byte came within Timeouts.first_byte",
    4: "the peer took nothing for Timeouts.write_stall",
    5: "the peer did not take the rest within Timeouts.close of close()",
    6: "not connected within Timeouts.connect",
}


if sys.platform == "win32":
    from fastaccept.winerrors import loop_errno, os_error, python_errno
else:

    def python_errno(code: int) -> int:
        """Return the errno module's number for an error code of the loop."""
        return code

    def loop_errno(number: int) -> int:
        """Return the loop's error code for one of the errno module's numbers."""
        return number

    def os_error(code: int) -> OSError:
        """Return the OSError (of the subclass that Python gives that errno) for an error code of the loop."""
        return OSError(code, os.strerror(code))


def reworded(error: OSError, text: str) -> OSError:
    """Return an OSError with the same errno, and winerror where there is one, and another text."""
    winerror = getattr(error, "winerror", None)
    return OSError(error.errno, text) if winerror is None else OSError(0, text, None, winerror)


def close_error(cause: int, code: int) -> Optional[BaseException]:
    """Return what on_close is given for a connection's end: cause is an end_cause_t, code an errno."""
    if cause == 0:
        return None
    if cause == 1:
        return os_error(code)
    if cause in _TIMEOUTS:
        return TimeoutError(errno.ETIMEDOUT, _TIMEOUTS[cause])
    if cause == 7:
        return WriteBufferFull(errno.ENOBUFS, "more waited to be written than the limit allows")
    reasons = {8: "a callback raised", 9: "the deadline of drain() passed", 10: "the server was closed before all was sent"}
    return ConnectionAbortedError(errno.ECONNABORTED, reasons[cause])
