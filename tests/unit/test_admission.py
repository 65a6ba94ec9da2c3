"""Ensure each row of admission's table and each of its guarantees, by name (see _admission.pxd)."""
import itertools

import pytest

from fastaccept._admission import Admission, reason_names, state_name
from helpers.model import EPISODE_QUIET_MS, REASONS, RETRY_MAX_MS, RETRY_MIN_MS, state_of

NOW = 1_000_000


def full(high, low=None):
    """An admission with as many connections as its limit allows, whose pause has been told."""
    admission = Admission(high, low)
    for _ in range(high):
        admission.opened(NOW)
    assert admission.verdict() == "pause"
    return admission


def throttled():
    """An admission with one connection that lacks a resource since NOW, whose pause has been told."""
    admission = Admission()
    admission.opened(NOW)
    admission.failed(NOW)
    assert admission.verdict() == "pause"
    return admission


def test_new_listener_accepts():
    admission = Admission()
    assert (admission.reasons, admission.state) == (frozenset(), "accepting")
    assert (admission.active, admission.retry_at_ms, admission.verdict()) == (0, None, "none")


# names and states of a set

@pytest.mark.parametrize("bit, name", list(enumerate(REASONS)))
def test_each_bit_has_its_name(bit, name):
    assert reason_names(1 << bit) == {name}


@pytest.mark.parametrize("reasons", range(64))
def test_state_follows_from_the_set_by_precedence(reasons):
    names = {name for bit, name in enumerate(REASONS) if reasons & (1 << bit)}
    assert reason_names(reasons) == names
    assert state_name(reasons) == state_of(names)


@pytest.mark.parametrize("name, state", [
    ("drain", "draining"), ("user", "paused"), ("resources", "throttled"), ("limit", "full"),
])
def test_state_of_one_reason(name, state):
    assert state_name(1 << REASONS.index(name)) == state


# LIMIT

def test_limit_is_set_at_high_and_not_below():
    admission = Admission(3)
    for reasons in (set(), set(), {"limit"}):
        admission.opened(NOW)
        assert admission.reasons == reasons
    assert admission.state == "full"


def test_limit_is_cleared_by_the_first_release():
    admission = full(3)
    admission.released(NOW)
    assert admission.reasons == set()
    assert admission.verdict() == "resume"


def test_limit_with_resume_at_is_cleared_at_low_and_not_above():
    admission = full(5, low=2)
    for reasons in ({"limit"}, {"limit"}, set()):
        admission.released(NOW)
        assert admission.reasons == reasons


def test_limit_with_resume_at_is_set_again_at_high_only():
    admission = full(5, low=2)
    for _ in range(3):
        admission.released(NOW)
    for reasons in (set(), set(), {"limit"}):
        admission.opened(NOW)
        assert admission.reasons == reasons


def test_limit_stays_while_more_are_open_than_it_allows():
    admission = full(2)
    admission.opened(NOW)            # accepted in the batch that reached the limit
    admission.released(NOW)
    assert admission.reasons == {"limit"}
    admission.released(NOW)
    assert admission.reasons == set()


def test_no_limit_is_never_full():
    admission = Admission(None)
    for _ in range(10_000):
        admission.opened(NOW)
    assert admission.reasons == set()


@pytest.mark.parametrize("high, reasons", [(5, {"limit"}), (9, {"limit"}), (10, {"limit"}), (11, set())])
def test_lowered_limit_pauses_at_once_if_it_is_reached(high, reasons):
    admission = Admission(20)
    for _ in range(10):
        admission.opened(NOW)
    admission.set_limits(high, None, NOW)
    assert admission.reasons == reasons


def test_limit_lowered_below_active_is_cleared_below_the_new_limit():
    admission = full(10)
    admission.set_limits(5, None, NOW)
    for _ in range(5):
        admission.released(NOW)
        assert admission.reasons == {"limit"}
    admission.released(NOW)
    assert (admission.active, admission.reasons) == (4, set())


@pytest.mark.parametrize("high, low, reasons", [
    (11, None, set()),
    (None, None, set()),
    (20, 10, set()),
    (20, 9, {"limit"}),              # room below high, but the wanted low mark is not reached
    (10, None, {"limit"}),
])
def test_raised_limit_resumes_at_once_if_low_is_reached(high, low, reasons):
    admission = full(10)
    admission.set_limits(high, low, NOW)
    assert admission.reasons == reasons
    assert admission.verdict() == ("none" if reasons else "resume")


# RESOURCES

def test_resources_are_set_by_a_failed_accept():
    admission = throttled()
    assert (admission.reasons, admission.state) == ({"resources"}, "throttled")
    assert admission.retry_at_ms == NOW + RETRY_MIN_MS


def test_resources_are_cleared_by_a_release():
    admission = throttled()
    admission.released(NOW)
    assert (admission.reasons, admission.retry_at_ms) == (set(), None)
    assert admission.verdict() == "resume"


