"""fastaccept serve: a server to try things on, with the limits and policies as options and a line that says how it stands."""

from __future__ import annotations

import argparse
import time
from typing import Any

from fastaccept.cli import options
from fastaccept.cli.terminal import StatusLine, format_bytes, format_count, format_duration

CHARGEN_CHUNK = bytes(33 + (row + column) % 94 for row in range(95) for column in range(72))  # RFC 864, without line ends


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("serve", help="run a server", description="Run a server until Ctrl-C.")
    parser.add_argument("--host", default="127.0.0.1", help="address or name to listen on")
    parser.add_argument("--port", type=options.port, default=7000, help="port to listen on, 0 = any that is free")
    parser.add_argument("--unix", metavar="PATH", help="listen on a Unix-domain socket instead")
    parser.add_argument("--service", choices=("echo", "discard", "chargen"), default="echo", help="what it does with a client")
    parser.add_argument("--backlog", type=options.count, default=65535, help="clients that may wait in the kernel's queue")
    parser.add_argument(
        "--max-connections", type=options.limit, default="auto",
        help='connections at once: a number, "none", or "auto" = 90 %% of what the descriptors (Windows: the memory) allow',
    )  # fmt: skip
    parser.add_argument("--resume-at", type=options.count, help="when full, accept again at so many connections")
    parser.add_argument("--reserve-fds", type=int, default=32, help="descriptors to leave free")
    parser.add_argument(
        "--when-full", choices=("queue", "refuse", "reject"), default="queue", help="what a client beyond the limit meets"
    )
    parser.add_argument("--reject-message", default="", help="what --when-full reject says before it closes")
    parser.add_argument("--idle-timeout", type=options.seconds, help="seconds without a byte, then the connection is closed")
    parser.add_argument("--drain", type=options.seconds, default=5.0, help="seconds that Ctrl-C lets connections finish; again = now")
    parser.add_argument("--every", type=options.seconds, default=5.0, help="seconds between status lines in a pipe")
    parser.add_argument("--quiet", action="store_true", help="no status line")


def run(args: argparse.Namespace) -> int:
    import fastaccept

    server = fastaccept.Server(
        **_service(args.service),
        limits=fastaccept.Limits(
            max_connections=args.max_connections, resume_at=args.resume_at, reserve_fds=args.reserve_fds
        ),
        timeouts=fastaccept.Timeouts(idle=args.idle_timeout, drain=args.drain),
        when_full=args.when_full,
        reject_message=args.reject_message.encode(),
    )
    with server, StatusLine(every_s=args.every) as line:
        if args.unix:
            listeners = [server.listen_unix(args.unix, backlog=min(args.backlog, 65535))]
        else:
            listeners = server.listen(args.host, args.port, backlog=min(args.backlog, 65535))
        for listener in listeners:
            line.print(f"{args.service} on {_where(listener.address)}, limit {_limit(server)}, when full: {args.when_full}")
        if not args.quiet:
            server.call_later(0, _show_status, server, line, time.monotonic(), time.monotonic(), 0)
        result = server.serve_forever()
        line.close()
        if result is not None:
            print(f"drained: {result.finished} finished, {result.aborted} aborted")
    return 0


def _service(name: str) -> dict[str, Any]:
    if name == "echo":
        return {"on_data": lambda conn, data: conn.write(data)}
    if name == "discard":
        return {"on_data": lambda conn, data: None}

    def generate(conn: Any) -> None:
        while conn.write(CHARGEN_CHUNK):
            pass

    return {"on_connect": generate, "on_drain": generate}


def _where(address: Any) -> str:
    return f"{address[0]} port {address[1]}" if isinstance(address, tuple) else str(address)


def _limit(server: Any) -> str:
    limit = server.stats().limit
    return "none" if limit is None else format_count(limit)


def _show_status(server: Any, line: StatusLine, since_s: float, last_s: float, last_bytes: int) -> None:
    """Redraw the status, and have it redrawn again."""
    stats = server.stats()
    now = time.monotonic()
    moved = stats.bytes_received + stats.bytes_sent
    rate = (moved - last_bytes) / max(now - last_s, 1e-3)
    states = "/".join(sorted({listener.state for listener in server.listeners})) or "not listening"
    text = (
        f"{states}: {format_count(stats.active)} of {'any' if stats.limit is None else format_count(stats.limit)} connections, "
        f"{format_count(stats.accepted)} accepted, {format_bytes(rate)}/s, up {format_duration(now - since_s)}"
    )
    for name, value in (("queued", stats.queued), ("rejected", stats.rejected), ("errors", sum(stats.accept_errors.values()))):
        if value:
            text += f", {format_count(value)} {name}"
    line.update(text)
    server.call_later(0.1, _show_status, server, line, since_s, now, moved)
