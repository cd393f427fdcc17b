"""The progress report of `rentstream up`, line by line."""

from datetime import UTC, datetime

from schemas.base import EntityKind
from schemas.delivery import Batch, BatchMode, DeliveryOutcome, DeliveryResult, OfferedProperty, OfferedUnit, UnitState
from schemas.pms import SweepStep
from schemas.rent_roll import SweepEnd
from streams.local.progress import ProgressReporter

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def step(stage: EntityKind, offset: int = 0, total: int | None = None) -> SweepStep:
    return SweepStep(
        org="o", connection="c", sweep="s", started_at=NOW, stage=stage, offset=offset, total=total, page=offset // 500
    )


def batch(property_id: int, units: int) -> Batch:
    unit = OfferedUnit(id=1, code="1", state=UnitState.RENTED, status="occupied", is_available=False)
    return Batch(
        org="o",
        connection="c",
        sink="rentsync",
        batch_id="b",
        sync_id="s",
        cut_at=NOW,
        seen_at=NOW,
        version=1,
        mode=BatchMode.SNAPSHOT,
        property=OfferedProperty(id=property_id, name="n", address="a", is_active=True),
        units=(unit,) * units,
    )


def outcome(property_id: int, result: DeliveryResult, detail: str | None = None) -> DeliveryOutcome:
    return DeliveryOutcome(
        org="o",
        connection="c",
        sink="rentsync",
        property_id=property_id,
        version=1,
        result=result,
        attempt=1,
        at=NOW,
        detail=detail,
    )


def test_a_first_sweep_and_its_batches_are_reported() -> None:
    lines: list[str] = []
    reporter = ProgressReporter(lines.append)

    reporter.observe(step(EntityKind.UNIT))
    reporter.observe(step(EntityKind.UNIT, 10_000, 25_000))
    reporter.observe(
        SweepEnd(org="o", connection="c", sweep="s", seq=1, started_at=NOW, ended_at=NOW, pages=(), entities=7)
    )
    for property_id in (1, 2):
        reporter.observe(batch(property_id, property_id))
        reporter.observe(outcome(property_id, DeliveryResult.ACKNOWLEDGED))
    reporter.summarize()
    reporter.observe(batch(1, 1))
    reporter.observe(outcome(1, DeliveryResult.ACKNOWLEDGED))
    reporter.summarize()
    reporter.summarize()

    assert lines == [
        "o: sweep: part 2 of 4, units; 0 entities so far",
        "o: sweep: units, 10 of 25 pages, 10000 of 25000",
        "o: sweep complete: 7 entities read",
        "o: first batches: 2 properties and 3 units acknowledged by RentSync",
        "o: batches: 1 property and 1 unit acknowledged by RentSync",
    ]
    assert reporter.swept.is_set()
    assert reporter.delivered.is_set()


def test_a_failed_delivery_is_reported_with_its_reason() -> None:
    lines: list[str] = []
    reporter = ProgressReporter(lines.append)
    reporter.observe(outcome(5, DeliveryResult.WAITING, "503 Service Unavailable"))
    reporter.observe(outcome(5, DeliveryResult.DEAD, "422 units are wrong"))
    assert lines == [
        "o: delivery of property 5 to RentSync failed, retry pending: 503 Service Unavailable",
        "o: delivery of property 5 to RentSync failed, moved to dead letters: 422 units are wrong",
    ]
