"""Reads of the view. Every query is of one org; rows are plain dictionaries in the form of the API.

Lists are read by cursors that name the last row of the page before, so that a page is right whatever changes meanwhile.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa

from schemas import topics
from schemas.delivery import DeliveryPhase
from streams.view import tables
from streams.view.database import Database, ViewUnavailable
from streams.view.writer import AS_OF

Item = dict[str, Any]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_HIDDEN: Final = {"org_id", "raw", "search", "changes_on"}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _shown(table: sa.Table) -> list[sa.Label[Any]]:
    """Return the columns of a table that are shown, under their names in the API."""
    return [column.label(_camel(column.name)) for column in table.c if column.name not in _HIDDEN]


_UNIT: Final = [
    *_shown(tables.UNITS),
    tables.PROPERTIES.c.name.label("propertyName"),
    tables.PROPERTIES.c.address.label("address"),
]
_DELIVERY: Final = _shown(tables.DELIVERIES)
_ATTEMPT: Final = [column for column in _shown(tables.ATTEMPTS) if column.name not in {"partition", "offset"}]
_WEBHOOK: Final = _shown(tables.WEBHOOKS)

SETTLED: Final = timedelta(seconds=10)
"""How long after a delivery was given up its row has to be in the view."""


class BadCursor(ValueError):  # noqa: N818
    """The cursor is none that this query gave out."""


@dataclass(frozen=True, slots=True)
class Found:
    """One page of a list."""

    as_of: datetime | None
    """Everything that was written before is in it; null before the view was complete the first time."""
    items: list[Item]
    next_cursor: str | None

    def digest(self) -> str:
        """Return a digest of the items, for an ETag."""
        return hashlib.blake2b(msgspec.json.encode(self.items), digest_size=12).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class RollFilter:
    """Which units are wanted; null: any."""

    connection: str | None = None
    property_id: int | None = None
    states: Sequence[str] = ("available", "rented", "unavailable")
    changed_since: datetime | None = None
    text: str | None = None
    """Part of the unit's code or building, or of its property's name or address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """Which deliveries are wanted; null: any."""

    receiver: str | None = None
    property_id: int | None = None
    failed: bool = False
    """Only those that were given up, or whose last attempt failed."""
    changed_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookFilter:
    """Which webhooks are wanted; null: any."""

    connection: str | None = None
    event: str | None = None
    entity: int | None = None
    changed_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Which dead letters are wanted; null: any."""

    open: bool | None = None
    """Whether what was given up is still owed; see `Queries.dead_letters`."""
    place: tuple[int, int] | None = None
    """Partition and offset of a single one."""
    since: datetime | None = None
    until: datetime | None = None
    origin: str | None = None
    reason: str | None = None
    fingerprint: str | None = None
    entity: str | None = None
    integration: str | None = None
    """Name of the connection or of the receiver."""


class Replayable(NamedTuple):
    """A dead letter, as far as a plan of its replay depends on it."""

    partition: int
    offset: int
    origin: str
    connection: str | None
    receiver: str | None
    entity: str | None
    operation: str | None
    property_id: int | None
    is_closed: bool
    replays: int


class Queries:
    """Reads of one database. Safe for use in several threads; every method may raise `ViewUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def local(self) -> bool:
        """Return whether a read involves no network, and waits for no writer."""
        return self._database.url.get_backend_name() == "sqlite"

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        try:
            with self._database.reading() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise ViewUnavailable(self._database.reason(error)) from error

    def as_of(self) -> datetime | None:
        """Return the moment until which everything is in the view; null before it was complete the first time."""
        with self._reading() as connection:
            return _as_of(connection)

    # ------------------------------------------------------------------------------------------------------ rent roll

    def rent_roll(
        self, org: str, wanted: RollFilter, receivers: Sequence[str], limit: int, cursor: str | None = None
    ) -> Found:
        """Return units by connection and id, with what each of the receivers knows of them. Raise `BadCursor`."""
        unit, owner = tables.UNITS.c, tables.PROPERTIES.c
        same = sa.and_(
            owner.org_id == unit.org_id, owner.connection == unit.connection, owner.property_id == unit.property_id
        )
        query = (
            sa.select(*_UNIT)
            .select_from(tables.UNITS.outerjoin(tables.PROPERTIES, same))
            .where(unit.org_id == org)
            .order_by(unit.connection, unit.unit_id)
            .limit(limit + 1)
        )
        if wanted.connection is not None:
            query = query.where(unit.connection == wanted.connection)
        state: sa.ColumnElement[str] = unit.state
        if wanted.property_id is not None:
            query = query.where(unit.property_id == wanted.property_id)
            # A property has few units, a state has many; the expression keeps the planner off the index of states.
            state = unit.state.concat("")
        query = query.where(state.in_(list(wanted.states)))
        if wanted.changed_since is not None:
            query = query.where(unit.fetched_at >= wanted.changed_since)
        if wanted.text:
            query = query.where(unit.search.contains(wanted.text.casefold(), autoescape=True))
        if cursor is not None:
            name, number = _parts(cursor, 2)
            query = query.where(sa.tuple_(unit.connection, unit.unit_id) > (name, _number(number)))
        with self._reading() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
            more, rows = len(rows) > limit, rows[:limit]
            known = self._known(connection, org, receivers, rows)
            as_of = _as_of(connection)
        for row in rows:
            row["receivers"] = known.get((row["connection"], row["unitId"]), [])
            del row["digest"]
        last = f"{rows[-1]['connection']}.{rows[-1]['unitId']}" if more else None
        return Found(as_of, rows, last)

    @staticmethod
    def _known(
        connection: sa.Connection, org: str, receivers: Sequence[str], rows: Sequence[Item]
    ) -> dict[tuple[str, int], list[Item]]:
        """Return what each receiver knows of the units of a page, by connection and unit."""
        found: dict[tuple[str, int], list[Item]] = {}
        if not rows or not receivers:
            return found
        one, delivery = tables.KNOWN.c, tables.DELIVERIES.c
        names = {row["connection"] for row in rows}
        digests = {
            (row.receiver, row.connection, row.unit_id): row.digest
            for row in connection.execute(
                sa.select(one.receiver, one.connection, one.unit_id, one.digest).where(
                    one.org_id == org,
                    one.receiver.in_(list(receivers)),
                    one.connection.in_(list(names)),
                    one.unit_id.in_([row["unitId"] for row in rows]),
                )
            )
        }
        deliveries = {
            (row.receiver, row.connection, row.property_id): row
            for row in connection.execute(
                sa.select(
                    delivery.receiver, delivery.connection, delivery.property_id, delivery.phase,
                    delivery.acknowledged_at, delivery.error,
                ).where(
                    delivery.org_id == org,
                    delivery.receiver.in_(list(receivers)),
                    delivery.connection.in_(list(names)),
                    delivery.property_id.in_(list({row["propertyId"] for row in rows})),
                )
            )
        }  # fmt: skip
        for row in rows:
            place = (row["connection"], row["unitId"])
            for receiver in receivers:
                digest = digests.get((receiver, *place))
                sent = deliveries.get((receiver, row["connection"], row["propertyId"]))
                found.setdefault(place, []).append(
                    {
                        "receiver": receiver,
                        "upToDate": digest is not None and digest == row["digest"],
                        "acknowledgedAt": sent.acknowledged_at if sent is not None and digest is not None else None,
                        "error": sent.error if sent is not None and sent.phase != "idle" else None,
                    }
                )
        return found

    # ----------------------------------------------------------------------------------------------------- deliveries

    def deliveries(self, org: str, wanted: DeliveryFilter, limit: int, cursor: str | None = None) -> Found:
        """Return what each receiver knows of each property, by receiver, connection and property."""
        one = tables.DELIVERIES.c
        query = sa.select(*_DELIVERY).where(one.org_id == org)
        query = query.order_by(one.receiver, one.connection, one.property_id).limit(limit + 1)
        if wanted.receiver is not None:
            query = query.where(one.receiver == wanted.receiver)
        if wanted.property_id is not None:
            query = query.where(one.property_id == wanted.property_id)
        if wanted.failed:
            query = query.where(one.phase.in_(["waiting", "owed"]))
        if cursor is not None:
            receiver, name, number = _parts(cursor, 3)
            place = (receiver, name, _number(number))
            query = query.where(sa.tuple_(one.receiver, one.connection, one.property_id) > place)
        return self._page(query, limit, ("receiver", "connection", "propertyId"))

    def attempts(self, org: str, wanted: DeliveryFilter, limit: int, cursor: str | None = None) -> Found:
        """Return batches that were sent and how they ended, newest first."""
        one = tables.ATTEMPTS.c
        query = sa.select(*_ATTEMPT).where(one.org_id == org)
        if wanted.receiver is not None:
            query = query.where(one.receiver == wanted.receiver)
        if wanted.property_id is not None:
            query = query.where(one.property_id == wanted.property_id)
        if wanted.failed:
            query = query.where(one.result.in_(["waiting", "dead", "cancelled"]))
        if wanted.changed_since is not None:
            query = query.where(one.at >= wanted.changed_since)
        return self._newest(query, limit, cursor, one.at, (one.connection, one.property_id, one.version, one.attempt))

    # -------------------------------------------------------------------------------------------------------- history

    def webhooks(self, org: str, wanted: WebhookFilter, limit: int, cursor: str | None = None) -> Found:
        """Return accepted webhooks, newest first."""
        one = tables.WEBHOOKS.c
        query = sa.select(*_WEBHOOK).where(one.org_id == org)
        if wanted.connection is not None:
            query = query.where(one.connection == wanted.connection)
        if wanted.event is not None:
            query = query.where(one.event == wanted.event)
        if wanted.entity is not None:
            query = query.where(one.entity == wanted.entity)
        if wanted.changed_since is not None:
            query = query.where(one.at >= wanted.changed_since)
        return self._newest(query, limit, cursor, one.at, (one.partition, one.offset))

    # --------------------------------------------------------------------------------------------------- dead letters

    def dead_letters(self, org: str, wanted: LetterFilter, limit: int, cursor: str | None = None) -> Found:
        """Return dead letters, newest first, each with whether it is open.

        A letter closes itself. That of a delivery is open as long as its receiver does not know the property; that of a
        command until a later operation of its entity was completed; that of a fetch until the entity, or the whole
        account, was read later.
        """
        one, state = tables.DEAD_LETTERS.c, self._letter_state()
        query = sa.select(*_shown(tables.DEAD_LETTERS), state.label("state")).where(one.org_id == org)
        query = query.where(*_letters(wanted, state))
        found = self._newest(query, limit, cursor, one.at, (one.partition, one.offset))
        return Found(found.as_of, [_letter(org, row) for row in found.items], found.next_cursor)

    def dead_letter_groups(self, org: str, wanted: LetterFilter, limit: int) -> Found:
        """Return dead letters that are alike as one item each, the group with the newest letter first."""
        one, state = tables.DEAD_LETTERS.c, self._letter_state()
        last = sa.func.max(one.at)
        query = (
            sa.select(
                one.fingerprint,
                one.flow,
                one.reason,
                sa.func.count().label("letters"),
                sa.func.sum(sa.case((state == "open", 1), else_=0)).label("open"),
                sa.func.count(sa.distinct(one.entity)).label("entities"),
                sa.func.min(one.at).label("first"),
                last.label("last"),
                sa.func.max(one.message).label("message"),
            )
            .where(one.org_id == org, *_letters(wanted, state))
            .group_by(one.fingerprint, one.flow, one.reason)
            .order_by(last.desc(), one.fingerprint)
            .limit(limit)
        )
        rows, _, as_of = self._rows(query, limit)
        return Found(as_of, rows, None)

    def replayable(self, org: str, wanted: LetterFilter) -> list[Replayable]:
        """Return all dead letters that match, with what a plan of their replay needs."""
        one, state = tables.DEAD_LETTERS.c, self._letter_state()
        query = sa.select(
            one.partition, one.offset, one.origin, one.connection, one.receiver, one.entity, one.operation,
            one.property_id, (state == "closed"), one.replays,
        ).where(one.org_id == org, *_letters(wanted, state))  # fmt: skip
        with self._reading() as connection:
            return [Replayable(*row) for row in connection.execute(query)]

    def unknown_units(self, org: str, receiver: str, connection: str, property_id: int) -> list[Item]:
        """Return the units of a property that a receiver does not know as they are now."""
        unit, one, owner = tables.UNITS.c, tables.KNOWN.c, tables.PROPERTIES.c
        same = sa.and_(
            one.org_id == unit.org_id,
            one.connection == unit.connection,
            one.unit_id == unit.unit_id,
            one.receiver == receiver,
        )
        of_property = sa.and_(
            owner.org_id == unit.org_id, owner.connection == unit.connection, owner.property_id == unit.property_id
        )
        query = (
            sa.select(*_UNIT)
            .select_from(tables.UNITS.outerjoin(tables.KNOWN, same).outerjoin(tables.PROPERTIES, of_property))
            .where(unit.org_id == org, unit.connection == connection, unit.property_id == property_id, unit.offered)
            .where(sa.or_(one.digest.is_(None), one.digest != unit.digest))
            .order_by(unit.unit_id)
        )
        with self._reading() as reading:
            return [dict(row) for row in reading.execute(query).mappings()]

    def acknowledged(
        self, org: str, receiver: str, connection: str, property_id: int, limit: int
    ) -> list[tuple[int, int]]:
        """Return where the last batches are that a receiver acknowledged of a property, the newest first."""
        one = tables.ATTEMPTS.c
        query = (
            sa.select(one.partition, one.offset)
            .where(one.org_id == org, one.receiver == receiver, one.connection == connection)
            .where(one.property_id == property_id, one.result == "acknowledged", one.offset.is_not(None))
            .order_by(one.version.desc(), one.attempt.desc())
            .limit(limit)
        )
        with self._reading() as reading:
            return [(row.partition, row.offset) for row in reading.execute(query)]

    def given_up_again(self, org: str, replay: str) -> int:
        """Return how many records of a replay became dead letters again."""
        one = tables.DEAD_LETTERS.c
        query = sa.select(sa.func.count()).where(one.org_id == org, one.replay == replay)
        with self._reading() as connection:
            found: int = connection.scalar(query) or 0
            return found

    def _letter_state(self) -> "sa.Case[str]":
        return _state((self.as_of() or _EPOCH + SETTLED) - SETTLED)

    # --------------------------------------------------------------------------------------------------------- shared

    def _rows(self, query: Any, limit: int) -> tuple[list[Item], bool, datetime | None]:
        """Return the rows of a page, whether there are more, and until when everything is in the view."""
        with self._reading() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
            return rows[:limit], len(rows) > limit, _as_of(connection)

    def _page(self, query: Any, limit: int, names: Sequence[str]) -> Found:
        rows, more, as_of = self._rows(query, limit)
        last = ".".join(str(rows[-1][name]) for name in names) if more else None
        return Found(as_of, rows, last)

    def _newest(self, query: Any, limit: int, cursor: str | None, at: Any, then: Sequence[Any]) -> Found:
        """Return a page in falling order of time and of some columns that are unique with it."""
        if cursor is not None:
            micros, *rest = _parts(cursor, 1 + len(then))
            values = [
                _number(text) if isinstance(column.type, sa.Integer) else text
                for column, text in zip(then, rest, strict=True)
            ]
            query = query.where(sa.tuple_(at, *then) < (_EPOCH + timedelta(microseconds=_number(micros)), *values))
        query = query.order_by(at.desc(), *(column.desc() for column in then)).limit(limit + 1)
        rows, more, as_of = self._rows(query, limit)
        last = None
        if more:
            micros = str((rows[-1]["at"] - _EPOCH) // timedelta(microseconds=1))
            last = ".".join([micros, *(str(rows[-1][_camel(column.name)]) for column in then)])
        return Found(as_of, rows, last)


def _state(settled: datetime) -> "sa.Case[str]":
    """Return the expression for whether a dead letter is open or closed.

    ``settled``: what was given up before is in the rows of deliveries.
    """
    one = tables.DEAD_LETTERS.c
    delivery, later, account = tables.DELIVERIES.c, tables.FETCHES.c, tables.SWEEPS.c
    given, done = tables.OPERATIONS.alias("given"), tables.OPERATIONS.alias("done")
    of_property = sa.and_(
        delivery.org_id == one.org_id,
        delivery.connection == one.connection,
        delivery.property_id == one.property_id,
        sa.or_(one.receiver.is_(None), delivery.receiver == one.receiver),
    )
    known = sa.exists().where(of_property, delivery.acknowledged_at > one.at)
    owed = sa.exists().where(of_property, delivery.phase != DeliveryPhase.IDLE.value)
    void = sa.and_(one.origin == topics.BATCHES.name, one.at < settled, sa.not_(owed))
    completed = sa.exists().where(
        given.c.org_id == one.org_id,
        given.c.id == one.operation,
        done.c.org_id == one.org_id,
        done.c.entity == given.c.entity,
        done.c.local_id == given.c.local_id,
        done.c.status == "COMPLETED",
        done.c.updated_at > one.at,
    )
    fetched = sa.exists().where(
        later.org_id == one.org_id,
        later.connection == one.connection,
        later.kind == one.kind,
        later.entity == one.pms_id,
        later.at > one.at,
    )
    swept = sa.exists().where(
        account.org_id == one.org_id, account.connection == one.connection, account.started_at > one.at
    )
    return sa.case(
        (one.property_id.is_not(None), sa.case((sa.or_(known, void), "closed"), else_="open")),
        (one.operation.is_not(None), sa.case((completed, "closed"), else_="open")),
        (one.connection.is_not(None), sa.case((sa.or_(fetched, swept), "closed"), else_="open")),
        else_="open",
    )


def _letters(wanted: LetterFilter, state: Any) -> list[Any]:
    """Return the conditions of a filter."""
    one = tables.DEAD_LETTERS.c
    found = [
        column == value
        for column, value in (
            (one.origin, wanted.origin),
            (one.reason, wanted.reason),
            (one.fingerprint, wanted.fingerprint),
            (one.entity, wanted.entity),
        )
        if value is not None
    ]
    if wanted.place is not None:
        found += [one.partition == wanted.place[0], one.offset == wanted.place[1]]
    if wanted.since is not None:
        found.append(one.at >= wanted.since)
    if wanted.until is not None:
        found.append(one.at < wanted.until)
    if wanted.integration is not None:
        found.append(sa.or_(one.connection == wanted.integration, one.receiver == wanted.integration))
    if wanted.open is not None:
        found.append(state == ("open" if wanted.open else "closed"))
    return found


def _letter(org: str, row: Item) -> Item:
    """Return a dead letter in the form of the API."""
    return {
        "id": f"{row['partition']}-{row['offset']}",
        "time": row["at"],
        "org": org,
        **{
            name: row[name]
            for name in ("origin", "flow", "reason", "attempts", "connection", "receiver", "entity", "fingerprint")
        },
        "message": row["message"],
        "firstFailedAt": row["firstFailedAt"],
        "replays": row["replays"],
        "state": row["state"],
    }


def _as_of(connection: sa.Connection) -> datetime | None:
    found: datetime | None = connection.scalar(sa.select(tables.STATE.c.at).where(tables.STATE.c.name == AS_OF))
    return found


def _parts(cursor: str, count: int) -> list[str]:
    parts = cursor.split(".")
    # Names of integrations contain no dot.
    if len(parts) != count:
        raise BadCursor(cursor)
    return parts


def _number(text: str) -> int:
    if not text.isascii() or not text.removeprefix("-").isdigit() or len(text) > 19:
        raise BadCursor(text)
    return int(text)