def test_resources_are_cleared_by_the_retry_deadline_and_not_before():
    admission = throttled()
    admission.retry(NOW + RETRY_MIN_MS - 1)
    assert admission.reasons == {"resources"}
    admission.retry(NOW + RETRY_MIN_MS)
    assert (admission.reasons, admission.retry_at_ms) == (set(), None)


@pytest.mark.parametrize("name", ["opened", "pause", "resume"])
def test_resources_are_not_cleared_by_anything_else(name):
    admission = throttled()
    getattr(admission, name)(NOW + 5 * RETRY_MAX_MS)
    assert "resources" in admission.reasons
    assert admission.retry_at_ms == NOW + RETRY_MIN_MS


def delays(admission, n, now_ms=NOW):
    """Fail n times, each at the retry of the one before; return the delays."""
    found = []
    for _ in range(n):
        admission.failed(now_ms)
        found.append(admission.retry_at_ms - now_ms)
        now_ms = admission.retry_at_ms
        admission.retry(now_ms)
    return found


def test_retry_delay_doubles_from_10_ms_to_1_s():
    assert delays(Admission(), 10) == [10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000]


def test_retry_delay_is_set_back_by_a_success():
    admission = Admission()
    delays(admission, 5)
    admission.opened(NOW)
    assert delays(admission, 2) == [10, 20]


def test_retry_delay_is_not_set_back_by_a_release():
    # A release is no proof: the accept that follows it may fail as the one before did.
    admission = Admission()
    admission.opened(NOW)
    delays(admission, 3)
    admission.released(NOW)
    assert delays(admission, 2) == [80, 160]


def test_retry_without_a_shortage_changes_nothing():
    admission = Admission()
    admission.retry(2**62)
    assert (admission.reasons, admission.retry_at_ms, admission.verdict()) == (set(), None, "none")


# USER

def test_user_pauses_and_resumes():
    admission = Admission()
    admission.pause(NOW)
    assert (admission.reasons, admission.state, admission.verdict()) == ({"user"}, "paused", "pause")
    admission.resume(NOW)
    assert (admission.reasons, admission.state, admission.verdict()) == (set(), "accepting", "resume")


def test_one_resume_ends_two_pauses():
    admission = Admission()
    admission.pause(NOW)
    admission.pause(NOW)
    admission.resume(NOW)
    assert admission.reasons == set()


def test_resume_without_a_pause_changes_nothing():
    admission = Admission()
    admission.resume(NOW)
    assert (admission.reasons, admission.verdict()) == (set(), "none")


@pytest.mark.parametrize("undo", [
    pytest.param(lambda admission: admission.released(NOW + 1), id="a release"),
    pytest.param(lambda admission: admission.retry(NOW + 5 * RETRY_MAX_MS), id="the retry deadline"),
    pytest.param(lambda admission: admission.set_limits(None, None, NOW + 1), id="a raised limit"),
    pytest.param(lambda admission: admission.opened(NOW + 1), id="a success"),
])
@pytest.mark.parametrize("also", ["nothing", "full", "short of resources"])
def test_pause_of_the_user_is_not_undone_by(undo, also):
    admission = Admission(1 if also == "full" else 3)
    admission.opened(NOW)
    if also == "short of resources":
        admission.failed(NOW)
    admission.pause(NOW)
    undo(admission)
    assert "user" in admission.reasons and admission.state == "paused"


def test_resume_of_the_user_undoes_no_other_pause():
    admission = full(2)
    admission.failed(NOW)
    admission.pause(NOW)
    admission.resume(NOW)
    assert (admission.reasons, admission.state) == ({"limit", "resources"}, "throttled")


# DRAIN

def test_drain_is_never_cleared():
    admission = full(2)
    admission.failed(NOW)
    admission.pause(NOW)
    admission.drain(NOW)
    assert admission.state == "draining"
    admission.resume(NOW)
    admission.retry(NOW + 5 * RETRY_MAX_MS)
    admission.set_limits(None, None, NOW)
    admission.released(NOW)
    admission.released(NOW)
    assert (admission.active, admission.reasons, admission.state) == (0, {"drain"}, "draining")


# each reason writes its own bit

SET = {
    "limit": lambda admission: admission.set_limits(1, None, NOW),
    "resources": lambda admission: admission.failed(NOW),
    "user": lambda admission: admission.pause(NOW),
    "drain": lambda admission: admission.drain(NOW),
}
CLEAR = {
    "limit": lambda admission: admission.set_limits(None, None, NOW),
    "resources": lambda admission: admission.retry(NOW + RETRY_MIN_MS),
    "user": lambda admission: admission.resume(NOW),
}


