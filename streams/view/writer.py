"""Writes changes to the view: one batch of records is one transaction, with the positions of the partitions."""

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, Final

import sqlalchemy as sa

from schemas.base import EntityKind
from schemas.codec import DecodeError, decode_as
from schemas.rent_roll import UnitRow
from streams.backends.ports import Partition
from streams.view import tables
from streams.view.database import Database
from streams.view.projection import Change, Drop, Facts
from streams.view.roll import Terms, unit_values

log = logging.getLogger("streams.view")

TermsOf = Callable[[str, str, int], Terms]
"""Returns what decides the state of the units of a property, by org, connection and property."""

IDS_AT_ONCE: Final = 500
"""The most ids of one query."""
DERIVED_AT_ONCE: Final = 500
"""The most units that are derived again in one transaction."""

AS_OF: Final = "as_of"


class Moved(Exception):  # noqa: N818 -- named after what happened
    """Another process wrote these records meanwhile; read the positions again."""


Place = tuple[str, str]
"""Org and connection."""

Unit = tuple[bytes, UnitRow]
"""A row of table ``rent-roll``, encoded and decoded."""


@dataclass(slots=True)
class _Roll:
    """The rows of table ``rent-roll`` in one batch; the last one of each key counts."""

    accounts: dict[Place, Facts] = field(default_factory=dict)
    properties: dict[tuple[str, str, int], Facts] = field(default_factory=dict)
    units: dict[tuple[str, str, int], Facts] = field(default_factory=dict)

    def add(self, one: Facts) -> None:
        if one.kind is None:
            self.accounts[one.org, one.connection] = one
        else:
            rows = self.properties if one.kind is EntityKind.PROPERTY else self.units
            rows[one.org, one.connection, one.id] = one


