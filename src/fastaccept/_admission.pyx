"""Admission: the state machine of _admission.pxd, and a view of it for tests and for stats()."""
from libc.string cimport memset

_NAMES = ("limit", "resources", "memory", "rate", "user", "drain")    # by bit, as users read them


cdef void admission_init(admission_t *adm) noexcept nogil:
    memset(adm, 0, sizeof(admission_t))
    adm.retry_at_ms = INT64_MAX
    adm.retry_delay_ms = ACCEPT_RETRY_MIN_MS


cdef void _set_reasons(admission_t *adm, unsigned int reasons, int64_t now_ms) noexcept nogil:
    """The only writer of the set. Keeps the time that each reason has been in it."""
    cdef unsigned int changed = adm.reasons ^ reasons
    cdef int i
    for i in range(N_REASONS):
        if changed & (1u << i):
            if reasons & (1u << i):
                adm.reason_since_ms[i] = now_ms
            else:
                adm.reason_total_ms[i] += now_ms - adm.reason_since_ms[i]
    adm.reasons = reasons


cdef void admission_limits(admission_t *adm, const limits_t *limits, int64_t now_ms) noexcept nogil:
    if not limits_crossed(limits, (adm.reasons & REASON_LIMIT) != 0):
        return
    _set_reasons(adm, adm.reasons ^ REASON_LIMIT, now_ms)


cdef void admission_resources_short(admission_t *adm, int64_t now_ms) noexcept nogil:
    if adm.reasons & REASON_RESOURCES:
        return                       # several failures of one attempt are one: a batch of them must not make the delay long
    adm.retry_at_ms = now_ms + adm.retry_delay_ms
    adm.retry_delay_ms = min(2 * adm.retry_delay_ms, <int64_t>ACCEPT_RETRY_MAX_MS)
    _set_reasons(adm, adm.reasons | REASON_RESOURCES, now_ms)


cdef bint admission_count_failure(admission_t *adm, int64_t now_ms) noexcept nogil:
    if adm.episode_failures and now_ms - adm.episode_last_ms >= EPISODE_QUIET_MS:
        adm.episode_failures = 0
    adm.episode_failures += 1
    adm.episode_last_ms = now_ms
    return adm.episode_failures == 1


cdef void _resources_again(admission_t *adm, int64_t now_ms) noexcept nogil:
    adm.retry_at_ms = INT64_MAX
    _set_reasons(adm, adm.reasons & ~<unsigned int>REASON_RESOURCES, now_ms)


cdef void admission_released(admission_t *adm, int64_t now_ms) noexcept nogil:
    _resources_again(adm, now_ms)


cdef void admission_retry(admission_t *adm, int64_t now_ms) noexcept nogil:
    if now_ms >= adm.retry_at_ms:
        _resources_again(adm, now_ms)


cdef void admission_memory(admission_t *adm, int64_t used, int64_t limit, int64_t now_ms) noexcept nogil:
    if used >= limit:
        _set_reasons(adm, adm.reasons | REASON_MEMORY, now_ms)
    elif used <= limit - limit // MEMORY_SLACK:
        _set_reasons(adm, adm.reasons & ~<unsigned int>REASON_MEMORY, now_ms)


cdef void admission_pause(admission_t *adm, int64_t now_ms) noexcept nogil:
    _set_reasons(adm, adm.reasons | REASON_USER, now_ms)


cdef void admission_resume(admission_t *adm, int64_t now_ms) noexcept nogil:
    _set_reasons(adm, adm.reasons & ~<unsigned int>REASON_USER, now_ms)


cdef void admission_drain(admission_t *adm, int64_t now_ms) noexcept nogil:
    _set_reasons(adm, adm.reasons | REASON_DRAIN, now_ms)


cdef admission_verdict_t admission_verdict(admission_t *adm) noexcept nogil:
    cdef unsigned int before = adm.settled
    adm.settled = adm.reasons
    if before == adm.reasons:
        return ADM_NONE
    if before == 0:
        return ADM_PAUSE
    return ADM_CHANGE if adm.reasons else ADM_RESUME


