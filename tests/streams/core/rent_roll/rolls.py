"""Snapshots, pages and rows to make a rent roll of."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from schemas.base import EntityKind
from schemas.codec import decode
from schemas.delivery import DeliveryDue
from schemas.pms import FetchRequest
from schemas.rent_roll import (
    LeaseSnapshot,
    LeaseStatus,
    LeaseTenant,
    Page,
    PageItem,
    PropertySnapshot,
    SweepEnd,
    TenantStatus,
    UnitRow,
    UnitSnapshot,
)
from streams.core.flows import FoldResult
from streams.core.rent_roll import apply, item_of, scope, unit_key
from streams.core.rows import Rows
from tests.streams.core.views import MemoryView

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PREFIX = scope("default", "buildium")


def unit(number: int = 1, property_id: int = 10, rent: int = 1500, **more: Any) -> UnitSnapshot:
    return UnitSnapshot(id=number, property_id=property_id, code=f"{number}", market_rent=Decimal(rent), **more)


def building(number: int = 10, name: str = "Sunset Apartments") -> PropertySnapshot:
    return PropertySnapshot(id=number, name=name)


def lease(number: int = 100, unit_id: int = 1, status: LeaseStatus = LeaseStatus.ACTIVE, **more: Any) -> LeaseSnapshot:
    return LeaseSnapshot(
        id=number,
        property_id=10,
        unit_id=unit_id,
        starts_on=date(2026, 1, 1),
        status=status,
        tenants=(LeaseTenant(id=7, status=TenantStatus.CURRENT),),
        **more,
    )


def page(kind: EntityKind, seq: int, *snapshots: Any, gone: tuple[int, ...] = (), sweep: str | None = None) -> Page:
    items = [item_of(one) for one in snapshots]
    return Page(
        org="default",
        connection="buildium",
        kind=kind,
        seq=seq,
        fetched_at=NOW + timedelta(microseconds=seq),
        sweep=sweep,
        items=(*items, *(PageItem(id=number) for number in gone)),
    )


def end(
    *pages: int, sweep: str = "s1", seq: int = 1, torn: bool = False, denied: tuple[EntityKind, ...] = ()
) -> SweepEnd:
    return SweepEnd(
        org="default",
        connection="buildium",
        sweep=sweep,
        seq=seq,
        started_at=NOW + timedelta(microseconds=seq),
        ended_at=NOW + timedelta(microseconds=seq),
        pages=pages,
        entities=0,
        torn=torn,
        denied=denied,
    )


def fold(view: MemoryView, *records: Page | SweepEnd) -> list[FoldResult]:
    """Fold each record as a batch of its own."""
    results = []
    for record in records:
        rows = Rows(view)
        results.append(apply(rows, record))
        view.take(rows)
    return results


def swept(view: MemoryView | None = None, sweep: str = "s1") -> MemoryView:
    """Return a rent roll whose first sweep is complete, with one property and one unit."""
    view = MemoryView() if view is None else view
    fold(
        view,
        page(EntityKind.PROPERTY, 2, building(), sweep=sweep),
        page(EntityKind.UNIT, 3, unit(), sweep=sweep),
        page(EntityKind.LEASE, 4, sweep=sweep),
        page(EntityKind.LISTING, 5, sweep=sweep),
        end(1, 1, 1, 1, sweep=sweep),
    )
    return view


def unit_row(view: MemoryView, number: int = 1) -> UnitRow:
    row = decode(view[unit_key(PREFIX, number)])
    assert isinstance(row, UnitRow)
    return row


def dues(result: FoldResult) -> set[int]:
    """Return the properties that a record marked as due."""
    return {emit.record.property_id for emit in result.emits if isinstance(emit.record, DeliveryDue)}


def refetches(result: FoldResult) -> set[tuple[EntityKind, int | None]]:
    """Return the entities that a record had fetched again."""
    return {(emit.record.kind, emit.record.entity) for emit in result.emits if isinstance(emit.record, FetchRequest)}


def reasons(result: FoldResult) -> set[str]:
    """Return why a record had entities fetched again."""
    return {emit.record.event for emit in result.emits if isinstance(emit.record, FetchRequest)}
