"""What each record means for the view, as data: pure functions from records to changes of rows.

Records of different topics come in any order, so no change may depend on what another topic brought before. Two records
about one row either have equal columns, or each sets columns of its own.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Table

from schemas import topics
from schemas.base import EntityKind
from schemas.codec import decode, decode_as
from schemas.commands import (
    Command,
    CommandAction,
    PushOutcome,
    PushResult,
    SyncState,
    SyncStatus,
)
from schemas.delivery import Batch, DeliveryOutcome, DeliveryPhase, DeliveryRow, KnownRow
from schemas.integrations import STATUS_KINDS, HoldReport, Integration, SyncProgress
from schemas.pms import FetchOrigin, FetchRequest
from schemas.rent_roll import AccountRow, Page, PropertyRow, PropertySnapshot, SweepEnd, UnitRow
from streams.core.dead_letters import letter_of
from streams.core.flows import Record
from streams.topology import DELIVERIES, RENT_ROLL
from streams.view import tables

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Put:
    """Set these columns of a row; it is inserted if it is new."""

    table: Table
    values: Values
    """Those of the primary key, and those that are set. Puts of one table may set different columns."""
    newer_by: str | None = None
    """A column: a row that has a larger value in it stays as it is."""
    first_by: str | None = None
    """A column: a row that has a value in it stays as it is."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Delete a row."""

    table: Table
    key: Values


@dataclass(frozen=True, slots=True)
class Facts:
    """An encoded row of table ``rent-roll``, from which rows of the view follow; null deletes.

    What is shown of a unit depends on its property and its account, too (`streams.view.roll`).
    """

    kind: EntityKind | None
    """Null: the account."""
    org: str
    connection: str
    id: int
    raw: bytes | None
    row: UnitRow | None = None
    """Of a unit: the decoded row."""
    values: Values | None = None
    """Of an account or a property: its row of the view."""


Change = Put | Drop | Facts
Projection = Callable[[Record], Iterator[Change]]


def at_of(record: Record) -> datetime:
    """Return when a record was written."""
    return datetime.fromtimestamp(record.timestamp / 1000, UTC)


# ------------------------------------------------------------------------------------------------- commands and syncs

_TYPES: Final = {CommandAction.CREATE: "CREATE", CommandAction.UPDATE: "UPDATE"}

STATUSES: Final[Mapping[SyncStatus, str]] = {
    SyncStatus.UNKNOWN: "IN_PROGRESS",
    SyncStatus.PENDING: "PENDING",
    SyncStatus.SYNCING: "IN_PROGRESS",
    SyncStatus.SYNCED: "COMPLETED",
    SyncStatus.FAILED: "FAILED",
    SyncStatus.CONFLICT: "FAILED",
}
"""The status of an operation in SQL."""

_RESULTS: Final[Mapping[PushResult, str]] = {
    PushResult.UNKNOWN: "IN_PROGRESS",
    PushResult.DONE: "COMPLETED",
    PushResult.WAITING: "IN_PROGRESS",
    PushResult.FAILED: "FAILED",
    PushResult.CONFLICT: "FAILED",
}


def of_command(record: Record) -> Iterator[Change]:
    """What was asked for. The first command of an operation counts; a retry is no operation of its own."""
    command = decode_as(Command, record.value)
    if command.action in _TYPES:
        body = command.property or command.owner
        yield Put(
            tables.OPERATIONS,
            {
                "org_id": command.org,
                "id": command.operation,
                "connection": command.connection,
                "type": _TYPES[command.action],
                "entity": command.entity.value,
                "local_id": command.id,
                "data": None if body is None else json.loads(msgspec.json.encode(body)),
                "created_at": command.at,
            },
            first_by="data",
        )


