"""trio: serve_listeners, one task per connection, receive_some and send_all of SocketStream."""

import trio
from common import READ_BYTES, announce, argument_parser, open_listener


async def echo(stream: trio.SocketStream) -> None:
    try:
        while data := await stream.receive_some(READ_BYTES):
            await stream.send_all(data)
    except trio.BrokenResourceError:
        pass  # the peer has gone


async def main(port: int, backlog: int) -> None:
    listener = open_listener(port, backlog)
    announce(listener.getsockname()[1])
    await trio.serve_listeners(echo, [trio.SocketListener(trio.socket.from_stdlib_socket(listener))])


if __name__ == "__main__":
    options = argument_parser("trio echo server").parse_args()
    trio.run(main, options.port, options.backlog)
