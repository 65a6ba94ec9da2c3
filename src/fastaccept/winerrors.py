"""Errors as Windows has them: the seam's codes become the OSError that Python itself would raise there. Imported on Windows only.

An error code of the seam is the C library's errno, with the number of Winsock or of the system above its low byte. Python's errno
module knows the socket errors by Winsock's numbers instead (errno.ECONNRESET is 10054), and so do `except ConnectionResetError`
and its like. A system number such as 64 (ERROR_NETNAME_DELETED), which is how a completion says "reset", would make a plain
OSError, so the class goes by the errno, and winerror tells the number.
"""

from __future__ import annotations

import errno
import os
from _ctypes import FormatError  # what ctypes.FormatError is, without the rest of it

__all__ = ["loop_errno", "os_error", "python_errno"]

# Of the C library's errno.h, from 100 on; below, Python's are the same.
_NAMES = {
    100: "EADDRINUSE", 101: "EADDRNOTAVAIL", 102: "EAFNOSUPPORT", 103: "EALREADY", 105: "ECANCELED", 106: "ECONNABORTED",
    107: "ECONNREFUSED", 108: "ECONNRESET", 109: "EDESTADDRREQ", 110: "EHOSTUNREACH", 112: "EINPROGRESS", 113: "EISCONN",
    115: "EMSGSIZE", 116: "ENETDOWN", 117: "ENETRESET", 118: "ENETUNREACH", 119: "ENOBUFS", 123: "ENOPROTOOPT", 126: "ENOTCONN",
    128: "ENOTSOCK", 130: "EOPNOTSUPP", 134: "EPROTO", 135: "EPROTONOSUPPORT", 136: "EPROTOTYPE", 138: "ETIMEDOUT", 140: "EWOULDBLOCK",
}  # fmt: skip
_CODES = {getattr(errno, name): code for code, name in _NAMES.items() if hasattr(errno, name)}


def python_errno(code: int) -> int:
    """Return the errno module's number for an error code."""
    number = code & 0xFF
    return getattr(errno, _NAMES.get(number, ""), number)


def loop_errno(number: int) -> int:
    """Return the error code for one of the errno module's numbers."""
    return _CODES.get(number, number)


def os_error(code: int) -> OSError:
    """Return the OSError (of the subclass that goes with its errno) for an error code, with the winerror if it has one."""
    number, system = python_errno(code), code >> 8
    error = OSError(number, FormatError(system).strip() if system else os.strerror(number))
    if system:
        error.winerror = system
    return error
