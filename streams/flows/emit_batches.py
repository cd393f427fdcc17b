"""``emit_batches``, the egress agent: cuts a batch of what a receiver does not know yet, as it is at this moment."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from schemas.base import Model
from schemas.delivery import DeliveryDue, DeliveryOutcome, DueReason
from streams.core import delivery
from streams.core.dates import note_dates
from streams.core.doubts import note_doubts
from streams.core.due import Units
from streams.core.flows import Disposition, FoldResult, Record, View
from streams.core.offer import Offer, offer
from streams.core.policy import SinkPolicy
from streams.core.retry import first_failure
from streams.core.rows import Rows
from streams.directory.directory import Directory
from streams.topology import RENT_ROLL


@dataclass(frozen=True, slots=True)
class EmitBatches:
    """The step, with the integrations that decide who gets what."""

    directory: Directory

    def step(self, rows: Rows, views: Mapping[str, View], value: Model, record: Record, now: datetime) -> FoldResult:
        """Fold one record; see `streams.core.delivery.apply`."""
        if not isinstance(value, DeliveryDue | DeliveryOutcome):
            return FoldResult(Disposition.IGNORED)
        roll, directory = views[RENT_ROLL], self.directory
        offers: dict[tuple[bool, Units], Offer | None] = {}

        def read(org: str, connection: str, property_id: int, sink: SinkPolicy, units: Units) -> Offer | None:
            source = directory.connection(org, connection)
            if source is None:
                return None
            taking_part = sink.includes(property_id) and directory.switches(org, connection).includes(property_id)
            if (taking_part, units) not in offers:
                offers[taking_part, units] = offer(
                    roll,
                    org,
                    connection,
                    property_id,
                    source.day(now),
                    rules=source.rules,
                    excluded=not taking_part,
                    units=units,
                )
            return offers[taking_part, units]

        cause = delivery.Cause(f"{record.topic}:{record.offset}", now)
        policies = directory.policies(value.org, value.connection)
        result = delivery.apply(rows, value, cause, policies, read)
        for (taking_part, units), shown in offers.items():
            if shown is not None and (taking_part or (value.sink is None and (True, units) not in offers)):
                place = (value.org, value.connection, value.property_id)
                result.doubts += note_doubts(rows, *place, shown, units, now)
                note_dates(rows, *place, shown, units)
        if isinstance(value, DeliveryDue) and value.reason is DueReason.RETRY:
            # The new cut has waited as long as the delivery that it replaces.
            result.emits = [replace(one, headers=first_failure(record)) for one in result.emits]
        return result