class Writer:
    """Applies batches to a database. Used by one thread at a time."""

    def __init__(self, database: Database, terms_of: TermsOf) -> None:
        self._database = database
        self._terms_of = terms_of
        self._statements: dict[object, Any] = {}

    def positions(self) -> dict[Partition, int]:
        """Return the next offset of each partition. Raise `ViewUnavailable`."""
        with self._database.transaction() as connection:
            rows = connection.execute(sa.select(tables.POSITIONS))
            return {Partition(row.topic, row.partition): row.next_offset for row in rows}

    def apply(self, changes: Iterable[Change], before: Mapping[Partition, int], after: Mapping[Partition, int]) -> None:
        """Write the changes of a batch and the positions after it, all or nothing.

        ``before`` has the positions of the same partitions that the batch began at, as far as there were any. Raise
        `Moved` if they are others by now, and `ViewUnavailable`.
        """
        with self._database.transaction() as connection:
            self._advance(connection, before, after)
            roll, puts, drops = _Roll(), defaultdict[object, list[Any]](list), list[Drop]()
            for one in changes:
                if isinstance(one, Facts):
                    roll.add(one)
                elif isinstance(one, Drop):
                    self._flush(connection, puts)  # the order of puts and drops of a row counts
                    drops.append(one)
                    self._drop(connection, drops)
                else:
                    puts[one.table, one.newer_by, one.first_by, *one.values].append(one.values)
            self._flush(connection, puts)
            self._write_roll(connection, roll)

    def caught_up(self, at: datetime) -> None:
        """Note that everything is in the view that was written before a moment. Raise `ViewUnavailable`."""
        with self._database.transaction() as connection:
            put = self._database.upsert(tables.STATE, ("name", "at"), newer_by="at")
            connection.execute(put, {"name": AS_OF, "at": at})

    # ------------------------------------------------------------------------------------------------------ positions

    def _advance(
        self, connection: sa.Connection, before: Mapping[Partition, int], after: Mapping[Partition, int]
    ) -> None:
        position = tables.POSITIONS
        for partition, offset in sorted(after.items()):
            known = before.get(partition)
            if known is None:
                statement = self._database.insert_new(position)
                values = {"topic": partition.topic, "partition": partition.partition, "next_offset": offset}
                written = connection.execute(statement.returning(position.c.next_offset), values).all()
            else:
                written = connection.execute(
                    sa.update(position)
                    .where(position.c.topic == partition.topic, position.c.partition == partition.partition)
                    .where(position.c.next_offset == known)
                    .values(next_offset=offset)
                    .returning(position.c.next_offset)
                ).all()
            if not written:
                raise Moved

    # ---------------------------------------------------------------------------------------------------- plain rows

    def _flush(self, connection: sa.Connection, puts: "defaultdict[Any, list[Any]]") -> None:
        for (table, newer_by, first_by, *columns), values in puts.items():
            self._put(connection, table, columns, values, newer_by=newer_by, first_by=first_by)
        puts.clear()

    def _put(
        self,
        connection: sa.Connection,
        table: sa.Table,
        columns: Sequence[str],
        values: Sequence[Mapping[str, Any]],
        *,
        newer_by: str | None = None,
        first_by: str | None = None,
    ) -> None:
        cached = (table.name, newer_by, first_by, *columns)
        statement = self._statements.get(cached)
        if statement is None:
            statement = self._database.upsert(table, columns, newer_by=newer_by, first_by=first_by)
            self._statements[cached] = statement
        connection.execute(statement, values)

    @staticmethod
    def _drop(connection: sa.Connection, drops: list[Drop]) -> None:
        for one in drops:
            matches = [one.table.c[name] == value for name, value in one.key.items()]
            connection.execute(sa.delete(one.table).where(*matches))
        drops.clear()

    # ------------------------------------------------------------------------------------------------------ rent roll

    def _write_roll(self, connection: sa.Connection, roll: _Roll) -> None:
        for table, found in ((tables.ACCOUNTS, roll.accounts), (tables.PROPERTIES, roll.properties)):
            changed = [one.values for one in found.values() if one.values is not None]
            if changed:
                self._put(connection, table, list(changed[0]), changed)
        gone = [
            one for one in (*roll.accounts.values(), *roll.properties.values(), *roll.units.values()) if not one.raw
        ]
        self._drop(connection, [_row_of(one) for one in gone])
        self._derive(connection, dict(self._touched(connection, roll)))

    def _touched(self, connection: sa.Connection, roll: _Roll) -> Iterator[tuple[tuple[str, str, int], Unit]]:
        """Yield the units to derive: those whose property or account changed, and the changed ones themselves."""
        unit = tables.UNITS.c
        by_place: defaultdict[Place, list[int]] = defaultdict(list)
        for org, name, property_id in roll.properties:
            by_place[org, name].append(property_id)
        for (org, name), ids in by_place.items():
            for some in _some(ids):
                yield from _units(connection, org, name, unit.property_id.in_(some))
        for org, name in roll.accounts:
            yield from _units(connection, org, name, sa.not_(unit.offered))
        for key, one in roll.units.items():
            if one.raw is not None and one.row is not None:
                yield key, (one.raw, one.row)

    def _derive(self, connection: sa.Connection, found: Mapping[tuple[str, str, int], Unit]) -> None:
        rows: defaultdict[Place, list[tuple[bytes, UnitRow, int]]] = defaultdict(list)
        for (org, name, _), (raw, row) in found.items():
            # Without these only leases or a listing of the unit were seen.
            if row.body is not None and row.property_id is not None:
                rows[org, name].append((raw, row, row.property_id))
        values = []
        for (org, name), units in rows.items():
            buildings = _buildings(connection, org, name, {property_id for _, _, property_id in units})
            account = connection.scalar(
                sa.select(tables.ACCOUNTS.c.raw).where(
                    tables.ACCOUNTS.c.org_id == org, tables.ACCOUNTS.c.connection == name
                )
            )
            for raw, row, property_id in units:
                terms = self._terms_of(org, name, property_id)
                try:
                    values.append(unit_values(org, name, raw, row, buildings.get(property_id), account, terms))
                except DecodeError as error:
                    log.warning("A unit of %s/%s is left out of the view: %s", org, name, error)
        if values:
            self._put(connection, tables.UNITS, list(values[0]), values)

    def derive_due(self, now_days: Mapping[Place, Any]) -> int:
        """Derive units again whose day has come, at most `DERIVED_AT_ONCE`; return how many. Raise `ViewUnavailable`.

        ``now_days`` has the present day of each connection.
        """
        unit = tables.UNITS.c
        done = 0
        with self._database.transaction() as connection:
            for (org, name), day in now_days.items():
                found = dict(_units(connection, org, name, unit.changes_on <= day, DERIVED_AT_ONCE - done))
                self._derive(connection, found)
                done += len(found)
                if done >= DERIVED_AT_ONCE:
                    break
        return done

    def derive_all(self, org: str, name: str) -> Iterator[int]:
        """Derive every unit of a connection again, in transactions of `DERIVED_AT_ONCE`; yield how many each has."""
        unit, last = tables.UNITS.c, -1
        while True:
            with self._database.transaction() as connection:
                found = dict(_units(connection, org, name, unit.unit_id > last, DERIVED_AT_ONCE))
                self._derive(connection, found)
            yield len(found)
            if len(found) < DERIVED_AT_ONCE:
                return
            last = max(unit_id for _, _, unit_id in found)

    # --------------------------------------------------------------------------------------------------------- upkeep

    def terms(self) -> dict[Place, str]:
        """Return the terms under which the units of each connection were derived last. Raise `ViewUnavailable`."""
        with self._database.transaction() as connection:
            rows = connection.execute(sa.select(tables.TERMS))
            return {(row.org_id, row.connection): row.terms for row in rows}

    def note_terms(self, org: str, name: str, terms: str) -> None:
        """Note the terms under which every unit of a connection is derived now. Raise `ViewUnavailable`."""
        values = {"org_id": org, "connection": name, "terms": terms}
        with self._database.transaction() as connection:
            self._put(connection, tables.TERMS, list(values), [values])

    def prune(self, now: datetime) -> int:
        """Delete history that is older than it is kept; return the number of rows. Raise `ViewUnavailable`."""
        deleted = 0
        for table, kept in tables.KEPT.items():
            with self._database.transaction() as connection:
                deleted += connection.execute(sa.delete(table).where(table.c.at < now - kept)).rowcount
        return deleted


