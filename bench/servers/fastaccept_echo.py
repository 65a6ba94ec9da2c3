"""fastaccept: a Python callback per message."""

from __future__ import annotations

from common import announce, argument_parser

import fastaccept


def echo(conn: fastaccept.Connection, data: bytes) -> None:
    conn.write(data)


def keep_context(conn: fastaccept.Connection) -> None:
    conn.context = [0]


def main() -> None:
    parser = argument_parser("fastaccept echo server")
    add = parser.add_argument
    add("--max-connections", type=int, default=None, help="default: no limit of its own")
    add("--when-full", choices=("queue", "refuse", "reject"), default="queue")
    add("--reject-message", default="", help="what a rejected client is told")
    add("--spin-us", type=int, help="poll without sleeping for so long before blocking; default: as the server finds it worth")
    add("--keep-context", action="store_true", help="a small context on each connection")
    options = parser.parse_args()
    if options.port == 0:
        parser.error("the port must be given")

    # Only what was asked for is passed, so the default server is the one of the README.
    extra: dict[str, object] = {}
    if options.max_connections is not None:
        extra["when_full"] = options.when_full
    if options.reject_message:
        extra["reject_message"] = options.reject_message.encode()
    if options.spin_us is not None:
        extra["spin_us"] = options.spin_us
    if options.keep_context:
        extra["on_connect"] = keep_context
    limits = fastaccept.Limits(max_connections=options.max_connections)
    with fastaccept.Server(on_data=echo, limits=limits, **extra) as server:
        server.listen("127.0.0.1", options.port, backlog=options.backlog)
        announce(options.port)
        server.serve_forever()


if __name__ == "__main__":
    main()
