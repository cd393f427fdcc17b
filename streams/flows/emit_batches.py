"""``emit_batches``, the egress agent: cuts a batch of what a receiver does not know yet, as it is at this moment."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime

from schemas.base import Model
from schemas.delivery import DeliveryDue, DeliveryOutcome
from streams.core import delivery
from streams.core.flows import Disposition, FoldResult, Record, View
from streams.core.offer import Offer, offer
from streams.core.policy import SinkPolicy
from streams.core.rows import Rows
from streams.topology import RENT_ROLL


@dataclass(frozen=True, slots=True)
class EmitBatches:
    """What the step has to know: the receivers, and which day it is at a connection's properties."""

    sinks: tuple[SinkPolicy, ...]
    day: Callable[[str, str, datetime], date]
    """Calendar date at the properties of a connection (org, connection, moment)."""

    def step(self, rows: Rows, views: Mapping[str, View], said: Model, record: Record, now: datetime) -> FoldResult:
        """Decide for one record; see `streams.core.delivery.apply`."""
        if not isinstance(said, DeliveryDue | DeliveryOutcome):
            return FoldResult(Disposition.IGNORED)
        roll = views[RENT_ROLL]

        def read(org: str, connection: str, property_id: int, sink: SinkPolicy) -> Offer | None:
            del sink
            return offer(roll, org, connection, property_id, self.day(org, connection, now))

        cause = delivery.Cause(f"{record.topic}:{record.offset}", now)
        return delivery.apply(rows, said, cause, self.sinks, read)