def of_sync_state(record: Record) -> Iterator[Change]:
    """The last operations of an entity, the newest one with what the entity's state adds to it."""
    if record.value is None:
        return
    state = decode_as(SyncState, record.value)
    for number, one in enumerate(state.operations):
        current = number == 0
        failed = one.status in (SyncStatus.FAILED, SyncStatus.CONFLICT, SyncStatus.SYNCING, SyncStatus.PENDING)
        yield Put(
            tables.OPERATIONS,
            {
                "org_id": state.org,
                "id": one.id,
                "status": STATUSES[one.status],
                "attempts": one.attempts,
                "error_code": state.code if current and failed else None,
                "error": (state.detail if current else one.detail) if failed else None,
                "next_attempt": state.next_attempt_at if current else None,
                "buildium_id": state.pms_id,
                "updated_at": state.updated_at if current else one.ended_at or one.at,
            },
            newer_by="updated_at",
        )
        yield Put(
            tables.OPERATIONS,
            {
                "org_id": state.org,
                "id": one.id,
                "connection": state.connection,
                "type": _TYPES.get(one.action),
                "entity": state.entity.value,
                "local_id": state.id,
                "created_at": one.at,
            },
            first_by="created_at",
        )


def of_push_outcome(record: Record) -> Iterator[Change]:
    """What the PMS answered to an attempt: an operation that the state of its entity names no more keeps its end."""
    outcome = decode_as(PushOutcome, record.value)
    failed = outcome.result is not PushResult.DONE
    yield Put(
        tables.OPERATIONS,
        {
            "org_id": outcome.org,
            "id": outcome.operation,
            "status": _RESULTS[outcome.result],
            "attempts": outcome.attempt,
            "next_attempt": outcome.due_at,
            "error_code": outcome.code if failed else None,
            "error": outcome.detail if failed else None,
            "updated_at": outcome.at,
            **({} if outcome.pms_id is None else {"buildium_id": outcome.pms_id}),
        },
        newer_by="updated_at",
    )
    attempted = {"org_id": outcome.org, "id": outcome.operation, "last_attempt": outcome.at}
    yield Put(tables.OPERATIONS, attempted, newer_by="last_attempt")


# ---------------------------------------------------------------------------------------------------------- deliveries


def of_batch(record: Record) -> Iterator[Change]:
    """A batch that is sent."""
    batch = decode_as(Batch, record.value)
    yield Put(
        tables.ATTEMPTS,
        {
            **_attempt(batch.org, batch.sink, batch.connection, batch.property.id, batch.version, batch.attempt),
            "batch_id": batch.batch_id,
            "sync_id": batch.sync_id,
            "mode": batch.mode.value,
            "units": len(batch.units),
            "cut_at": batch.cut_at,
            "seen_at": batch.seen_at,
            "partition": record.partition,
            "offset": record.offset,
            "at": batch.cut_at,
        },
    )


def of_delivery_outcome(record: Record) -> Iterator[Change]:
    """What a receiver answered."""
    one = decode_as(DeliveryOutcome, record.value)
    attempt = _attempt(one.org, one.sink, one.connection, one.property_id, one.version, one.attempt)
    yield Put(tables.ATTEMPTS, {**attempt, "at": one.at}, first_by="at")
    yield Put(
        tables.ATTEMPTS,
        {
            **attempt,
            "result": one.result.value,
            "http_status": one.status,
            "reason": one.reason,
            "detail": one.detail,
            "ended_at": one.at,
            "next_attempt": one.due_at,
        },
    )


def _attempt(org: str, receiver: str, connection: str, property_id: int, version: int, attempt: int) -> dict[str, Any]:
    return {
        "org_id": org,
        "receiver": receiver,
        "connection": connection,
        "property_id": property_id,
        "version": version,
        "attempt": attempt,
    }


def of_delivery_row(record: Record) -> Iterator[Change]:
    """A row of table ``deliveries``: of a property, or of a unit; other kinds mean nothing here."""
    match _row_key(record):
        case [org, receiver, connection, "p", property_id]:
            key = {"org_id": org, "receiver": receiver, "connection": connection, "property_id": int(property_id)}
            if record.value is None:
                yield Drop(tables.DELIVERIES, key)
                return
            row = decode_as(DeliveryRow, record.value)
            is_open = row.phase is not DeliveryPhase.IDLE or row.dirty_since is not None
            yield Put(
                tables.DELIVERIES,
                {
                    **key,
                    "phase": row.phase.value,
                    "version": row.version,
                    "attempt": row.attempt,
                    "mode": row.mode.value,
                    "sync_id": row.sync_id or None,
                    "batch_id": row.batch_id or None,
                    "cut_at": row.cut_at,
                    "owed_since": (row.seen_at if row.phase is not DeliveryPhase.IDLE else None) or row.dirty_since
                    if is_open
                    else None,
                    "acknowledged_at": row.acknowledged_at,
                    "next_attempt": row.due_at if row.phase is DeliveryPhase.WAITING else None,
                    "given_up_at": row.given_up_at,
                    "error": row.last_error,
                },
            )
        case [org, receiver, connection, "u", property_id, unit_id]:
            key = {"org_id": org, "receiver": receiver, "connection": connection, "unit_id": int(unit_id)}
            if record.value is None:
                yield Drop(tables.KNOWN, key)
                return
            known = decode_as(KnownRow, record.value)
            yield Put(tables.KNOWN, {**key, "property_id": int(property_id), "digest": known.digest})
        case _:
            return


