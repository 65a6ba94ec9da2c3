"""Listeners: what users see of a listening socket that a server has taken over."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

__all__ = ["Listener"]


class Listener:
    """A listening socket of a server. Made by Server.listen(), listen_unix() and adopt().

    Threads: any.
    """

    def __init__(self, server: Any, number: int, address: Any, family: int, unix_path: Optional[str] = None) -> None:
        self._server = server
        self._number = number
        self._is_closed = False
        self._unix_path = unix_path
        self._unix_inode = os.stat(unix_path).st_ino if unix_path else None
        self.address = address
        self.family = family

    @property
    def port(self) -> int:
        """The port, 0 for a Unix-domain socket."""
        return self.address[1] if isinstance(self.address, tuple) else 0

    @property
    def state(self) -> str:
        """"accepting", "full", "throttled", "paused", "draining" or "closed"."""
        return self._look()[0]

    @property
    def reasons(self) -> frozenset[str]:
        """Why it does not accept: a set of "limit", "resources", "memory", "user", "drain"; empty exactly when it accepts."""
        return self._look()[1]

    @property
    def queued(self) -> Optional[int]:
        """Clients in the kernel's queue; None where the system does not tell (Windows, Unix-domain sockets, while refusing)."""
        return self._look()[2]

    @property
    def backlog(self) -> Optional[int]:
        """How many that queue holds; None where the system does not tell."""
        return self._look()[3]

    def close(self) -> None:
        """Close the listening socket. Clients in its queue are reset; connections that came by it live on."""
        self._server._close_listener(self)

    def _look(self) -> tuple[str, frozenset[str], Optional[int], Optional[int]]:
        if self._is_closed:
            return "closed", frozenset(), None, None
        return self._server._loop.listener_state(self._number)

    def _forget(self) -> None:
        """The socket is gone. The file of a Unix-domain socket goes too, if it is still the one that we made."""
        self._is_closed = True
        if self._unix_path is None:
            return
        try:
            if os.stat(self._unix_path).st_ino == self._unix_inode:
                os.unlink(self._unix_path)
        except OSError:
            pass

    def __repr__(self) -> str:
        return f"<fastaccept.Listener {self.address} {self.state}>"
