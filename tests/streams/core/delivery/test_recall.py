"""What is tried again although no record brings it back, and when."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.delivery import DeliveryPhase, DeliveryRow
from streams.core.delivery.recall import (
    LONGEST_PAUSE,
    LONGEST_PAUSE_OF_CONTENT,
    LOST_AFTER,
    OF_CONTENT,
    TRIAL_AFTER,
    Delivery,
    recalled,
)
from streams.core.retry import Reason
from tests.streams.core.delivery.offers import NOW

MINUTE = timedelta(minutes=1)


def owed(number: int = 1, *, at: datetime = NOW, swept_at: datetime | None = None, **facts: Any) -> Delivery:
    """Return a delivery that was given up."""
    given: dict[str, Any] = {"given_up": 1, "dead_letter": Reason.EXHAUSTED.value, **facts}
    row = DeliveryRow(phase=DeliveryPhase.OWED, given_up_at=at, **given)
    return Delivery(b"%d" % number, row, swept_at, at)


def on_its_way(phase: DeliveryPhase, number: int = 1, *, since: datetime = NOW, **facts: Any) -> Delivery:
    return Delivery(b"%d" % number, DeliveryRow(phase=phase, **facts), None, since)


def test_what_was_given_up_rests_until_something_happens() -> None:
    assert recalled([owed()], None, NOW + MINUTE) == ()
    assert recalled([owed(swept_at=NOW - MINUTE)], NOW - MINUTE, NOW + MINUTE) == ()


def test_everything_goes_out_once_the_receiver_answers_again() -> None:
    both = [owed(1), owed(2, at=NOW + MINUTE)]

    assert recalled(both, NOW + 2 * MINUTE, NOW + 3 * MINUTE) == tuple(both)


def test_everything_goes_out_after_the_next_complete_sweep() -> None:
    swept = owed(1, swept_at=NOW + MINUTE)

    assert recalled([swept, owed(2)], None, NOW + 2 * MINUTE) == (swept,)


def test_a_time_of_a_clock_that_is_ahead_delays_nothing() -> None:
    """What counts then is since when this process has seen the row as it is."""
    ahead = replace(owed(at=NOW + timedelta(hours=6)), unchanged_since=NOW)

    assert recalled([ahead], NOW + MINUTE, NOW + 2 * MINUTE) == (ahead,)
    assert recalled([ahead], None, NOW + TRIAL_AFTER) == (ahead,)


@pytest.mark.parametrize("reason", sorted(OF_CONTENT))
def test_content_that_was_refused_is_tried_after_a_sweep_only(reason: Reason) -> None:
    """That others are accepted proves nothing about it, and neither does time."""
    refused = owed(dead_letter=reason.value)
    swept = owed(dead_letter=reason.value, swept_at=NOW + MINUTE)

    assert recalled([refused], NOW + MINUTE, NOW + timedelta(days=2)) == ()
    assert recalled([swept], None, NOW + 2 * MINUTE) == (swept,)


def test_without_any_answer_one_delivery_at_a_time_is_a_trial() -> None:
    """The oldest; the next one only after it has failed as well."""
    first, second = owed(1), owed(2, at=NOW + MINUTE)

    assert recalled([second, first], None, NOW + TRIAL_AFTER) == ()
    assert recalled([second, first], None, NOW + MINUTE + TRIAL_AFTER) == (first,)
    failed = owed(1, at=NOW + 12 * MINUTE, given_up=2)
    assert recalled([second, failed], None, NOW + 13 * MINUTE) == ()
    assert recalled([second, failed], None, NOW + 12 * MINUTE + TRIAL_AFTER) == (second,)


@pytest.mark.parametrize("phase", [DeliveryPhase.IN_FLIGHT, DeliveryPhase.WAITING])
def test_what_is_on_its_way_to_the_receiver_is_the_trial(phase: DeliveryPhase) -> None:
    later = NOW + TRIAL_AFTER + MINUTE

    assert recalled([owed(1), on_its_way(phase, 2, since=later)], None, later) == ()


def test_what_fails_again_and_again_is_tried_at_growing_intervals() -> None:
    """So that a receiver that answers for others only is not called without end."""

    def rests(given_up: int, **facts: Any) -> timedelta:
        minutes = range(25 * 60)
        return next(
            MINUTE * after
            for after in minutes
            if recalled(
                [owed(given_up=given_up, swept_at=NOW + timedelta(days=2), **facts)], None, NOW + MINUTE * after
            )
        )

    assert [rests(number) // MINUTE for number in (1, 2, 3, 4, 5, 6, 60)] == [0, 1, 2, 4, 8, 10, 10]
    refused = {"dead_letter": Reason.REJECTED.value}
    assert [rests(number, **refused) // MINUTE for number in (1, 2, 3, 9, 60)] == [0, 15, 30, 1440, 1440]
    assert (LONGEST_PAUSE, LONGEST_PAUSE_OF_CONTENT) == (10 * MINUTE, 1440 * MINUTE)


def test_a_delivery_whose_outcome_was_lost_is_tried_again() -> None:
    """It has not changed for a long time in the eyes of this process, which may have begun late."""
    lost = on_its_way(DeliveryPhase.IN_FLIGHT)

    assert recalled([lost], None, NOW + LOST_AFTER - MINUTE) == ()
    assert recalled([lost], None, NOW + LOST_AFTER) == (lost,)


def test_a_delivery_that_waits_is_lost_long_after_it_was_due() -> None:
    due = NOW + timedelta(hours=2)
    lost = on_its_way(DeliveryPhase.WAITING, due_at=due)

    assert recalled([lost], None, due + LOST_AFTER - MINUTE) == ()
    assert recalled([lost], None, due + LOST_AFTER) == (lost,)


@given(
    st.sampled_from([phase for phase in DeliveryPhase if phase is not DeliveryPhase.IDLE]),
    st.integers(0, 100),
    st.sampled_from([None, *(reason.value for reason in Reason)]),
)
def test_nothing_rests_for_ever(phase: DeliveryPhase, given_up: int, reason: str | None) -> None:
    """As long as sweeps complete, every state has a way out."""
    row = DeliveryRow(phase=phase, given_up=given_up, given_up_at=NOW, dead_letter=reason)
    later = NOW + timedelta(days=2)

    assert recalled([Delivery(b"1", row, NOW + timedelta(days=1), NOW)], None, later)
