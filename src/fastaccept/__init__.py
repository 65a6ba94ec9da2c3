"""fastaccept: a TCP server core that never gets stuck at its limits.

    import fastaccept

    with fastaccept.Server(on_data=lambda conn, data: conn.write(data)) as server:
        server.listen("127.0.0.1", 7000)
        server.serve_forever()
"""

from fastaccept._connection import Connection
from fastaccept.errors import ConnectionClosed, ErrorEvent, ServerClosed, WriteBufferFull
from fastaccept.listeners import Listener
from fastaccept.options import Limits, Timeouts
from fastaccept.server import Server
from fastaccept.stats import DrainResult, Stats

__all__ = [
    "Connection",
    "ConnectionClosed",
    "DrainResult",
    "ErrorEvent",
    "Limits",
    "Listener",
    "Server",
    "ServerClosed",
    "Stats",
    "Timeouts",
    "WriteBufferFull",
]
__version__ = "0.1.0"