@pytest.mark.parametrize("order", list(itertools.permutations(SET)), ids="-".join)
def test_reasons_are_set_and_cleared_in_any_order_one_at_a_time(order):
    admission = Admission()
    admission.opened(NOW)
    expected = set()
    for reason in order:
        SET[reason](admission)
        expected.add(reason)
        assert admission.reasons == expected
    for reason in order:
        if reason in CLEAR:
            CLEAR[reason](admission)
            expected.remove(reason)
            assert admission.reasons == expected
    assert expected == {"drain"}


# verdicts

def test_verdict_is_told_once_for_each_change():
    admission = Admission(1)
    admission.opened(NOW)
    assert [admission.verdict() for _ in range(3)] == ["pause", "none", "none"]
    admission.released(NOW)
    assert [admission.verdict() for _ in range(3)] == ["resume", "none", "none"]


def test_pause_and_resume_between_two_verdicts_is_nobodys_business():
    admission = Admission(1)
    admission.opened(NOW)
    admission.released(NOW)
    assert admission.verdict() == "none"


def test_resume_and_pause_between_two_verdicts_is_nobodys_business():
    admission = full(1)
    admission.released(NOW)
    admission.opened(NOW)
    assert admission.verdict() == "none"


def test_verdict_of_other_reasons_than_before_is_change():
    admission = full(1)
    admission.pause(NOW)
    assert admission.verdict() == "change"
    admission.released(NOW)
    assert admission.verdict() == "change"
    admission.resume(NOW)
    assert admission.verdict() == "resume"


def test_verdict_of_one_reason_in_place_of_another_is_change():
    admission = full(1)
    admission.released(NOW)
    admission.pause(NOW)
    assert admission.verdict() == "change"


def test_failure_that_adds_no_reason_is_no_change():
    admission = throttled()
    admission.failed(NOW)
    assert admission.verdict() == "none"


# episodes

def test_first_failure_of_an_episode_is_reported_and_no_other():
    admission = Admission()
    assert [admission.failed(NOW + i) for i in range(5)] == [True, False, False, False, False]


def test_failing_retries_go_on_with_their_episode_for_ever():
    admission = Admission()
    now_ms, told = NOW, []
    for _ in range(100):
        told.append(admission.failed(now_ms))
        now_ms = admission.retry_at_ms
        admission.retry(now_ms)
    assert told == [True] + [False] * 99


@pytest.mark.parametrize("quiet_ms, is_first", [
    (0, False), (EPISODE_QUIET_MS - 1, False), (EPISODE_QUIET_MS, True), (EPISODE_QUIET_MS + 1, True),
])
def test_failure_after_a_quiet_period_begins_an_episode(quiet_ms, is_first):
    admission = Admission()
    admission.failed(NOW)
    admission.failed(NOW + 500)
    assert admission.failed(NOW + 500 + quiet_ms) is is_first


def test_successes_and_releases_do_not_end_an_episode():
    # At the edge accepts succeed and fail by turns: that is one report, not one for each failure.
    admission = Admission()
    admission.failed(NOW)
    for i in range(50):
        admission.released(NOW + i) if i % 2 else admission.opened(NOW + i)
        assert admission.failed(NOW + i) is False


def test_time_zero_is_a_time_like_any_other():
    admission = Admission()
    assert [admission.failed(now_ms) for now_ms in (0, 0, EPISODE_QUIET_MS)] == [True, False, True]


# time paused

@pytest.mark.parametrize("reason", ["limit", "resources", "user", "drain"])
def test_time_paused_runs_while_its_reason_is_set(reason):
    admission = Admission()
    admission.opened(NOW)
    SET[reason](admission)
    for name in REASONS:
        assert admission.paused_ms(name, NOW + 70) == (70 if name == reason else 0)


def test_time_paused_adds_up_and_stands_still_between():
    admission = Admission()
    for start in (0, 100, 200):
        admission.pause(NOW + start)
        admission.resume(NOW + start + 30)
    assert admission.paused_ms("user", NOW + 5000) == 90


def test_time_paused_goes_on_through_a_second_cause():
    admission = Admission()
    admission.pause(NOW)
    admission.pause(NOW + 10)
    admission.resume(NOW + 30)
    admission.failed(NOW + 30)
    admission.failed(NOW + 35)
    admission.retry(NOW + 55)
    assert admission.paused_ms("user", NOW + 100) == 30
    assert admission.paused_ms("resources", NOW + 100) == 25


def test_time_paused_of_two_reasons_overlaps():
    admission = Admission(1)
    admission.opened(NOW)
    admission.pause(NOW + 10)
    admission.released(NOW + 30)
    admission.resume(NOW + 100)
    assert [admission.paused_ms(name, NOW + 200) for name in ("limit", "user")] == [30, 90]


def test_time_paused_of_an_unknown_reason_is_refused():
    with pytest.raises(ValueError):
        Admission().paused_ms("weather", NOW)
