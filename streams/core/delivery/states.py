"""The states of a delivery of one property to one receiver: THE TRANSITION TABLE.

Rule 1: every transition is in `TRANSITIONS`, every choice of an event is in `event_of`, and nothing else changes the
phase of a row. `machine` performs the actions; ``docs/delivery.md`` is generated from the table.

Rule 2: the table is total. Each phase has a transition for each event, also for one that seems impossible: records come
again, late, and in any order.

Rule 3: one batch of a property is on its way to a receiver at a time. What changes meanwhile only leaves a mark; after
the outcome, or with the retry, one batch with the newest state follows.

Rule 4: nothing waits with an old payload. A retry cuts the batch again; the same content repeats the same bytes.

Rule 5: what a receiver has not acknowledged stays unconfirmed and is sent again by the next cut, whatever it is then.

Rule 6: a delivery that was given up is still owed. Only an acknowledgement, a cut that holds nothing or the end of the
receiver ends that; `recall` decides when it is tried again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from schemas.delivery import DeliveryDue, DeliveryOutcome, DeliveryPhase, DeliveryResult, DeliveryRow, DueReason
from streams.core.flows import Disposition


class Event(StrEnum):
    """What happens to a delivery."""

    DUE = "due"
    """The receiver may not know the present state of the property."""
    WITHDRAWN = "withdrawn"
    """Units may have become unavailable; `Event.DUE` follows."""
    RETRY = "retry"
    """The delivery comes back from its rung."""
    REPEATED = "repeated"
    """The record that started the delivery is consumed again, after a crash."""
    SUPERSEDED = "superseded"
    """A retry or an outcome of an older delivery or attempt, or a scheduled snapshot that was asked for before."""
    ACKNOWLEDGED = "acknowledged"
    PARKED = "parked"
    """The attempt failed; its retry waits on a rung."""
    DEAD = "dead"
    """The last attempt failed, or no attempt can succeed."""
    CANCELLED = "cancelled"
    """The receiver was disabled, deleted or replaced before it answered."""
    CUT = "cut"
    """The cut that an action asked for holds something to send."""
    CUT_EMPTY = "cut_empty"
    """It holds nothing: the receiver knows everything, or nothing is offered."""


class Action(StrEnum):
    """What the machine does on a transition, besides setting the phase."""

    NOTHING = "nothing"
    CUT = "cut what the receiver does not know"
    """`Event.CUT` or `Event.CUT_EMPTY` follows at once."""
    WITHDRAW = "cut only units that are not available, if the receiver has the property"
    """`Event.CUT` or `Event.CUT_EMPTY` follows at once."""
    SEND = "emit the batch"
    MARK = "mark the row as changed"
    WAIT = "keep the reason of the failure"
    CONFIRM = "remember what was sent as known"
    """If the row is marked or the receiver was replaced, `Event.DUE` follows at once."""
    GIVE_UP = "keep the reason and the time; what was sent stays unconfirmed"
    """If the row is marked or the receiver was replaced, `Event.DUE` follows at once."""
    CANCEL = "keep the reason; what was sent stays unconfirmed"
    """If the row is marked or the receiver was replaced, `Event.DUE` follows at once."""
    REST = "end the delivery"
    VOID = "count the record as superseded"


_CUTS = (Action.CUT, Action.WITHDRAW)


@dataclass(frozen=True, slots=True)
class Transition:
    """Where a phase goes on an event, what is done, and how the record counts."""

    phase: DeliveryPhase
    action: Action
    disposition: Disposition = Disposition.APPLIED
    """Of `Action.CUT`: if a batch follows; else that of `Event.CUT_EMPTY`."""


_IDLE, _IN_FLIGHT, _WAITING = DeliveryPhase.IDLE, DeliveryPhase.IN_FLIGHT, DeliveryPhase.WAITING
_OWED = DeliveryPhase.OWED

_ON_ITS_WAY = {
    Event.DUE: Transition(_IN_FLIGHT, Action.MARK),
    # One batch of a property is on its way at a time: what is due follows it.
    Event.WITHDRAWN: Transition(_IN_FLIGHT, Action.NOTHING, Disposition.IGNORED),
    # A retry may overtake the outcome that announces it: they travel on different topics.
    Event.RETRY: Transition(_IN_FLIGHT, Action.CUT),
    # The crash may have come before the batch was durable.
    Event.REPEATED: Transition(_IN_FLIGHT, Action.CUT, Disposition.DUPLICATE),
    Event.SUPERSEDED: Transition(_IN_FLIGHT, Action.VOID, Disposition.IGNORED),
    Event.ACKNOWLEDGED: Transition(_IDLE, Action.CONFIRM),
    Event.PARKED: Transition(_WAITING, Action.WAIT),
    Event.DEAD: Transition(_OWED, Action.GIVE_UP),
    Event.CANCELLED: Transition(_IDLE, Action.CANCEL),
    Event.CUT: Transition(_IN_FLIGHT, Action.SEND),
    Event.CUT_EMPTY: Transition(_IDLE, Action.REST, Disposition.IGNORED),
}

TRANSITIONS: Mapping[DeliveryPhase, Mapping[Event, Transition]] = {
    _IDLE: {
        Event.DUE: Transition(_IDLE, Action.CUT),
        Event.WITHDRAWN: Transition(_IDLE, Action.WITHDRAW),
        Event.RETRY: Transition(_IDLE, Action.VOID, Disposition.IGNORED),
        Event.REPEATED: Transition(_IDLE, Action.NOTHING, Disposition.DUPLICATE),
        Event.SUPERSEDED: Transition(_IDLE, Action.VOID, Disposition.IGNORED),
        Event.ACKNOWLEDGED: Transition(_IDLE, Action.VOID, Disposition.IGNORED),
        Event.PARKED: Transition(_IDLE, Action.VOID, Disposition.IGNORED),
        Event.DEAD: Transition(_IDLE, Action.VOID, Disposition.IGNORED),
        Event.CANCELLED: Transition(_IDLE, Action.VOID, Disposition.IGNORED),
        Event.CUT: Transition(_IN_FLIGHT, Action.SEND),
        Event.CUT_EMPTY: Transition(_IDLE, Action.REST, Disposition.IGNORED),
    },
    _IN_FLIGHT: _ON_ITS_WAY,
    _WAITING: _ON_ITS_WAY
    | {
        Event.DUE: Transition(_WAITING, Action.MARK),
        Event.WITHDRAWN: Transition(_WAITING, Action.NOTHING, Disposition.IGNORED),
        Event.RETRY: Transition(_WAITING, Action.CUT),
        # The outcome since then proves that the batch was durable.
        Event.REPEATED: Transition(_WAITING, Action.NOTHING, Disposition.DUPLICATE),
        Event.SUPERSEDED: Transition(_WAITING, Action.VOID, Disposition.IGNORED),
    },
    _OWED: {
        Event.DUE: Transition(_OWED, Action.CUT),
        Event.WITHDRAWN: Transition(_OWED, Action.NOTHING, Disposition.IGNORED),
        Event.RETRY: Transition(_OWED, Action.CUT),
        # The outcome since then proves that the batch was durable.
        Event.REPEATED: Transition(_OWED, Action.NOTHING, Disposition.DUPLICATE),
        Event.SUPERSEDED: Transition(_OWED, Action.VOID, Disposition.IGNORED),
        # An attempt that was made twice, after a crash: the receiver has it all the same.
        Event.ACKNOWLEDGED: Transition(_IDLE, Action.CONFIRM),
        Event.PARKED: Transition(_OWED, Action.VOID, Disposition.IGNORED),
        Event.DEAD: Transition(_OWED, Action.VOID, Disposition.IGNORED),
        Event.CANCELLED: Transition(_IDLE, Action.CANCEL),
        Event.CUT: Transition(_IN_FLIGHT, Action.SEND),
        Event.CUT_EMPTY: Transition(_IDLE, Action.REST, Disposition.IGNORED),
    },
    # A phase that a newer version wrote: its delivery is on its way, and its outcome or retry ends the phase.
    DeliveryPhase.UNKNOWN: _ON_ITS_WAY,
}

RESULTS: Mapping[DeliveryResult, Event] = {
    DeliveryResult.ACKNOWLEDGED: Event.ACKNOWLEDGED,
    DeliveryResult.WAITING: Event.PARKED,
    DeliveryResult.DEAD: Event.DEAD,
    DeliveryResult.CANCELLED: Event.CANCELLED,
    # A result that a newer version wrote: nothing proves that the receiver has it.
    DeliveryResult.UNKNOWN: Event.DEAD,
}


def event_of(
    row: DeliveryRow, record: DeliveryDue | DeliveryOutcome, cause: str, *, enabled: bool = True
) -> Event | None:
    """Return what a record means for a row; ``cause`` is the record's ``topic:offset``.

    A receiver that is not ``enabled`` is sent nothing: what would be cut again is cancelled, a change is no event.
    """
    event = _event_of(row, record, cause)
    if enabled or event not in (Event.DUE, Event.WITHDRAWN, Event.RETRY, Event.REPEATED):
        return event
    return None if event in (Event.DUE, Event.WITHDRAWN) else Event.CANCELLED


def _event_of(row: DeliveryRow, record: DeliveryDue | DeliveryOutcome, cause: str) -> Event:
    if row.cause == cause:
        return Event.REPEATED
    if isinstance(record, DeliveryDue):
        if record.snapshot_at is not None and row.snapshot_due is not None and record.snapshot_at <= row.snapshot_due:
            return Event.SUPERSEDED
        if record.reason is DueReason.WITHDRAWN:
            return Event.WITHDRAWN
        if record.reason is not DueReason.RETRY:
            return Event.DUE
        current = record.version == row.version and record.attempt >= row.attempt
        return Event.RETRY if current else Event.SUPERSEDED
    current = record.version == row.version
    if record.result is DeliveryResult.WAITING:
        current = current and record.attempt >= row.attempt
    return RESULTS[record.result] if current else Event.SUPERSEDED


# ---------------------------------------------------------------------------------------------------- docs/delivery.md


def markdown() -> str:
    """Return the text of ``docs/delivery.md``."""
    phases = (_IDLE, _IN_FLIGHT, _WAITING, _OWED)
    lines = [
        "# Deliveries",
        "",
        "Written by `make docs` from `streams/core/delivery/states.py`; edit that.",
        "",
        "The state of one property at one receiver, as table `deliveries` keeps it. Transitions that change nothing",
        "are not in the diagram; the table has every pair of phase and event.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        "  direction LR",
        "  state cutting <<choice>>",
        f"  [*] --> {_IDLE}",
        *_edges(phases),
        "```",
        "",
        "| phase | event | next phase | action | counts as |",
        "|---|---|---|---|---|",
    ]
    for phase in phases:
        for event, found in TRANSITIONS[phase].items():
            following = "" if found.action in _CUTS else f"`{found.phase}`"
            lines.append(f"| `{phase}` | `{event}` | {following} | {found.action} | {found.disposition} |")
    lines += [
        "",
        "Where the next phase is empty, the event `cut` or `cut_empty` follows at once and decides it. After the end",
        "of a delivery (`acknowledged`, `dead`, `cancelled`) the event `due` follows at once if the row is marked, or",
        "if the receiver was replaced.",
    ]
    return "\n".join(lines) + "\n"


def _edges(phases: Sequence[DeliveryPhase]) -> list[str]:
    """Return the edges of the diagram; a cut is one node, since it ends alike from every phase."""
    edges: dict[tuple[str, str], list[str]] = {}
    for phase in phases:
        for event, found in TRANSITIONS[phase].items():
            if found.action in (Action.NOTHING, Action.VOID):
                continue
            cut = event in (Event.CUT, Event.CUT_EMPTY)
            edge = ("cutting" if cut else phase, "cutting" if found.action in _CUTS else found.phase)
            labels = edges.setdefault(edge, [])
            if event not in labels:
                labels.append(event)
    return [f"  {start} --> {end} : {', '.join(labels)}" for (start, end), labels in edges.items()]