def _row_of(one: Facts) -> Drop:
    """Return the deletion of the row that encoded facts belong to."""
    key: dict[str, object] = {"org_id": one.org, "connection": one.connection}
    if one.kind is None:
        return Drop(tables.ACCOUNTS, key)
    if one.kind is EntityKind.PROPERTY:
        return Drop(tables.PROPERTIES, key | {"property_id": one.id})
    return Drop(tables.UNITS, key | {"unit_id": one.id})


def _some(ids: Iterable[int]) -> Iterator[tuple[int, ...]]:
    """Yield ids in parts that are small enough for one query."""
    rest = iter(ids)
    while part := tuple(islice(rest, IDS_AT_ONCE)):
        yield part


def _units(
    connection: sa.Connection, org: str, name: str, matches: Any, limit: int | None = None
) -> Iterator[tuple[tuple[str, str, int], Unit]]:
    unit = tables.UNITS.c
    query = (
        sa.select(unit.unit_id, unit.raw)
        .where(unit.org_id == org, unit.connection == name, matches)
        .order_by(unit.unit_id)
        .limit(limit)
    )
    for row in connection.execute(query).all():
        yield (org, name, row.unit_id), (row.raw, decode_as(UnitRow, row.raw))


def _buildings(connection: sa.Connection, org: str, name: str, ids: Collection[int]) -> dict[int, bytes]:
    owner = tables.PROPERTIES.c
    found: dict[int, bytes] = {}
    for some in _some(sorted(ids)):
        query = sa.select(owner.property_id, owner.raw).where(
            owner.org_id == org, owner.connection == name, owner.property_id.in_(some)
        )
        found.update({row.property_id: row.raw for row in connection.execute(query)})
    return found
