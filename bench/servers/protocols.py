"""The echo as an asyncio protocol in both flavours, for every event loop that speaks asyncio.

A transport that cannot write stops reading, as a real server must; at the load's pace it never comes to that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from common import announce, argument_parser, open_listener

NewLoop = Callable[[], asyncio.AbstractEventLoop]
READ_BYTES = 256 * 1024  # what asyncio and uvloop take in one read


class Echo(asyncio.Protocol):
    """`data_received`: the loop makes a bytes object per read."""

    __slots__ = ("transport",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class BufferedEcho(asyncio.BufferedProtocol):
    """`get_buffer`: the loop reads into one buffer that all connections share.

    asyncio sends at once; when it could not send all, it may keep the view (3.12 and later), and the next
    read gets another buffer. uvloop keeps the view until the end of the turn, so there the bytes are copied;
    on rloop too, to be safe.
    """

    __slots__ = ("transport",)
    buffer = memoryview(bytearray(READ_BYTES))
    copy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return BufferedEcho.buffer

    def buffer_updated(self, nbytes: int) -> None:
        transport = self.transport
        if self.copy:
            transport.write(bytes(self.buffer[:nbytes]))
            return
        transport.write(self.buffer[:nbytes])
        if transport.get_write_buffer_size():
            BufferedEcho.buffer = memoryview(bytearray(READ_BYTES))

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


async def _serve(protocol: type, port: int, backlog: int) -> None:
    sock = open_listener(port, backlog)
    port = sock.getsockname()[1]  # before rloop takes the descriptor away
    # asyncio accepts up to `backlog` connections per wake, so the number matters here too.
    server = await asyncio.get_running_loop().create_server(protocol, sock=sock, backlog=backlog)
    announce(port)
    # Not serve_forever(): it would start rloop's server a second time, which closes its listening socket.
    await asyncio.get_running_loop().create_future()
    server.close()


def main(name: str, new_event_loop: NewLoop, best: str, *, copy: bool) -> None:
    """Run the echo on a loop.

    Args:
        name: what stands in the help text.
        new_event_loop: makes the loop.
        best: the flavour that was faster here, "protocol" or "buffered"; the README says how that was found.
        copy: the loop keeps what it is given beyond `write`.
    """
    parser = argument_parser(f"{name} echo server")
    parser.add_argument("--flavour", choices=("protocol", "buffered"), default=best)
    options = parser.parse_args()
    BufferedEcho.copy = copy
    loop = new_event_loop()
    asyncio.set_event_loop(loop)
    protocol = Echo if options.flavour == "protocol" else BufferedEcho
    loop.run_until_complete(_serve(protocol, options.port, options.backlog))
