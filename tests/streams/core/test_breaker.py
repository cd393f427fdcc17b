"""Tests of the circuit breaker of an integration."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.ports import Accepted, Missing, Rejected, Throttled, Unauthorized, Unavailable
from schemas.integrations import HoldReport
from streams.core.breaker import (
    CLOSED,
    FAILURES,
    FIRST_PAUSE,
    LONGEST_HOLD,
    LONGEST_PAUSE,
    REJECTIONS,
    STEPS,
    TRANSITIONS,
    TRIAL_WITHIN,
    Breaker,
    Breakers,
    Event,
    Integration,
    State,
    admit,
    answered,
)
from streams.core.observer import NullObserver
from streams.core.retry import Held, Reason

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BUILDIUM, OTHER = Integration("org", "buildium"), Integration("other", "buildium")
DOWN = Unavailable("down", 503)


def opened() -> Breaker:
    breaker = CLOSED
    for entity in range(FAILURES):
        breaker = answered(breaker, entity, NOW, available=False)
    return breaker


# ---------------------------------------------------------------------------------------------------- the state machine


def test_every_possible_event_has_a_transition() -> None:
    """Where calls are allowed there is no pause to wait for, and only there it trips; only a ramp grows."""
    calls = {State.CLOSED, State.RAMPING}
    never = {(state, Event.WAITED) for state in calls} | {(state, Event.TRIPPED) for state in set(State) - calls}
    never |= {(state, Event.GREW) for state in set(State) - {State.RAMPING}}
    assert set(TRANSITIONS) == {(state, event) for state in State for event in Event} - never
    assert {TRANSITIONS[state, Event.ANSWERED] for state in calls} == calls


def test_it_opens_after_consecutive_failures_of_different_entities() -> None:
    assert opened() == Breaker(State.OPEN, pause=FIRST_PAUSE, until=NOW + FIRST_PAUSE)
    assert admit(opened(), NOW + FIRST_PAUSE - timedelta(microseconds=1)) == (opened(), False)


def test_repeated_failures_of_one_entity_do_not_open_it() -> None:
    """The record has all its attempts, and other records are not held."""
    breaker = CLOSED
    for _ in range(FAILURES * 2):
        breaker = answered(breaker, "unit", NOW, available=False)

    assert admit(breaker, NOW) == (breaker, True)
    assert breaker.state is State.CLOSED


def test_an_answer_between_failures_resets_the_count() -> None:
    breaker = CLOSED
    for entity in range(FAILURES * 2):
        breaker = answered(breaker, entity, NOW, available=False)
        if entity % (FAILURES - 1) == 0:
            breaker = answered(breaker, entity, NOW, available=True)

    assert breaker.state is State.CLOSED


def ramping() -> Breaker:
    """Return the breaker after the answer to a trial call."""
    later = NOW + FIRST_PAUSE
    return answered(admit(opened(), later)[0], "any", later, available=True)


def test_after_a_trial_call_it_closes_step_by_step() -> None:
    """Each step ends with as many answers as calls may be at once in it."""
    breaker, widths = ramping(), []
    while breaker.state is State.RAMPING:
        widths.append(STEPS[breaker.step])
        assert admit(breaker, NOW) == (breaker, True)
        breaker = answered(breaker, "any", NOW, available=True)
    assert breaker == CLOSED
    assert widths == [2] * 2 + [4] * 4 + [8] * 8


def test_failures_of_a_step_open_it_for_longer_but_not_those_of_one_entity() -> None:
    breaker = ramping()
    for _ in range(9):
        breaker = answered(breaker, "poison", NOW, available=False)
    assert breaker.state is State.RAMPING
    breaker = answered(breaker, "other", NOW, available=False)
    assert (breaker.state, breaker.pause) == (State.OPEN, 2 * FIRST_PAUSE)

    asked = answered(ramping(), "one", NOW, available=False, asked=timedelta(hours=1))
    assert (asked.state, asked.until) == (State.OPEN, NOW + timedelta(hours=1))
    assert answered(ramping(), "one", NOW, available=False, refused=True).state is State.OPEN


def test_how_many_calls_may_be_at_once_follows_from_the_step() -> None:
    breakers, group = Breakers(NullObserver()), BUILDIUM[:2]
    for entity in range(FAILURES):
        breakers.ended(BUILDIUM, entity, DOWN, NOW)
    assert breakers.width(group) is None
    at = NOW + FIRST_PAUSE
    assert breakers.hold(BUILDIUM, at) is None
    widths = []
    for entity in range(1 + sum(STEPS)):
        breakers.ended(BUILDIUM, entity, Accepted(200), at)
        widths.append(breakers.width(group))
    assert widths == [2] * 2 + [4] * 4 + [8] * 8 + [None]
    assert breakers.width(OTHER[:2]) is breakers.width("no integration") is None


def test_a_call_that_opens_it_again_keeps_the_attempts_of_its_record() -> None:
    breakers, at = Breakers(NullObserver()), NOW + FIRST_PAUSE
    for entity in range(FAILURES):
        breakers.ended(BUILDIUM, entity, DOWN, NOW)
    breakers.hold(BUILDIUM, at)
    breakers.ended(BUILDIUM, 0, Accepted(200), at)
    assert breakers.ended(BUILDIUM, 1, DOWN, at) is None
    held = breakers.ended(BUILDIUM, 2, DOWN, at)
    assert held is not None
    assert held.until == at + 2 * FIRST_PAUSE
    assert breakers.width(BUILDIUM[:2]) is None
    breakers.forget(lambda _: True)
    assert breakers.hold(BUILDIUM, at) is None


def test_after_the_pause_one_trial_call_is_allowed() -> None:
    later = NOW + FIRST_PAUSE
    trial, allowed = admit(opened(), later)
    again, second = admit(trial, later)

    assert (allowed, second) == (True, False)
    assert trial.state is again.state is State.HALF_OPEN
    assert answered(trial, "any", later, available=True).state is State.RAMPING


def test_a_failed_trial_call_doubles_the_pause_up_to_the_longest() -> None:
    breaker, at, pauses = opened(), NOW, []
    for _ in range(7):
        at = breaker.until
        breaker = answered(admit(breaker, at)[0], "any", at, available=False)
        pauses.append(breaker.until - at)

    assert [pause.total_seconds() for pause in pauses] == [60, 120, 240, 480, 600, 600, 600]
    assert pauses[-1] == LONGEST_PAUSE


def test_a_trial_call_without_an_answer_is_repeated() -> None:
    """The end of a call that was cancelled or raised an exception is never reported."""
    trial, _ = admit(opened(), NOW + FIRST_PAUSE)

    assert admit(trial, NOW + FIRST_PAUSE + TRIAL_WITHIN - timedelta(seconds=1))[1] is False
    assert admit(trial, NOW + FIRST_PAUSE + TRIAL_WITHIN)[1] is True


def test_a_call_that_began_before_it_opened_may_close_it_only() -> None:
    late = NOW + timedelta(seconds=20)

    assert answered(opened(), "late", late, available=False) == opened()
    assert answered(opened(), "late", late, available=True) == CLOSED


@given(
    st.lists(st.tuples(st.sampled_from(["call", "answer", "fail", "refuse"]), st.integers(0, 9), st.integers(0, 400)))
)
def test_trial_calls_are_at_least_the_first_pause_apart(steps: list[tuple[str, int, int]]) -> None:
    breaker, at, began = CLOSED, NOW, list[datetime]()
    for step, entity, seconds in steps:
        at += timedelta(seconds=seconds)
        if step == "call":
            was_closed = breaker.state in (State.CLOSED, State.RAMPING)
            breaker, allowed = admit(breaker, at)
            assert allowed or not was_closed
            if allowed and not was_closed:
                began.append(at)
        else:
            breaker = answered(breaker, entity, at, available=step == "answer", refused=step == "refuse")
            if breaker.state in (State.CLOSED, State.RAMPING):
                began = []
        assert len(breaker.failed) < FAILURES
        assert breaker.until <= at + max(LONGEST_PAUSE, TRIAL_WITHIN)
    assert all(later - earlier >= FIRST_PAUSE for earlier, later in pairwise(began))


# ------------------------------------------------------------------------------------------- breakers of integrations


class Moves(NullObserver):
    """An observer that records the states of breakers."""

    def __init__(self) -> None:
        self.moves: list[tuple[str, str, str]] = []

    def breaker_moved(self, org: str, integration: str, state: str) -> None:
        self.moves.append((org, integration, state))


def test_each_integration_has_its_own_breaker_and_its_moves_are_reported() -> None:
    moves = Moves()
    breakers = Breakers(moves)
    for entity in range(FAILURES):
        assert breakers.hold(BUILDIUM, NOW) is None
        breakers.ended(BUILDIUM, entity, DOWN, NOW)
    held = breakers.hold(BUILDIUM, NOW)
    trial = breakers.hold(BUILDIUM, NOW + FIRST_PAUSE)
    beside = breakers.hold(BUILDIUM, NOW + FIRST_PAUSE)
    breakers.ended(BUILDIUM, 1, Accepted(200), NOW + FIRST_PAUSE)

    assert held is not None
    assert (held.reason, held.until) == (Reason.CIRCUIT_OPEN, NOW + FIRST_PAUSE)
    assert held.detail == "buildium is unavailable and is not called before 2026-03-01T12:00:30Z"
    assert trial is None
    assert beside is not None
    assert (beside.reason, beside.until) == (Reason.CIRCUIT_OPEN, NOW + FIRST_PAUSE)
    assert breakers.hold(OTHER, NOW) is breakers.hold(BUILDIUM, NOW + FIRST_PAUSE) is None
    assert moves.moves == [("org", "buildium", state) for state in ("open", "half_open", "ramping")]


def test_only_a_failed_trial_call_holds_its_record() -> None:
    """The record of a trial call keeps its attempts."""
    breakers = Breakers(NullObserver())
    ends = [breakers.ended(BUILDIUM, entity, DOWN, NOW) for entity in range(FAILURES)]
    late = breakers.ended(BUILDIUM, "late", DOWN, NOW)
    at = NOW + FIRST_PAUSE
    assert breakers.hold(BUILDIUM, at) is None
    held = breakers.ended(BUILDIUM, 1, DOWN, at)

    assert [*ends, late] == [None] * (FAILURES + 1)
    assert held is not None
    assert (held.reason, held.until) == (Reason.CIRCUIT_OPEN, at + 2 * FIRST_PAUSE)
    assert held.detail == "buildium is not called before 2026-03-01T12:01:30Z: down"


@pytest.mark.parametrize(
    ("answer", "pause"),
    [
        (Throttled("slow", 3600), 3600),
        (Throttled("slow", 1), 60),
        (Throttled("slow"), 60),
        (Unavailable("down", 503, 1800), 1800),
        (Unavailable("down", 503, 5), 30),
    ],
)
def test_a_pause_that_is_asked_for_holds_everything_until_its_end(answer: Throttled | Unavailable, pause: int) -> None:
    """At the first answer of this kind, without using up an attempt; 429 pauses for a minute at the least."""
    breakers, end = Breakers(NullObserver()), NOW + timedelta(seconds=pause)
    asked = breakers.ended(BUILDIUM, 1, answer, NOW)
    almost = breakers.hold(BUILDIUM, end - timedelta(seconds=1))

    assert asked is not None
    assert asked.until == end
    assert asked.reason is (Reason.THROTTLED if isinstance(answer, Throttled) else Reason.CIRCUIT_OPEN)
    assert almost is not None
    assert almost.until == end
    assert breakers.hold(BUILDIUM, end) is None
    assert breakers.hold(OTHER, NOW) is None


def test_an_answer_to_an_earlier_call_does_not_shorten_a_pause_that_was_asked_for() -> None:
    """A later answer may extend it."""
    breakers = Breakers(NullObserver())
    breakers.ended(BUILDIUM, 1, Throttled("slow", 600), NOW)
    breakers.ended(BUILDIUM, 2, Accepted(200), NOW)
    breakers.ended(BUILDIUM, 3, DOWN, NOW)
    breakers.ended(BUILDIUM, 4, Throttled("slow", 900), NOW)
    breakers.ended(BUILDIUM, 5, Throttled("slow", 60), NOW)
    held = breakers.hold(BUILDIUM, NOW + timedelta(seconds=899))

    assert held is not None
    assert held.until == NOW + timedelta(seconds=900)
    assert breakers.hold(BUILDIUM, NOW + timedelta(seconds=900)) is None


@pytest.mark.parametrize("answer", [Rejected("no"), Unauthorized("key"), Missing("gone"), None])
def test_a_refusal_is_no_failure(answer: object) -> None:
    breakers = Breakers(NullObserver())
    for entity in range(FAILURES * 2):
        breakers.ended(BUILDIUM, entity, DOWN if entity % 2 else answer, NOW)
        breakers.ended(BUILDIUM, -entity, answer, NOW)

    assert breakers.hold(BUILDIUM, NOW) is None


@pytest.mark.parametrize(
    ("answer", "reason"), [(Unauthorized("wrong key"), Reason.UNAUTHORIZED), (Missing("no such path"), Reason.MISSING)]
)
def test_a_refused_configuration_opens_it_at_once_and_holds_its_record(
    answer: Unauthorized | Missing, reason: Reason
) -> None:
    """Trials go on, in case that the outside was wrong; a changed configuration does not wait for them."""
    breakers = Breakers(NullObserver())
    refused = breakers.ended(BUILDIUM, 1, answer, NOW, refusal=answer)
    held = breakers.hold(BUILDIUM, NOW)
    at = NOW + FIRST_PAUSE
    trial = breakers.hold(BUILDIUM, at)
    beside = breakers.hold(BUILDIUM, at)
    again = breakers.ended(BUILDIUM, 2, answer, at, refusal=answer)

    assert refused is not None
    assert again == refused
    assert (refused.reason, refused.until) == (reason, None)
    assert refused.detail == f"buildium is on hold until its configuration is corrected: {answer.detail}"
    assert held is not None
    assert (held.reason, held.until) == (Reason.CIRCUIT_OPEN, NOW + FIRST_PAUSE)
    assert held.detail == "buildium refuses its configuration and is not called before 2026-03-01T12:00:30Z"
    assert trial is None
    assert beside is not None
    assert beside.detail == "buildium refused its configuration, and a trial call is in flight"
    assert breakers.hold(BUILDIUM, at + FIRST_PAUSE) is not None
    assert breakers.hold(BUILDIUM._replace(version=1), at) is None


@pytest.mark.parametrize("step", [timedelta(hours=-6), timedelta(hours=6)])
def test_a_step_of_the_clock_neither_prolongs_nor_ends_a_pause(step: timedelta) -> None:
    """The hold names the end of the pause by the clock as it is."""
    seconds = 1000.0
    breakers = Breakers(NullObserver(), monotonic=lambda: seconds)
    for entity in range(FAILURES):
        breakers.ended(BUILDIUM, entity, DOWN, NOW)
    seconds += 10
    now = NOW + step
    held = breakers.hold(BUILDIUM, now)
    seconds += FIRST_PAUSE.total_seconds() - 10

    assert held is not None
    assert held.until == now + FIRST_PAUSE - timedelta(seconds=10)
    assert breakers.hold(BUILDIUM, now) is None


def test_an_answer_after_a_refusal_closes_it() -> None:
    breakers, refusal = Breakers(NullObserver()), Unauthorized("wrong key")
    breakers.ended(BUILDIUM, 1, refusal, NOW, refusal=refusal)
    breakers.ended(BUILDIUM, 2, Accepted(200), NOW)

    assert breakers.hold(BUILDIUM, NOW) is None


# ------------------------------------------------------------------------------------------------------------- reports


class Log:
    """The last report about each integration, as a directory has it; a test decides when it is written."""

    def __init__(self) -> None:
        self.reports: dict[tuple[str, str], HoldReport] = {}

    def last(self, org: str, name: str) -> HoldReport | None:
        return self.reports.get((org, name))

    def write(self, breakers: Breakers) -> HoldReport | None:
        """Write what is due about `BUILDIUM`; return it."""
        for emit in breakers.reports(BUILDIUM.org, BUILDIUM.name):
            assert isinstance(emit.record, HoldReport)
            self.reports[BUILDIUM.org, BUILDIUM.name] = emit.record
            return emit.record
        return None

    def worker(self) -> Breakers:
        return Breakers(NullObserver(), reported=self.last)


def test_a_hold_is_reported_when_it_begins_goes_on_and_ends() -> None:
    log = Log()
    breakers = log.worker()
    assert breakers.hold(BUILDIUM, NOW) is None
    breakers.ended(BUILDIUM, 1, DOWN, NOW)
    assert log.write(breakers) is None
    refusal = Unauthorized("wrong key")
    breakers.ended(BUILDIUM, 1, refusal, NOW, refusal=refusal)
    begun = log.write(breakers)
    assert begun is not None
    assert (begun.reason, begun.detail, begun.refused) == ("unauthorized", "wrong key", True)
    assert (begun.since, begun.until, begun.pause_seconds) == (NOW, NOW + FIRST_PAUSE, 30)

    trial = NOW + FIRST_PAUSE
    assert breakers.hold(BUILDIUM, trial) is None
    assert log.write(breakers) is None
    breakers.ended(BUILDIUM, 1, DOWN, trial)
    longer = log.write(breakers)
    assert longer is not None
    assert (longer.reason, longer.since, longer.until) == ("circuit_open", NOW, trial + 2 * FIRST_PAUSE)

    later = trial + 2 * FIRST_PAUSE
    assert breakers.hold(BUILDIUM, later) is None
    breakers.ended(BUILDIUM, 1, Accepted(200), later)
    assert breakers.hold(BUILDIUM, later) is None, "its last report still shows the hold"
    ended = log.write(breakers)
    assert ended is not None
    assert (ended.since, ended.until) == (NOW, None)
    assert log.write(breakers) is None


def test_a_new_owner_begins_with_the_hold_and_with_its_pause() -> None:
    log = Log()
    first = log.worker()
    first.ended(BUILDIUM, 1, Throttled("slow", 600), NOW)
    log.write(first)
    second = log.worker()
    held = second.hold(BUILDIUM, NOW + timedelta(seconds=599))
    assert held is not None
    assert held.until == NOW + timedelta(seconds=600)
    assert second.hold(OTHER, NOW) is second.hold(BUILDIUM._replace(version=1), NOW) is None

    at = NOW + timedelta(seconds=600)
    assert second.hold(BUILDIUM, at) is None
    assert second.hold(BUILDIUM, at) is not None, "one trial, not five calls"
    second.ended(BUILDIUM, 1, DOWN, at)
    again = log.write(second)
    assert again is not None
    assert (again.since, again.until) == (NOW, at + 2 * FIRST_PAUSE)


def test_a_person_ends_a_hold() -> None:
    log = Log()
    breakers = log.worker()
    breakers.ended(BUILDIUM, 1, Throttled("slow", 600), NOW)
    report = log.write(breakers)
    assert report is not None
    log.reports[BUILDIUM.org, BUILDIUM.name] = report.model_copy(update={"until": None})

    assert breakers.hold(BUILDIUM, NOW) is None
    assert breakers.hold(BUILDIUM, NOW) is not None, "the trial is in flight"
    breakers.ended(BUILDIUM, 1, Throttled("slow", 60), NOW)
    assert breakers.hold(BUILDIUM, NOW) is not None
    further = log.write(breakers)
    assert further is not None
    assert further.until == NOW + timedelta(seconds=60)


def test_the_end_of_an_earlier_hold_does_not_end_this_one() -> None:
    log = Log()
    breakers = log.worker()
    breakers.ended(BUILDIUM, 1, Throttled("slow", 60), NOW)
    report = log.write(breakers)
    assert report is not None
    at = NOW + timedelta(seconds=60)
    assert breakers.hold(BUILDIUM, at) is None
    breakers.ended(BUILDIUM, 1, Accepted(200), at)
    log.write(breakers)
    breakers.ended(BUILDIUM, 1, Throttled("slow", 600), at)
    assert breakers.hold(BUILDIUM, at + timedelta(seconds=1)) is not None


def test_what_another_worker_may_have_called_is_forgotten() -> None:
    log = Log()
    breakers = log.worker()
    breakers.ended(BUILDIUM, 1, Throttled("slow", 600), NOW)
    log.write(breakers)
    log.reports.clear()
    assert breakers.hold(BUILDIUM, NOW) is not None
    breakers.forget(lambda org: org == BUILDIUM.org)
    assert breakers.hold(BUILDIUM, NOW) is None


def test_a_report_of_a_clock_that_was_ahead_holds_for_a_day_at_the_most() -> None:
    log = Log()
    ahead = log.worker()
    ahead.ended(BUILDIUM, 1, Throttled("slow", 60), NOW + timedelta(days=30))
    log.write(ahead)
    breakers = log.worker()
    assert breakers.hold(BUILDIUM, NOW) is not None
    assert breakers.hold(BUILDIUM, NOW + LONGEST_HOLD) is None


# ------------------------------------------------------------------------------------------ rejections in a row


def rejected(entities: int, breakers: Breakers, detail: str = "RentSync answered 422: 'x' is missing") -> list[object]:
    """Let so many different entities be rejected; return the hold of each record."""
    return [
        breakers.ended(BUILDIUM, number, Rejected(f"{detail} (unit {number})", 422), NOW, alike=True)
        for number in range(entities)
    ]


def test_rejections_in_a_row_for_one_reason_hold_what_comes_after_them() -> None:
    """The last of them keeps its attempts as well; a trial that is rejected prolongs the hold, for any reason."""
    breakers = Breakers(NullObserver())
    *dead, last = rejected(REJECTIONS, breakers)
    assert dead == [None] * (REJECTIONS - 1)
    assert isinstance(last, Held)
    assert (last.reason, last.until) == (Reason.REJECTED, NOW + FIRST_PAUSE)
    assert f"buildium has rejected {REJECTIONS} in a row for one reason" in last.detail
    (report,) = (one.record for one in breakers.reports("org", "buildium"))
    assert isinstance(report, HoldReport)
    assert (report.reason, report.refused, report.until) == ("rejected", False, NOW + FIRST_PAUSE)

    assert breakers.hold(BUILDIUM, NOW) is not None
    later = NOW + FIRST_PAUSE
    assert breakers.hold(BUILDIUM, later) is None
    trial = breakers.ended(BUILDIUM, "e", Rejected("another reason", 400), later, alike=True)
    assert isinstance(trial, Held)
    assert trial.until == later + 2 * FIRST_PAUSE
    latest = later + 2 * FIRST_PAUSE
    assert breakers.hold(BUILDIUM, latest) is None
    assert breakers.ended(BUILDIUM, "e", Accepted(200), latest, alike=True) is None
    assert breakers.hold(BUILDIUM, latest) is None


def test_a_new_owner_takes_a_rejected_trial_as_failed() -> None:
    breakers = Breakers(NullObserver())
    rejected(REJECTIONS, breakers)
    (report,) = (one.record for one in breakers.reports("org", "buildium"))
    assert isinstance(report, HoldReport)
    heir = Breakers(NullObserver(), reported=lambda _org, _name: report)
    later = NOW + FIRST_PAUSE
    assert heir.hold(BUILDIUM, later) is None
    assert isinstance(heir.ended(BUILDIUM, "e", Rejected("RentSync answered 422", 422), later, alike=True), Held)


@pytest.mark.parametrize("between", ["an answer", "another reason", "one entity", "commands"])
def test_other_rejections_hold_nothing(between: str) -> None:
    breakers, held = Breakers(NullObserver()), list[object]()
    for number in range(2 * REJECTIONS):
        entity = "e" if between == "one entity" else number
        words = f"reason {chr(97 + number % 2)}" if between == "another reason" else "one reason"
        answer = Accepted(200) if between == "an answer" and number % 7 == 0 else Rejected(words, 422)
        held.append(breakers.ended(BUILDIUM, entity, answer, NOW, alike=between != "commands"))
    assert held == [None] * 2 * REJECTIONS
    assert breakers.hold(BUILDIUM, NOW) is None