cdef int64_t admission_paused_ms(const admission_t *adm, int reason_index, int64_t now_ms) noexcept nogil:
    cdef int64_t total = adm.reason_total_ms[reason_index]
    if adm.reasons & (1u << reason_index):
        total += now_ms - adm.reason_since_ms[reason_index]
    return total


def reason_names(unsigned int reasons):
    """Return the names of a set of reasons, as a frozenset of str."""
    return frozenset([name for i, name in enumerate(_NAMES) if reasons & (1u << i)])


def state_name(unsigned int reasons):
    """Return the state that users are shown for a set of reasons (the precedence of _admission.pxd)."""
    if reasons & REASON_DRAIN:
        return "draining"
    if reasons & REASON_USER:
        return "paused"
    if reasons & REASON_RESOURCES:
        return "throttled"
    return "full" if reasons else "accepting"


cdef class Admission:
    """One listener's admission with a limit of its own, for tests.

    Args:
        high: int or None, connections: LIMIT is set at this many; None = no limit.
        low: int, connections: LIMIT is cleared at this many; below high.
    Threads: one at a time.
    """
    cdef admission_t adm
    cdef limits_t limits

    def __cinit__(self, high=None, low=None):
        admission_init(&self.adm)
        self.limits.active = 0
        self.limits.high = INT64_MAX if high is None else high
        self.limits.low = self.limits.high - 1 if low is None else low

    def opened(self, int64_t now_ms):
        """A connection was accepted."""
        self.limits.active += 1
        admission_accepted(&self.adm)
        admission_limits(&self.adm, &self.limits, now_ms)

    def released(self, int64_t now_ms):
        """A connection was released."""
        self.limits.active -= 1
        admission_limits(&self.adm, &self.limits, now_ms)
        admission_released(&self.adm, now_ms)

    def set_limits(self, high, low, int64_t now_ms):
        """The limit was changed."""
        self.limits.high = INT64_MAX if high is None else high
        self.limits.low = self.limits.high - 1 if low is None else low
        admission_limits(&self.adm, &self.limits, now_ms)

    def failed(self, int64_t now_ms):
        """Accept failed for want of a resource; return True at the first failure of an episode."""
        first = admission_count_failure(&self.adm, now_ms)
        admission_resources_short(&self.adm, now_ms)
        return first

    def retry(self, int64_t now_ms):
        """Time has passed."""
        admission_retry(&self.adm, now_ms)

    def memory(self, int64_t used, int64_t limit, int64_t now_ms):
        """What the kernel holds was looked at; -1 = unknown."""
        admission_memory(&self.adm, used, limit, now_ms)

    def pause(self, int64_t now_ms):
        """The user paused."""
        admission_pause(&self.adm, now_ms)

    def resume(self, int64_t now_ms):
        """The user resumed."""
        admission_resume(&self.adm, now_ms)

    def drain(self, int64_t now_ms):
        """The user drains."""
        admission_drain(&self.adm, now_ms)

    def verdict(self):
        """Return "none", "pause", "change" or "resume": what became of the set since the last verdict."""
        return ("none", "pause", "change", "resume")[<int>admission_verdict(&self.adm)]

    def paused_ms(self, str reason, int64_t now_ms):
        """Return how long a reason has been set, in all, in milliseconds."""
        return admission_paused_ms(&self.adm, _NAMES.index(reason), now_ms)

    @property
    def reasons(self):
        """The set, as a frozenset of str."""
        return reason_names(self.adm.reasons)

    @property
    def state(self):
        """The state that users are shown."""
        return state_name(self.adm.reasons)

    @property
    def retry_at_ms(self):
        """The retry deadline, or None."""
        return None if self.adm.retry_at_ms == INT64_MAX else self.adm.retry_at_ms

    @property
    def active(self):
        """Connections open."""
        return self.limits.active
