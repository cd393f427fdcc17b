"""When a delivery that nothing else brings back is tried again: one that was given up, or whose record was lost.

The receiver is owed what it does not know, so a dead letter is a message to people and not the end. What was given up
goes out again, in the state of that moment:

- when the receiver has acknowledged something since;
- when a complete sweep ended since;
- as a trial: one delivery at a time, if nothing else is on its way to the receiver, `TRIAL_AFTER` the last failure.

A delivery that was given up again and again is tried at growing intervals. If its content was at fault (`OF_CONTENT`),
other deliveries prove nothing, and only sweeps bring it back. A change of the property is a reason of its own
(`states`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from schemas.delivery import DeliveryPhase, DeliveryRow
from streams.core.retry import Reason

OF_CONTENT: Final = frozenset({Reason.REJECTED, Reason.MALFORMED, Reason.BUG, Reason.TOO_LARGE})
"""Reasons of a dead letter that are true of this content only."""

TRIAL_AFTER: Final = timedelta(minutes=10)
LONGEST_PAUSE: Final = timedelta(minutes=10)
"""Between two tries of one delivery, as soon as the receiver answers others."""
LONGEST_PAUSE_OF_CONTENT: Final = timedelta(hours=24)
LOST_AFTER: Final = timedelta(minutes=15)
"""After this time without any change, what is on its way or overdue is taken as lost."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A row that is not idle, and what is known around it."""

    key: bytes
    row: DeliveryRow
    swept_at: datetime | None
    """When the last complete sweep of its connection ended."""
    unchanged_since: datetime
    """Since when this process has seen the row as it is. Another owner may have seen it longer."""


def recalled(deliveries: Iterable[Delivery], acknowledged_at: datetime | None, now: datetime) -> tuple[Delivery, ...]:
    """Return which deliveries of one receiver have to be tried again now.

    ``acknowledged_at``: when the receiver last acknowledged a batch; null if it never did.
    """
    every = tuple(deliveries)
    found = [one for one in every if _is_due(one, acknowledged_at, now)]
    on_its_way = any(one.row.phase is not DeliveryPhase.OWED for one in every)
    if found or on_its_way:
        return tuple(found)
    candidates = [one for one in every if one.row.dead_letter not in OF_CONTENT]
    if not candidates or now < max(_given_up_at(one, now) for one in candidates) + TRIAL_AFTER:
        return ()
    return (min(candidates, key=lambda one: (_given_up_at(one, now), one.key)),)


def _is_due(one: Delivery, acknowledged_at: datetime | None, now: datetime) -> bool:
    row = one.row
    if row.phase is not DeliveryPhase.OWED:
        overdue = row.due_at or one.unchanged_since
        return now >= max(one.unchanged_since, overdue) + LOST_AFTER
    given_up_at, of_content = _given_up_at(one, now), row.dead_letter in OF_CONTENT
    if now < given_up_at + _pause(row.given_up, of_content=of_content):
        return False
    news = [one.swept_at] if of_content else [one.swept_at, acknowledged_at]
    return any(moment is not None and moment > given_up_at for moment in news)


def _given_up_at(one: Delivery, now: datetime) -> datetime:
    """Return when a delivery was given up; the clock that it was measured with may be ahead of this one."""
    return min(one.row.given_up_at or now, one.unchanged_since)


def _pause(given_up: int, *, of_content: bool) -> timedelta:
    """Return how long a delivery rests that was given up so often: not at first, then longer each time."""
    if given_up <= 1:
        return timedelta()
    longest = LONGEST_PAUSE_OF_CONTENT if of_content else LONGEST_PAUSE
    first = timedelta(minutes=15) if of_content else timedelta(minutes=1)
    return min(first * (1 << min(given_up - 2, 16)), longest)
