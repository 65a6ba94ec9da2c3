"""Stats: what a server tells about itself, as one snapshot, and of its end."""

from __future__ import annotations

from collections import namedtuple

from fastaccept.descriptors import descriptor_limit, descriptors_in_use
from fastaccept.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

__all__ = ["DrainResult", "Stats"]


class DrainResult(namedtuple("DrainResult", "finished aborted")):
    """What drain() came to: connections that finished by themselves, and those that the deadline cut."""

    __slots__ = ()
    finished: int
    aborted: int


class Stats(Record):
    """A snapshot of a server's figures. Totals count since the server was made.

    Attributes:
        active: accepted connections that are not released yet; what max_connections limits.
        limit: the connection limit in force; None = none.
        accepted: connections accepted and served.
        connected: outgoing connections that came about.
        closed: connections released, accepted and outgoing.
        rejected: clients accepted, told and closed by when_full="reject".
        refused_episodes: times that a listening socket was made to refuse.
        pauses: times that a listener went from accepting to paused.
        resumes: times that it went back.
        accept_calls: accept calls made, of any kind.
        accepts_abandoned: AcceptEx calls that failed for want of a resource, or were taken back (a pause that refuses, a listener
            that was closed), when they may have had a client already. That client was reset, so none is left believing that it is
            connected. 0 on Linux, where an accept has a client or has not.
        accept_errors: failures of accept, by errno.
        paused_s: seconds spent paused, by reason ("limit", "resources", "memory", "user", "drain"), of the listener that was paused
            longest.
        queued: clients in the kernel's queues of all listeners; None where the system does not tell.
        backlog: how many these queues hold; None where the system does not tell.
        descriptors: descriptors that the process has open; None where the system does not tell.
        descriptor_limit: the soft limit; None = none.
        kernel_memory: bytes that the kernel holds for TCP, over all processes (Limits.max_kernel_memory); None where it does not tell.
        kernel_memory_limit: bytes at which accepting pauses; None = none, or a share of what is not known.
        bytes_received, bytes_sent: bytes that went through connections.
        write_buffered_bytes: given to write() and not yet taken by the system, now.
        write_overflows: connections aborted for max_write_buffer or max_write_buffer_total.
        timeouts: connections ended by one of the Timeouts.
        callback_errors: exceptions that left a callback.
        stale_events: reports about connections that were gone: dropped.
        turns: passes of the loop.
        events: reports that the loop dealt with.
        user_space_bytes: memory held for connections, timers, write buffers and input of paused connections, in bytes, Python objects
            not included.
    """

    active: int
    limit: Optional[int]
    accepted: int
    connected: int
    closed: int
    rejected: int
    refused_episodes: int
    pauses: int
    resumes: int
    accept_calls: int
    accepts_abandoned: int
    accept_errors: dict[int, int]
    paused_s: dict[str, float]
    queued: Optional[int]
    backlog: Optional[int]
    descriptors: Optional[int]
    descriptor_limit: Optional[int]
    kernel_memory: Optional[int]
    kernel_memory_limit: Optional[int]
    bytes_received: int
    bytes_sent: int
    write_buffered_bytes: int
    write_overflows: int
    timeouts: int
    callback_errors: int
    stale_events: int
    turns: int
    events: int
    user_space_bytes: int


# By bit of the set of reasons (_admission.pxd); rate has no code yet.
_REASONS = {"limit": 0, "resources": 1, "memory": 2, "user": 4, "drain": 5}


def snapshot(loop: Any, listeners: list[int], kernel_memory: Optional[int]) -> Stats:
    """Return the figures of a loop (a Control) and of its listeners, given by number, with what the kernel holds."""
    paused = [loop.paused_ms(number) for number in listeners]
    queues = [look for look in map(loop.listener_state, listeners) if look[2] is not None]
    return Stats(
        active=loop.active,
        limit=loop.limit,
        paused_s={reason: max((times[bit] for times in paused), default=0) / 1000 for reason, bit in _REASONS.items()},
        queued=sum(look[2] for look in queues) if queues else None,
        backlog=sum(look[3] for look in queues) if queues else None,
        descriptors=descriptors_in_use(),
        descriptor_limit=descriptor_limit(),
        kernel_memory=kernel_memory,
        **loop.counters(),
    )
