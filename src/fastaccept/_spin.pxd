"""Spin: whether the loop looks for events again and again before it sleeps. PURE.

To put a thread to sleep and wake it takes some microseconds, of time and of the processor. Where the next event comes sooner than that,
as in ping-pong with one client on the same machine, to look for it is much quicker and hardly dearer; where it does not, the look was for nothing.
So an adaptive spin is for as long as a sleep costs, and goes by what it finds:

    LOOKING --found nothing--> PAUSED for `pause` waits, and `pause` doubles --they are over--> LOOKING
    LOOKING --found something--> LOOKING, and `pause` is one less

So nearly all waits look where 999 of 1,000 looks find something, 30 % where 99 of 100 do, 2 % where 95 do, 0.2 % where half do.
"""
from libc.stdint cimport int64_t, uint32_t

cdef enum:
    SPIN_AUTO_US = 6                 # about what a sleep costs: the most that a look in vain can lose
    SPIN_PAUSE_MIN = 16              # waits
    SPIN_PAUSE_MAX = 1024

cdef struct spin_t:
    int64_t limit_us                 # how long one look may take; 0 = never look
    bint is_adaptive                 # else each wait that follows events looks
    uint32_t pause                   # waits without a look that follow the next one in vain
    uint32_t left                    # of those that follow the last one

cdef inline void spin_init(spin_t *spin, int64_t limit_us, bint is_adaptive) noexcept nogil:
    spin.limit_us = limit_us
    spin.is_adaptive = is_adaptive
    spin.pause = SPIN_PAUSE_MIN
    spin.left = 0

cdef inline bint spin_begins(spin_t *spin) noexcept nogil:
    """Whether this wait looks first."""
    if spin.left > 0:
        spin.left -= 1
        return False
    return spin.limit_us > 0

cdef inline void spin_ended(spin_t *spin, bint found) noexcept nogil:
    """What came of a look that was needed: there was nothing at the first glance."""
    if not spin.is_adaptive:
        return
    if found:
        spin.pause = max(spin.pause - 1, <uint32_t>SPIN_PAUSE_MIN)
    else:
        spin.left = spin.pause
        spin.pause = min(2 * spin.pause, <uint32_t>SPIN_PAUSE_MAX)
