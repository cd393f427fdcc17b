"""``reconcile_receivers``: marks the properties whose delivery state belongs to another configuration.

A receiver that was enabled, replaced or given other properties is due everything that its rows were not looked at for;
the same after a change of a connection's time zone, make-ready days or switches. The fold then sends what differs, also
for a property whose mark was lost on its way from the rent roll.
"""

from collections.abc import Iterator, Mapping

from connectors.ports import Clock, Connection
from schemas import topics
from schemas.delivery import DeliveryDue, DeliveryRow, DueReason
from schemas.rent_roll import MarkRow
from streams.core.delivery import delivery_key
from streams.core.flows import Barrier, Emit, View
from streams.core.policy import SinkPolicy
from streams.core.rent_roll import account_key, id_of, mark_key, properties_of, scope
from streams.core.rows import look_up
from streams.directory.directory import Directory
from streams.topology import DELIVERIES, RENT_ROLL

AGAIN = 600.0
"""Seconds. After this time everything is looked at again: another worker may have owned the partition meanwhile."""


class ReconcileReceivers:
    """Looks at an org when a configuration of it changed, at first, and from time to time."""

    def __init__(self, directory: Directory, partitions: int, clock: Clock) -> None:
        self._directory = directory
        self._partitions = partitions
        self._clock = clock
        self._looked: dict[tuple[str, str], tuple[str, ...]] = {}
        """By connection: the revisions of the receivers for which all of its properties were looked at."""
        self._unseen: dict[bytes, int] = {}
        """By row of a delivery: the mark that the rent roll had at the last look, and the row had not."""
        self._partition_looked: dict[int, tuple[int, float | None]] = {}
        """By partition: at which state of the directory all of it was looked at; when in full, by `Clock.monotonic`."""

    def step(self, views: Mapping[str, View], partition: int) -> Iterator[Emit | Barrier | None]:
        """Emit what is due on this partition; yield null between properties, so that other work may go on."""
        now, configured = self._clock.monotonic(), self._directory.configured
        looked, in_full = self._partition_looked.get(partition, (-1, None))
        again = in_full is None or now - in_full >= AGAIN
        if looked == configured and not again:
            return
        for one in self._directory.on_partition(partition, self._partitions).connections:
            policies = self._directory.policies(one.org, one.name)
            revisions = tuple(policy.revision for policy in policies)
            if self._looked.get((one.org, one.name)) == revisions and not again:
                continue
            yield from self._connection(views, one, policies)
            yield Barrier.DURABLE
            self._looked[one.org, one.name] = revisions
        self._partition_looked[partition] = (configured, now if in_full is None or again else in_full)

    def _is_lost(self, row_key: bytes, row: DeliveryRow, mark: int) -> bool:
        """Return whether the mark of a property did not arrive: it was missing at the last look as well."""
        if row.mark >= mark:
            self._unseen.pop(row_key, None)
            return False
        before = self._unseen.get(row_key)
        self._unseen[row_key] = mark
        return before == mark

    def _connection(
        self, views: Mapping[str, View], connection: Connection, policies: tuple[SinkPolicy, ...]
    ) -> Iterator[Emit | None]:
        org, name = connection.org, connection.name
        at = scope(org, name)
        if views[RENT_ROLL].get(account_key(at)) is None:
            return  # its first sweep marks every property when it is complete
        now = self._clock.now()
        for key, _ in views[RENT_ROLL].scan(properties_of(at)):
            property_id = id_of(key)
            marked = look_up(views[RENT_ROLL], MarkRow, mark_key(at, property_id))
            mark = marked.seq if marked else 0
            for policy in policies:
                row_key = delivery_key(org, policy.name, name, property_id)
                row = look_up(views[DELIVERIES], DeliveryRow, row_key)
                if row is not None and row.revision == policy.revision and not self._is_lost(row_key, row, mark):
                    continue
                due = DeliveryDue(
                    org=org,
                    connection=name,
                    property_id=property_id,
                    reason=DueReason.RECONFIGURED,
                    seen_at=now,
                    sink=policy.name,
                )
                yield Emit(topics.DUE, org, due)
            yield None
