"""gevent: StreamServer, one greenlet per connection, the socket's own recv and sendall."""

from common import READ_BYTES, announce, argument_parser, open_listener
from gevent.server import StreamServer
from gevent.socket import socket


def echo(sock: socket, address: tuple[str, int]) -> None:
    try:
        while data := sock.recv(READ_BYTES):
            sock.sendall(data)
    except OSError:
        pass  # the peer has gone


def main() -> None:
    options = argument_parser("gevent echo server").parse_args()
    listener = open_listener(options.port, options.backlog)
    port = listener.getsockname()[1]
    own = socket(listener.family, listener.type, listener.proto, fileno=listener.detach())
    server = StreamServer(own, echo)
    server.start()
    announce(port)
    server.serve_forever()


if __name__ == "__main__":
    main()