def _row_key(record: Record) -> list[str]:
    """Return the parts of the key of a row; none for the engine's own, which begin with a byte that no text has."""
    key = record.key or b""
    return [] if key[:1] == b"\xff" else key.decode().split("/")


# ------------------------------------------------------------------------------------------------------------ rent roll


def of_rent_roll_row(record: Record) -> Iterator[Change]:
    """A row of table ``rent-roll``: an account, a property or a unit; other kinds mean nothing here."""
    raw = record.value
    match _row_key(record):
        case [org, connection, "a"]:
            values = None if raw is None else account_values(org, connection, raw)
            yield Facts(None, org, connection, 0, raw, values=values)
        case [org, connection, "p", number]:
            values = None if raw is None else property_values(org, connection, int(number), raw)
            yield Facts(EntityKind.PROPERTY, org, connection, int(number), raw, values=values)
        case [org, connection, "u", number]:
            row = None if raw is None else decode_as(UnitRow, raw)
            yield Facts(EntityKind.UNIT, org, connection, int(number), raw, row)
        case _:
            return


def account_values(org: str, connection: str, raw: bytes) -> Values:
    """Return the row of an account."""
    row = decode_as(AccountRow, raw)
    return {
        "org_id": org,
        "connection": connection,
        "first_sweep": row.first_sweep,
        "completed_at": row.completed_at,
        "entities": row.entities,
        "held_removals": row.held_back,
        "raw": raw,
    }


def property_values(org: str, connection: str, property_id: int, raw: bytes) -> Values:
    """Return the row of a property."""
    row = decode_as(PropertyRow, raw)
    building = None if row.body is None else decode_as(PropertySnapshot, row.body)
    parts = (building.address_line1, building.city, building.state) if building else ()
    return {
        "org_id": org,
        "connection": connection,
        "property_id": property_id,
        "name": building.name if building else None,
        "address": ", ".join(part for part in parts if part) or None,
        "is_active": building is not None and building.is_active and not row.gone,
        "gone": row.gone,
        "version": row.version,
        "fetched_at": row.fetched_at,
        "raw": raw,
    }


# ------------------------------------------------------------------------------------------------------------- history


def of_fetch_request(record: Record) -> Iterator[Change]:
    """A webhook; what we ask for ourselves is none."""
    request = decode_as(FetchRequest, record.value)
    if request.origin is FetchOrigin.WEBHOOK:
        yield Put(
            tables.WEBHOOKS,
            {
                **_place(request.org, record),
                "connection": request.connection,
                "event": request.event,
                "kind": request.kind.value,
                "entity": request.entity,
                "occurred_at": request.occurred_at,
                "ignored": request.ignored,
                "at": request.received_at,
            },
        )


def of_change(record: Record) -> Iterator[Change]:
    """A read of entities outside of a sweep, or the end of a sweep."""
    page = decode(record.value)
    if isinstance(page, SweepEnd):
        yield Put(
            tables.SWEEPS,
            {
                "org_id": page.org,
                "connection": page.connection,
                "sweep": page.sweep,
                "started_at": page.started_at,
                "entities": page.entities,
                "pages": sum(page.pages),
                "torn": page.torn,
                "denied": [kind.value for kind in page.denied],
                "at": page.ended_at,
            },
        )
    elif isinstance(page, Page) and page.sweep is None and page.items:
        yield Put(
            tables.FETCHES,
            {
                **_place(page.org, record),
                "connection": page.connection,
                "kind": page.kind.value,
                "entity": page.items[0].id,
                "entities": len(page.items),
                "missing": sum(item.body is None for item in page.items),
                "seen_at": page.seen_at,
                "at": page.fetched_at,
            },
        )


