"""Ensure that admission does what its table says, after any events in any order, beside a slow model."""
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fastaccept._admission import Admission
from helpers import REPEATABLE
from helpers.model import REASONS, AdmissionModel

LIMITS = st.none() | st.integers(1, 8)
# Small steps, the edges of the delays and of the quiet period, and anything.
STEPS_MS = st.sampled_from([1, 5, 9, 10, 20, 999, 1000, 1999, 2000, 2001]) | st.integers(0, 5000)


class AdmissionMachine(RuleBasedStateMachine):
    def both(self, name, *args):
        """Call both, and compare what they return."""
        answer = getattr(self.admission, name)(*args)
        assert answer == getattr(self.model, name)(*args)

    @initialize(high=LIMITS, gap=st.none() | st.integers(1, 8), now_ms=st.sampled_from([0, 1, 123_456_789]))
    def start(self, high, gap, now_ms):
        low = None if high is None or gap is None else max(0, high - gap)
        self.admission = Admission(high, low)
        self.model = AdmissionModel(high, low)
        self.now_ms = now_ms

    @rule(step_ms=STEPS_MS)
    def time_passes(self, step_ms):
        self.now_ms += step_ms

    @precondition(lambda self: self.model.retry_at_ms is not None)
    @rule(early_ms=st.sampled_from([0, 1]))
    def time_passes_until_the_retry(self, early_ms):
        self.now_ms = max(self.now_ms, self.model.retry_at_ms - early_ms)

    @rule()
    def opened(self):
        self.both("opened", self.now_ms)

    @precondition(lambda self: self.model.active)
    @rule()
    def released(self):
        self.both("released", self.now_ms)

    @rule(high=LIMITS, gap=st.none() | st.integers(1, 8))
    def set_limits(self, high, gap):
        low = None if high is None or gap is None else max(0, high - gap)
        self.both("set_limits", high, low, self.now_ms)

    @rule()
    def failed(self):
        self.both("failed", self.now_ms)

    @rule()
    def retry(self):
        self.both("retry", self.now_ms)

    @rule(limit=st.sampled_from([1, 15, 16, 17, 1600, 2**63 - 1]), share=st.sampled_from([0, 14, 15, 16, 17]), more=st.integers(-1, 1))
    def memory(self, limit, share, more):
        self.both("memory", max(-1, min(limit * share // 16 + more, 2**63 - 1)), limit, self.now_ms)

    @rule()
    def pause(self):
        self.both("pause", self.now_ms)

    @rule()
    def resume(self):
        self.both("resume", self.now_ms)

    # A drain ends most of what can be watched, so it comes late.
    @precondition(lambda self: len(self.model.history) > 15)
    @rule()
    def drain(self):
        self.both("drain", self.now_ms)

    @rule()
    def verdict(self):
        self.both("verdict")

    @invariant()
    def shows_what_the_model_shows(self):
        assert self.admission.reasons == self.model.reasons
        assert self.admission.state == self.model.state
        assert self.admission.active == self.model.active
        assert self.admission.retry_at_ms == self.model.retry_at_ms
        for reason in REASONS:
            assert self.admission.paused_ms(reason, self.now_ms) == self.model.paused_ms(reason, self.now_ms)

    @invariant()
    def accepts_if_and_only_if_nothing_pauses_it(self):
        assert (self.admission.state == "accepting") == (not self.admission.reasons)

    @invariant()
    def is_never_stuck_for_resources(self):
        assert ("resources" in self.admission.reasons) == (self.admission.retry_at_ms is not None)

    @invariant()
    def is_never_over_the_wall(self):
        if self.model.active >= self.model.high:
            assert "limit" in self.admission.reasons


TestAdmissionMachine = AdmissionMachine.TestCase
TestAdmissionMachine.settings = settings(REPEATABLE, max_examples=250, stateful_step_count=60)
