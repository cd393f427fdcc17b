"""The transition table: total, closed, and the source of its page in the docs."""

import re
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest

from schemas.delivery import DeliveryDue, DeliveryOutcome, DeliveryPhase, DeliveryResult, DeliveryRow, DueReason
from streams.core.delivery.states import RESULTS, TRANSITIONS, Action, Event, event_of, markdown
from streams.core.flows import Disposition

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
IDLE, IN_FLIGHT, WAITING = DeliveryPhase.IDLE, DeliveryPhase.IN_FLIGHT, DeliveryPhase.WAITING
OWED = DeliveryPhase.OWED
ROOT = Path(__file__).resolve().parents[4]


def test_every_phase_has_a_transition_for_every_event() -> None:
    assert {(phase, event) for phase, events in TRANSITIONS.items() for event in events} == {
        *product(DeliveryPhase, Event)
    }


def test_every_result_is_an_event() -> None:
    """One that a newer version wrote ends the delivery as unconfirmed."""
    assert set(RESULTS) == set(DeliveryResult)
    assert RESULTS[DeliveryResult.UNKNOWN] is Event.DEAD


def test_every_action_is_used() -> None:
    assert {found.action for events in TRANSITIONS.values() for found in events.values()} == set(Action)


def test_no_transition_leads_to_an_unknown_phase() -> None:
    reached = {found.phase for events in TRANSITIONS.values() for found in events.values()}
    assert reached == {IDLE, IN_FLIGHT, WAITING, OWED}


def test_every_phase_has_a_way_back_to_idle() -> None:
    """By an outcome, and by a cut that holds nothing."""
    for phase in DeliveryPhase:
        for event in (Event.ACKNOWLEDGED, Event.CANCELLED, Event.CUT_EMPTY):
            assert TRANSITIONS[phase][event].phase is IDLE


def test_what_was_given_up_stays_owed_until_it_is_acknowledged_or_void() -> None:
    for phase in (IN_FLIGHT, WAITING):
        assert TRANSITIONS[phase][Event.DEAD].phase is OWED
    leaving = {event for event, found in TRANSITIONS[OWED].items() if found.phase is IDLE}
    assert leaving == {Event.ACKNOWLEDGED, Event.CANCELLED, Event.CUT_EMPTY}


def test_a_batch_leaves_by_a_cut_only_and_a_cut_only_follows_a_reason() -> None:
    """One place decides what is sent; a parked or acknowledged delivery sends nothing by itself."""
    cutting = {
        (phase, event)
        for phase, events in TRANSITIONS.items()
        for event, found in events.items()
        if found.action in (Action.CUT, Action.WITHDRAW)
    }
    assert cutting == {
        *product((IDLE,), (Event.DUE, Event.WITHDRAWN)),
        *product((IN_FLIGHT, DeliveryPhase.UNKNOWN), (Event.RETRY, Event.REPEATED)),
        (WAITING, Event.RETRY),
        *product((OWED,), (Event.DUE, Event.RETRY)),
    }
    for phase, events in TRANSITIONS.items():
        sending = {event for event, found in events.items() if found.action is Action.SEND}
        assert sending == {Event.CUT}
        assert events[Event.CUT].phase is IN_FLIGHT
        assert all(found.phase is phase for found in events.values() if found.action is Action.CUT) or (
            phase is DeliveryPhase.UNKNOWN
        )


def test_a_change_while_a_delivery_is_on_its_way_only_marks_the_row() -> None:
    for phase in (IN_FLIGHT, WAITING):
        assert (TRANSITIONS[phase][Event.DUE].phase, TRANSITIONS[phase][Event.DUE].action) == (phase, Action.MARK)


def test_a_superseded_record_changes_no_phase() -> None:
    for phase in (IDLE, IN_FLIGHT, WAITING, OWED):
        found = TRANSITIONS[phase][Event.SUPERSEDED]
        assert (found.phase, found.action, found.disposition) == (phase, Action.VOID, Disposition.IGNORED)


# ------------------------------------------------------------------------------------------------ which event it is


def due(reason: DueReason, version: int | None = None, attempt: int = 0) -> DeliveryDue:
    return DeliveryDue(
        org="o", connection="c", property_id=1, reason=reason, seen_at=NOW, sink="s", version=version, attempt=attempt
    )


