"""Twisted: a Protocol on the epoll reactor."""

import socket

from common import announce, argument_parser, open_listener
from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import protocol, reactor  # noqa: E402


class Echo(protocol.Protocol):
    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


def main() -> None:
    options = argument_parser("Twisted echo server").parse_args()
    listener = open_listener(options.port, options.backlog)
    reactor.adoptStreamPort(listener.fileno(), socket.AF_INET, protocol.Factory.forProtocol(Echo))
    port = listener.getsockname()[1]
    listener.close()
    reactor.callWhenRunning(announce, port)
    reactor.run()


if __name__ == "__main__":
    main()
