"""``emit_batches``, the egress agent: cuts a batch of what a receiver does not know yet, as it is at this moment."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime

from schemas.base import Model
from schemas.delivery import DeliveryDue, DeliveryOutcome, DueReason
from streams.core import delivery
from streams.core.flows import Disposition, FoldResult, Record, View
from streams.core.offer import Offer, offer
from streams.core.retry import first_failure
from streams.core.rows import Rows
from streams.topology import RENT_ROLL


@dataclass(frozen=True, slots=True)
class EmitBatches:
    """What the step has to know: the receivers, and which day it is at a connection's properties."""

    sinks: tuple[str, ...]
    day: Callable[[str, str, datetime], date]
    """Calendar date at the properties of a connection (org, connection, moment)."""

    def step(self, rows: Rows, views: Mapping[str, View], said: Model, record: Record, now: datetime) -> FoldResult:
        """Decide for one record; see `streams.core.delivery.apply`."""
        if not isinstance(said, DeliveryDue | DeliveryOutcome):
            return FoldResult(Disposition.IGNORED)
        roll = views[RENT_ROLL]

        def cut(org: str, connection: str, property_id: int) -> Offer | None:
            return offer(roll, org, connection, property_id, self.day(org, connection, now))

        cause = delivery.Cause(f"{record.topic}:{record.offset}", now)
        applied = delivery.apply(rows, said, cause, self.sinks, cut)
        if isinstance(said, DeliveryDue) and said.reason is DueReason.RETRY:
            # The new cut has waited as long as the wish to deliver it.
            applied.emits = [replace(one, headers=first_failure(record)) for one in applied.emits]
        return applied