def outcome(result: DeliveryResult, version: int, attempt: int) -> DeliveryOutcome:
    return DeliveryOutcome(
        org="o", connection="c", sink="s", property_id=1, version=version, result=result, attempt=attempt, at=NOW
    )


ROW = DeliveryRow(phase=IN_FLIGHT, version=3, attempt=2, cause="due:7")


@pytest.mark.parametrize(
    ("record", "event"),
    [
        (due(DueReason.CHANGED), Event.DUE),
        (due(DueReason.UNKNOWN), Event.DUE),
        (due(DueReason.RETRY, 3, 2), Event.RETRY),
        (due(DueReason.RETRY, 3, 3), Event.RETRY),
        (due(DueReason.RETRY, 3, 1), Event.SUPERSEDED),
        (due(DueReason.RETRY, 2, 2), Event.SUPERSEDED),
        (due(DueReason.RETRY), Event.SUPERSEDED),
        (outcome(DeliveryResult.ACKNOWLEDGED, 3, 1), Event.ACKNOWLEDGED),
        (outcome(DeliveryResult.ACKNOWLEDGED, 2, 2), Event.SUPERSEDED),
        (outcome(DeliveryResult.WAITING, 3, 2), Event.PARKED),
        (outcome(DeliveryResult.WAITING, 3, 1), Event.SUPERSEDED),
        (outcome(DeliveryResult.WAITING, 4, 2), Event.SUPERSEDED),
        (outcome(DeliveryResult.DEAD, 3, 2), Event.DEAD),
        (outcome(DeliveryResult.CANCELLED, 3, 2), Event.CANCELLED),
        (outcome(DeliveryResult.UNKNOWN, 3, 2), Event.DEAD),
    ],
)
def test_a_record_is_an_event_of_the_delivery_that_is_on_its_way(
    record: DeliveryDue | DeliveryOutcome, event: Event
) -> None:
    """An older delivery or attempt is superseded; the record that started this one is repeated, whatever it is."""
    assert event_of(ROW, record, "due:8") is event
    assert event_of(ROW, record, "due:7") is Event.REPEATED


def test_nothing_is_cut_for_a_receiver_that_is_disabled() -> None:
    """A change is no event; a delivery that would be cut again is cancelled; an outcome counts as ever."""
    changed, retried = due(DueReason.CHANGED), due(DueReason.RETRY, 3, 2)
    assert event_of(ROW, changed, "due:8", enabled=False) is None
    assert event_of(ROW, retried, "due:8", enabled=False) is Event.CANCELLED
    assert event_of(ROW, changed, "due:7", enabled=False) is Event.CANCELLED
    assert event_of(ROW, due(DueReason.RETRY, 2, 2), "due:8", enabled=False) is Event.SUPERSEDED
    for result, event in RESULTS.items():
        assert event_of(ROW, outcome(result, 3, 2), "outcomes:8", enabled=False) is event


# ---------------------------------------------------------------------------------------------------------- the docs


def test_the_page_in_the_docs_is_current() -> None:
    """`make docs` writes it."""
    assert (ROOT / "docs" / "delivery.md").read_text(encoding="utf-8") == markdown()


def test_the_page_has_every_transition_and_the_diagram_every_change() -> None:
    page = markdown()
    rows = {tuple(cells) for cells in re.findall(r"^\| `(\w+)` \| `(\w+)` \|", page, re.MULTILINE)}
    assert rows == {*product((IDLE, IN_FLIGHT, WAITING, OWED), Event)}
    edges = {
        (start, end): set(labels.split(", "))
        for start, end, labels in re.findall(r"^  (\w+) --> (\w+) : (.+)$", page, re.MULTILINE)
    }
    assert edges == {
        ("idle", "cutting"): {"due", "withdrawn"},
        ("cutting", "in_flight"): {"cut"},
        ("cutting", "idle"): {"cut_empty"},
        ("in_flight", "in_flight"): {"due"},
        ("in_flight", "cutting"): {"retry", "repeated"},
        ("in_flight", "idle"): {"acknowledged", "cancelled"},
        ("in_flight", "owed"): {"dead"},
        ("in_flight", "waiting"): {"parked"},
        ("waiting", "waiting"): {"due", "parked"},
        ("waiting", "cutting"): {"retry"},
        ("waiting", "idle"): {"acknowledged", "cancelled"},
        ("waiting", "owed"): {"dead"},
        ("owed", "cutting"): {"due", "retry"},
        ("owed", "idle"): {"acknowledged", "cancelled"},
    }
