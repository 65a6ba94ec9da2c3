"""A slow, obvious model of admission, written from the table in _admission.pxd: sets and lists.

    reason      set when                                 cleared when
    LIMIT       active >= high                           active <= low
    RESOURCES   accept failed for want of a resource     a connection was released, or the deadline passed
    MEMORY      used >= limit                            used <= limit - limit // 16, or unknown
    USER        pause()                                  resume()
    DRAIN       drain(), close()                         never
"""
import math

RETRY_MIN_MS = 10
RETRY_MAX_MS = 1000
EPISODE_QUIET_MS = 2000

REASONS = ("limit", "resources", "memory", "rate", "user", "drain")


def state_of(reasons):
    """The state that users are shown: the first that applies."""
    for reason, state in (("drain", "draining"), ("user", "paused"), ("resources", "throttled")):
        if reason in reasons:
            return state
    return "full" if reasons else "accepting"


class AdmissionModel:
    """What fastaccept._admission.Admission has to be, call by call."""

    def __init__(self, high=None, low=None):
        self.active = 0
        self.reasons = set()
        self.history = []                           # (now_ms, the set from then on), in order
        self.reasons_at_verdict = set()
        self.retry_at_ms = None
        self.failures_since_success = 0
        self.failures_ms = []
        self.high, self.low = self._limits(high, low)

    @staticmethod
    def _limits(high, low):
        high = math.inf if high is None else high
        return high, high - 1 if low is None else low

    @property
    def state(self):
        return state_of(self.reasons)

    # what happens

    def opened(self, now_ms):
        self.active += 1
        self.failures_since_success = 0
        self._look_at_limit(now_ms)

    def released(self, now_ms):
        self.active -= 1
        self._look_at_limit(now_ms)
        self._resources_are_back(now_ms)

    def set_limits(self, high, low, now_ms):
        self.high, self.low = self._limits(high, low)
        self._look_at_limit(now_ms)

    def failed(self, now_ms):
        if "resources" not in self.reasons:  # several failures of one attempt are one
            delay_ms = min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** self.failures_since_success)
            self.failures_since_success += 1
            self.retry_at_ms = now_ms + delay_ms
        self._change(now_ms, add="resources")
        is_first = not self.failures_ms or now_ms - self.failures_ms[-1] >= EPISODE_QUIET_MS
        self.failures_ms.append(now_ms)
        return is_first

    def retry(self, now_ms):
        if self.retry_at_ms is not None and now_ms >= self.retry_at_ms:
            self._resources_are_back(now_ms)

    def memory(self, used, limit, now_ms):
        if used >= limit:
            self._change(now_ms, add="memory")
        elif used <= limit - limit // 16:
            self._change(now_ms, remove="memory")

    def pause(self, now_ms):
        self._change(now_ms, add="user")

    def resume(self, now_ms):
        self._change(now_ms, remove="user")

    def drain(self, now_ms):
        self._change(now_ms, add="drain")

    # what is told

    def verdict(self):
        before, self.reasons_at_verdict = self.reasons_at_verdict, set(self.reasons)
        if before == self.reasons:
            return "none"
        if not before:
            return "pause"
        return "change" if self.reasons else "resume"

    def paused_ms(self, reason, now_ms):
        """Add up all stretches of time over which the reason was in the set."""
        ends = [since_ms for since_ms, _ in self.history[1:]] + [now_ms]
        stretches = zip(self.history, ends)
        return sum(end_ms - since_ms for (since_ms, reasons), end_ms in stretches if reason in reasons)

    # how

    def _look_at_limit(self, now_ms):
        if self.active >= self.high:
            self._change(now_ms, add="limit")
        if self.active <= self.low:
            self._change(now_ms, remove="limit")

    def _resources_are_back(self, now_ms):
        self.retry_at_ms = None
        self._change(now_ms, remove="resources")

    def _change(self, now_ms, add=None, remove=None):
        self.reasons = (self.reasons | {add} if add else self.reasons) - {remove}
        self.history.append((now_ms, frozenset(self.reasons)))
