"""Backends: the one choice of a platform in the package."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from fastaccept._iocp import IocpBackend as DefaultBackend
elif sys.platform.startswith("linux"):
    from fastaccept._epoll import EpollBackend as DefaultBackend
else:
    raise ImportError(f"fastaccept runs on Linux and Windows, not on {sys.platform}")

__all__ = ["DefaultBackend"]
