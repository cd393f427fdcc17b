"""Records as the flows write them, and a view that they are written to."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from schemas import topics
from schemas.base import EntityKind, Model
from schemas.codec import encode
from schemas.delivery import Acknowledged, BatchMode, DeliveryPhase, DeliveryRow, KnownRow
from schemas.rent_roll import (
    AccountRow,
    LeaseEntry,
    LeaseSnapshot,
    LeaseStatus,
    LeaseTenant,
    Page,
    PageItem,
    PropertyRow,
    PropertySnapshot,
    PropertyType,
    TenantStatus,
    UnitRow,
    UnitSnapshot,
)
from streams.backends.ports import ConsumedRecord, Partition
from streams.core.delivery import delivery_key
from streams.core.delivery.keys import known_key, known_of
from streams.core.flows import Record
from streams.core.rent_roll.keys import account_key, property_key, scope, unit_key
from streams.topology import APP, DELIVERIES, RENT_ROLL
from streams.view import tables
from streams.view.database import Database
from streams.view.projection import projections
from streams.view.roll import Terms
from streams.view.writer import Writer

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TODAY = NOON.date()
ROLL = topics.changelog(APP, RENT_ROLL).name
SENT = topics.changelog(APP, DELIVERIES).name
PREFIX = scope("default", "buildium")


def record(
    topic: str,
    value: Model | bytes | None,
    key: bytes = b"default",
    offset: int = 0,
    headers: Any = (),
    partition: int = 0,
) -> Record:
    body = encode(value) if isinstance(value, Model) else value
    return ConsumedRecord(topic, partition, offset, int(NOON.timestamp() * 1000), key, body, headers)


def building(number: int = 1, **more: Any) -> Record:
    facts: dict[str, Any] = {"id": number, "name": f"House {number}", "address_line1": f"{number} Main St"}
    facts |= {"city": "Calgary", "state": "AB", "type": PropertyType.APARTMENT}
    row = PropertyRow(seq=1, body=encode(PropertySnapshot(**facts | more)), version=1, fetched_at=NOON)
    return record(ROLL, row, property_key(PREFIX, number))


def unit(number: int, of: int = 1, *, leases: Sequence[LeaseSnapshot] = (), gone: bool = False, **more: Any) -> Record:
    row_facts = {name: more.pop(name) for name in ("awaits", "awaited_sweep", "version", "fetched_at") if name in more}
    facts: dict[str, Any] = {"id": number, "property_id": of, "code": str(number), "market_rent": Decimal(1500)}
    row = UnitRow(
        gone=gone,
        property_id=of,
        seq=1,
        body=encode(UnitSnapshot(**facts | more)),
        leases=tuple(LeaseEntry(id=one.id, body=encode(one)) for one in leases),
        **{"version": 1, "fetched_at": NOON, **row_facts},
    )
    return record(ROLL, row, unit_key(PREFIX, number))


def lease(number: int, unit_id: int, *, starts: date = TODAY - timedelta(days=90), **more: Any) -> LeaseSnapshot:
    facts: dict[str, Any] = {
        "id": number,
        "property_id": 1,
        "unit_id": unit_id,
        "starts_on": starts,
        "status": LeaseStatus.ACTIVE if starts <= TODAY else LeaseStatus.FUTURE,
        "tenants": (LeaseTenant(id=number, status=TenantStatus.CURRENT, move_in=starts),),
    }
    return LeaseSnapshot(**facts | more)


def account(**more: Any) -> Record:
    facts: dict[str, Any] = {"sweep": "20260301T110000Z", "first_sweep": "20260301T110000Z", "started_at": NOON}
    facts |= {"completed_at": NOON, "entities": 3, "whole_sweep": "20260301T110000Z"}
    return record(ROLL, AccountRow(**facts | more), account_key(PREFIX))


def delivery(number: int = 1, **more: Any) -> Record:
    facts: dict[str, Any] = {"phase": DeliveryPhase.IDLE, "version": 1, "acknowledged_at": NOON, "introduced": True}
    facts |= {"mode": BatchMode.SNAPSHOT}
    return record(SENT, DeliveryRow(**facts | more), delivery_key("default", "rentsync", "buildium", number))


def known(number: int, digest: bytes, of: int = 1) -> Record:
    key = known_key(known_of("default", "rentsync", "buildium", of), number)
    return record(SENT, KnownRow(digest=digest), key)


def fetched(number: int, at: datetime = NOON, offset: int = 0) -> Record:
    items = (PageItem(id=number, body=b"x"), PageItem(id=number + 1))
    page = Page(
        org="default", connection="buildium", kind=EntityKind.UNIT, seq=1, fetched_at=at, items=items, seen_at=at
    )
    return record(topics.CHANGES.name, page, offset=offset)


class View:
    """A database that records are written to, one transaction at a time."""

    def __init__(self, database: Database, day: date = TODAY) -> None:
        self.database = database
        self.terms = Terms(day)
        self.writer = Writer(database, lambda org, name, property_id: self.terms)
        self._projections = projections(APP)

    def write(self, *records: Record) -> None:
        changes = [change for one in records for change in self._projections[one.topic](one)]
        self.writer.apply(changes, {}, {})

    def rows(self, table: sa.Table, *columns: str) -> list[dict[str, Any]]:
        chosen = [table.c[name] for name in columns] if columns else list(table.c)
        with self.database.reading() as connection:
            query = sa.select(*chosen).order_by(*table.primary_key)
            return [dict(row) for row in connection.execute(query).mappings()]

    def everything(self) -> dict[str, list[dict[str, Any]]]:
        """Return all rows but those that depend on when they were written."""
        ours = {tables.STATE.name, tables.TERMS.name, tables.POSITIONS.name}
        return {name: self.rows(table) for name, table in tables.METADATA.tables.items() if name not in ours}

    def digest(self, unit_id: int) -> bytes:
        (found,) = [row["digest"] for row in self.rows(tables.UNITS) if row["unit_id"] == unit_id]
        assert isinstance(found, bytes)
        return found


def acknowledged(numbers: Iterable[int]) -> tuple[Acknowledged, ...]:
    return tuple(Acknowledged(unit_id=number, digest=b"12345678") for number in numbers)


def partitions(topic: str, *numbers: int) -> list[Partition]:
    return [Partition(topic, number) for number in numbers]