def of_status(record: Record) -> Iterator[Change]:
    """The progress of a sweep, and a hold; what else is known of an integration means nothing here."""
    if record.value is None:
        match (record.key or b"").decode().split("/"):
            case [org, name, kind] if kind == STATUS_KINDS[SyncProgress]:
                yield Drop(tables.PROGRESS, {"org_id": org, "connection": name})
            case [org, name, kind] if kind == STATUS_KINDS[HoldReport]:
                yield Drop(tables.HOLDS, {"org_id": org, "integration": name})
        return
    status = decode(record.value)
    if isinstance(status, HoldReport):
        yield _hold(status)
    if isinstance(status, SyncProgress):
        yield Put(
            tables.PROGRESS,
            {
                "org_id": status.org,
                "connection": status.name,
                "sweep": status.sweep,
                "started_at": status.started_at,
                "stage": status.stage.value,
                "number": status.number,
                "stages": status.stages,
                "read": status.read,
                "total": status.total,
                "failed": status.failed,
                "at": status.at,
            },
        )


def _hold(report: HoldReport) -> Change:
    """Return the row of a hold, or its deletion if it has ended."""
    key = {"org_id": report.org, "integration": report.name}
    if report.until is None:
        return Drop(tables.HOLDS, key)
    return Put(
        tables.HOLDS,
        {
            **key,
            "reason": report.reason,
            "detail": report.detail,
            "since": report.since,
            "until": report.until,
            "refused": report.refused,
            "version": report.version,
        },
    )


def of_dead_letter(record: Record) -> Iterator[Change]:
    """What was given up. A record without a readable org belongs to the org ``""``."""
    letter = letter_of(record)
    yield Put(
        tables.DEAD_LETTERS,
        {
            "org_id": letter.org,
            "partition": letter.partition,
            "offset": letter.offset,
            "origin": letter.origin,
            "flow": letter.flow,
            "reason": letter.reason,
            "attempts": letter.attempts,
            "message": letter.message,
            "fingerprint": letter.fingerprint,
            "connection": letter.connection,
            "receiver": letter.receiver,
            "entity": letter.entity,
            "kind": letter.kind,
            "pms_id": letter.pms_id,
            "property_id": letter.property_id,
            "operation": letter.operation,
            "replays": letter.replays,
            "replay": letter.replay,
            "first_failed_at": letter.first_failed_at,
            "at": letter.at,
        },
    )


def of_integration(record: Record) -> Iterator[Change]:
    """A stored integration; null deletes it."""
    if record.value is None:
        org, _, name = (record.key or b"").decode().partition("/")
        yield Drop(tables.INTEGRATIONS, {"org_id": org, "name": name})
        return
    one = decode_as(Integration, record.value)
    yield Put(
        tables.INTEGRATIONS,
        {
            "org_id": one.org,
            "name": one.name,
            "system": one.system,
            "role": one.role.value,
            "mode": one.mode.value,
            "enabled": one.enabled,
            "settings": {setting.name: json.loads(setting.value) for setting in one.settings},
            "secrets": [{"name": secret.name, "since": secret.added_at.isoformat()} for secret in one.secrets],
            "version": one.version,
            "created_at": one.created_at,
        },
    )


def _place(org: str, record: Record) -> dict[str, Any]:
    return {"org_id": org, "partition": record.partition, "offset": record.offset}


# ----------------------------------------------------------------------------------------------------------- catalogue


def projections(app: str) -> Mapping[str, Projection]:
    """Return THE TABLE of what is projected, by topic; ``app`` begins the names of changelogs."""
    return {
        topics.COMMANDS.name: of_command,
        topics.SYNC_EVENTS.name: of_push_outcome,
        topics.SYNC_STATES.name: of_sync_state,
        topics.changelog(app, RENT_ROLL).name: of_rent_roll_row,
        topics.changelog(app, DELIVERIES).name: of_delivery_row,
        topics.BATCHES.name: of_batch,
        topics.OUTCOMES.name: of_delivery_outcome,
        topics.WEBHOOKS.name: of_fetch_request,
        topics.CHANGES.name: of_change,
        topics.INTEGRATION_STATUS.name: of_status,
        topics.INTEGRATIONS.name: of_integration,
        topics.DEAD_LETTERS.name: of_dead_letter,
    }
