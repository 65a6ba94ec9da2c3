"""Admission: whether a listener accepts, and why not. PURE: no sockets, no clock, no Python objects.

A listener accepts if and only if its set of pause reasons is empty.

    reason      set when                                       cleared when                                    by
    LIMIT       active >= high                                 active <= low                                   itself
    RESOURCES   accept failed for want of a resource           a connection was released, or the retry         itself
                                                               deadline passed
    MEMORY      what the kernel holds has come to its limit    it has fallen 1/16 below it, or is unknown      itself
    USER        pause()                                        resume()                                        the user only
    DRAIN       drain(), close()                               never                                           the user only

(RATE has its place in the set, and no code yet.)

The state that users are shown follows from the set by precedence, so that no illegal combination exists:

    CLOSED      the listening socket is gone: closed by the user, or dead by an error of its own
    DRAINING    DRAIN is set
    PAUSED      USER is set
    THROTTLED   RESOURCES is set
    FULL        LIMIT or MEMORY is set
    ACCEPTING   none is set

             admission_limits(active >= high)              admission_pause()
      +-----------------------------------------+   +-----------------------------+
      v                                         |   |                             v
    FULL --admission_limits(active <= low)--> ACCEPTING <--admission_resume()-- PAUSED
                                                |   ^
                  admission_resources_short()   |   |  admission_released(), admission_retry()
                                                v   |
                                              THROTTLED           any --admission_drain()--> DRAINING --> CLOSED

Guarantees
  - One reason's owner can't undo another's pause: each function writes its own bit, through _set_reasons() alone.
  - While RESOURCES is set there is a retry deadline, so a listener is never stuck when nothing of our own is released.
    The delay doubles from ACCEPT_RETRY_MIN_MS to ACCEPT_RETRY_MAX_MS, and a success sets it back.
  - Events change the set; admission_verdict() is asked once a turn and tells what became of it. A pause that came and
    went within one turn is nobody's business: no system call, no callback.
"""
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t

cdef enum:
    # 10 ms: short enough to go unnoticed. 1 s: a full system is asked once a second, as in gevent and libuv.
    ACCEPT_RETRY_MIN_MS = 10
    ACCEPT_RETRY_MAX_MS = 1000
    # Failures with less than this between them are one episode, and reported once. Longer than ACCEPT_RETRY_MAX_MS,
    # so that a retry that fails goes on with its episode.
    EPISODE_QUIET_MS = 2000
    # Memory that wavers about its limit must not make accepting do so: 1/16 of the limit has to be free again.
    MEMORY_SLACK = 16
    N_REASONS = 6

cdef enum reason_t:
    REASON_LIMIT = 1
    REASON_RESOURCES = 2
    REASON_MEMORY = 4
    REASON_RATE = 8
    REASON_USER = 16
    REASON_DRAIN = 32

cdef enum admission_verdict_t:
    ADM_NONE                         # nothing to do
    ADM_PAUSE                        # stop accepting
    ADM_CHANGE                       # still paused, for other reasons than before
    ADM_RESUME                       # start accepting

cdef struct limits_t:                # shared by all listeners of a server
    int64_t active                   # accepted connections whose slot is not free yet
    int64_t high                     # LIMIT is set at this many; INT64_MAX = no limit
    int64_t low                      # and cleared at this many; low < high

cdef struct admission_t:
    unsigned int reasons             # the set; written by _set_reasons() alone
    unsigned int settled             # the set at the last verdict
    # RESOURCES
    int64_t retry_at_ms              # when to try again though nothing was released; INT64_MAX = RESOURCES is not set
    int64_t retry_delay_ms           # the next delay
    # The episode of failures that on_error is told of once
    uint64_t episode_failures        # in this episode, so far; 0 = none yet
    int64_t episode_last_ms          # the latest failure
    # For stats()
    int64_t reason_since_ms[N_REASONS]     # when a reason was set, while it is
    int64_t reason_total_ms[N_REASONS]     # how long it was set before that

cdef void admission_init(admission_t *adm) noexcept nogil
cdef void admission_limits(admission_t *adm, const limits_t *limits, int64_t now_ms) noexcept nogil
cdef void admission_resources_short(admission_t *adm, int64_t now_ms) noexcept nogil
cdef bint admission_count_failure(admission_t *adm, int64_t now_ms) noexcept nogil     # True: the first of an episode
cdef void admission_released(admission_t *adm, int64_t now_ms) noexcept nogil
cdef void admission_retry(admission_t *adm, int64_t now_ms) noexcept nogil
cdef void admission_memory(admission_t *adm, int64_t used, int64_t limit, int64_t now_ms) noexcept nogil    # used -1 = unknown
cdef void admission_pause(admission_t *adm, int64_t now_ms) noexcept nogil
cdef void admission_resume(admission_t *adm, int64_t now_ms) noexcept nogil
cdef void admission_drain(admission_t *adm, int64_t now_ms) noexcept nogil
cdef admission_verdict_t admission_verdict(admission_t *adm) noexcept nogil
cdef int64_t admission_paused_ms(const admission_t *adm, int reason_index, int64_t now_ms) noexcept nogil

cdef inline void admission_accepted(admission_t *adm) noexcept nogil:
    """An accept succeeded: the resource is there, so the next shortage starts with the short delay again."""
    adm.retry_delay_ms = ACCEPT_RETRY_MIN_MS

cdef inline bint limits_crossed(const limits_t *limits, bint is_limited) noexcept nogil:
    """True when LIMIT has to change: the one test that each accept and each release makes."""
    return limits.active <= limits.low if is_limited else limits.active >= limits.high

cdef inline int64_t limits_room(const limits_t *limits) noexcept nogil:
    """How many more connections fit below the limit, 0 or more."""
    return limits.high - limits.active if limits.active < limits.high else 0
