"""The cost of one change of a unit, from its page to the acknowledged batch, by the size of its property.

Rows are in RocksDB; there is no broker and no HTTP, whose cost does not depend on the property. The reference is a
property of ten units.

    python -m benchmarks.change [--quick]
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from benchmarks.kit import Result, at_most, parser, show
from schemas import topics
from schemas.base import EntityKind
from schemas.codec import decode_as, encode
from schemas.delivery import Batch, DeliveryDue, DeliveryOutcome, DeliveryResult, DueReason
from schemas.rent_roll import (
    LeaseSnapshot,
    LeaseStatus,
    LeaseTenant,
    ListingSnapshot,
    Page,
    PropertySnapshot,
    SweepEnd,
    TenantStatus,
    UnitSnapshot,
)
from streams.core import delivery
from streams.core.due import Units
from streams.core.flows import FoldResult
from streams.core.offer import Offer, offer
from streams.core.policy import SinkPolicy
from streams.core.rent_roll import apply, item_of
from streams.core.rows import Rows
from streams.engine import EngineSettings
from streams.engine.stores import PartitionStore, RocksMemory, new_store

ORG, CONNECTION, PROPERTY = "default", "buildium", 10
SINK = SinkPolicy(ORG, "rentsync", "rentsync", "receiver")
START = datetime(2026, 3, 1, tzinfo=UTC)
SIZES = (10, 100, 2000)


class Site:
    """One property of so many units in both tables, whose receiver knows everything."""

    def __init__(self, folder: Path, units: int) -> None:
        settings = EngineSettings(bootstrap_servers="-", app_id="bench", worker="w", data_dir=folder, partitions=1)
        memory = RocksMemory(settings)
        self.roll, self.deliveries = (new_store(settings, name, memory) for name in ("rent-roll", "deliveries"))
        for store in (self.roll, self.deliveries):
            store.open(0)
        self.units, self.written = units, 0
        self._seq, self._offset = 1, 0
        pages: tuple[tuple[EntityKind, list[object]], ...] = (
            (EntityKind.PROPERTY, [PropertySnapshot(id=PROPERTY, name="Sunset Apartments", address_line1="1 Main St")]),
            (EntityKind.UNIT, [self.unit(number, 1500) for number in range(units)]),
            (EntityKind.LEASE, [_lease(number) for number in range(0, units, 2)]),
            (
                EntityKind.LISTING,
                [ListingSnapshot(unit_id=number, rent=Decimal(1600)) for number in range(1, units, 2)],
            ),
        )
        for kind, snapshots in pages:
            self.fold(self.page(kind, snapshots, sweep="s"))
        at = START + timedelta(seconds=1)
        ends = (1, 1, 1, 1)
        self.fold(
            SweepEnd(
                org=ORG, connection=CONNECTION, sweep="s", seq=1, started_at=at, ended_at=at, pages=ends, entities=units
            )
        )
        everything = {"org": ORG, "connection": CONNECTION, "property_id": PROPERTY, "seen_at": at}
        self.deliver(DeliveryDue.model_validate(everything | {"reason": DueReason.SWEPT}))

    @staticmethod
    def unit(number: int, rent: int) -> UnitSnapshot:
        return UnitSnapshot(
            id=number, property_id=PROPERTY, code=str(number), market_rent=Decimal(rent), bedrooms=Decimal(2), size=800
        )

    def page(self, kind: EntityKind, snapshots: Sequence[object], sweep: str | None = None) -> Page:
        self._seq += 1
        items = tuple(item_of(one) for one in snapshots)  # type: ignore[arg-type]
        at = START + timedelta(microseconds=self._seq)
        return Page(org=ORG, connection=CONNECTION, kind=kind, seq=self._seq, fetched_at=at, items=items, sweep=sweep)

    def change(self, number: int, rent: int) -> list[int]:
        """Change the rent of a unit, and deliver it; return the units of the batches."""
        sent = []
        for record in self.fold(self.page(EntityKind.UNIT, [self.unit(number, rent)])):
            sent += self.deliver(record)
        return sent

    def fold(self, record: Page | SweepEnd) -> Iterator[DeliveryDue]:
        """Fold a record into the rent roll, as the engine does; return what is due, as consumed."""
        rows = Rows(self.roll.view(0))
        result = apply(rows, decode_as(type(record), encode(record)))
        self._write(self.roll, rows)
        return iter([decode_as(DeliveryDue, encode(one.record)) for one in result.emits if one.topic in _DUE])

    def deliver(self, due: DeliveryDue) -> list[int]:
        """Cut what is due, and acknowledge it; return the units of the batches."""
        sent = []
        for one in self._apply(due).emits:
            batch = decode_as(Batch, encode(one.record))
            sent += [unit.id for unit in batch.units]
            outcome = DeliveryOutcome(
                org=ORG,
                connection=CONNECTION,
                sink=batch.sink,
                property_id=batch.property.id,
                version=batch.version,
                result=DeliveryResult.ACKNOWLEDGED,
                attempt=batch.attempt,
                at=batch.cut_at,
            )
            self._apply(outcome)
        return sent

    def _apply(self, record: DeliveryDue | DeliveryOutcome) -> FoldResult:
        self._offset += 1
        rows, roll = Rows(self.deliveries.view(0)), self.roll.view(0)

        def read(org: str, connection: str, property_id: int, _sink: SinkPolicy, units: Units) -> Offer | None:
            return offer(roll, org, connection, property_id, date(2026, 3, 1), units=units)

        cause = delivery.Cause(f"t:{self._offset}", START + timedelta(microseconds=self._seq))
        result = delivery.apply(rows, record, cause, (SINK,), read)
        self._write(self.deliveries, rows)
        return result

    def _write(self, store: PartitionStore, rows: Rows) -> None:
        rows.keep()
        written = rows.encoded()
        self.written += sum(len(key) + len(row or b"") for key, row in written.items())
        store.write(0, written.items(), None)


_DUE = (topics.LINGERING, topics.DUE)


def _lease(unit: int) -> LeaseSnapshot:
    return LeaseSnapshot(
        id=100_000 + unit,
        property_id=PROPERTY,
        unit_id=unit,
        starts_on=date(2025, 1, 1),
        status=LeaseStatus.ACTIVE,
        tenants=(LeaseTenant(id=7, status=TenantStatus.CURRENT),),
    )


def measure(units: int, changes: int) -> tuple[float, float, float]:
    """Return CPU seconds of a change (the median), those of the slowest, and bytes of rows that it writes."""
    with tempfile.TemporaryDirectory(prefix="bench-change-") as folder:
        site = Site(Path(folder), units)
        for at in range(changes // 10):
            site.change(2 * at % units, 1400 + at)
        seconds, before = [], site.written
        for at in range(changes):
            started = time.process_time()
            sent = site.change(2 * at % units, 1501 + at)
            seconds.append(time.process_time() - started)
            if sent != [2 * at % units]:
                raise RuntimeError(f"the change of unit {2 * at % units} was sent as {sent}")
    return statistics.median(seconds), max(seconds), (site.written - before) / changes


def run(_bootstrap: str | None = None, *, quick: bool = False) -> list[Result]:
    found = {units: measure(units, 200 if quick else 2000) for units in SIZES}
    base, _, least = found[SIZES[0]]
    print(f"\n{'units':>8}{'us a change':>14}{'x of 10':>10}{'slowest, ms':>14}{'bytes':>10}{'x of 10':>10}")
    for units, (cpu, slowest, size) in found.items():
        print(
            f"{units:>8}{cpu * 1e6:>14.0f}{cpu / base:>10.2f}{slowest * 1e3:>14.1f}{size:>10.0f}{size / least:>10.2f}"
        )
    cpu, _, size = found[SIZES[-1]]
    return [
        at_most("change: CPU in a property of 2,000 units, relative to 10", cpu / base, "x", 2),
        at_most("change: bytes of rows in a property of 2,000 units", size / least, "x", 2),
    ]


if __name__ == "__main__":
    options = parser(__doc__).parse_args()
    show(run(quick=options.quick))
    sys.exit()
