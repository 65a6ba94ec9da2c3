"""Counters of one server. PURE. Written by the loop's thread alone, read by any (a torn read is impossible: each is one
aligned word). The snapshot that users get is made in server.py."""
from libc.stdint cimport int64_t, uint64_t

cdef enum:
    STATS_ERRNOS = 160               # Linux's errno ends at 133; the last entry counts what is beyond

cdef struct stats_t:
    uint64_t accepted                # connections accepted and served, since start
    uint64_t connected               # outgoing connections that came about
    uint64_t closed                  # connections released, of either kind
    uint64_t rejected                # clients accepted, told so, and closed by when_full="reject"
    uint64_t refused_episodes        # times the listening sockets were made to refuse
    uint64_t pauses                  # times a listener went from accepting to paused
    uint64_t resumes                 # and back
    uint64_t stale_events            # events for records that are gone: dropped
    uint64_t bytes_received
    uint64_t bytes_sent
    uint64_t write_buffered_bytes    # given to write(), not yet taken by the system; now
    uint64_t write_overflows         # connections aborted for max_write_buffer or max_write_buffer_total
    uint64_t timeouts                # connections ended by one of the Timeouts
    uint64_t callback_errors         # exceptions that left a callback
    uint64_t turns                   # passes of the loop
    uint64_t events                  # events dispatched
    uint64_t accept_errors[STATS_ERRNOS]

cdef inline void stats_count_accept_error(stats_t *stats, int error) noexcept nogil:
    error &= 0xFF                    # Windows' own number may stand above the errno
    stats.accept_errors[error if 0 <= error < STATS_ERRNOS else STATS_ERRNOS - 1] += 1
