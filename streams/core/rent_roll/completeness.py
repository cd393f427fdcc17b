"""The end of a sweep: what it did not bring is fetched by its id, unless so much is missing that it is not believed.

No entity is removed here. It is removed when the PMS answers 404 to the fetch of its id.
"""

from collections.abc import Callable, Iterator
from datetime import datetime

from schemas import topics
from schemas.base import EntityKind
from schemas.delivery import DeliveryDue, DueReason
from schemas.integrations import SyncResult
from schemas.pms import STAGES
from schemas.rent_roll import AccountRow, LeaseRow, PropertyRow, SeenRow, SweepEnd, UnitRow
from streams.core.flows import Disposition, Emit, FoldResult
from streams.core.rent_roll.keys import (
    account_key,
    id_of,
    leases_of,
    properties_of,
    property_key,
    scope,
    seen_key,
    unit_key,
    units_of,
)
from streams.core.rent_roll.refetch import RefetchReason, refetch
from streams.core.rows import Rows

GUARD_LEAST = 10
GUARD_SHARE = 0.2
"""A complete sweep that missed more than `GUARD_LEAST` entities of a kind *and* this share of them is not believed."""


def fold_sweep_end(rows: Rows, end: SweepEnd, now: datetime) -> FoldResult:
    """Fetch what a complete sweep missed; after the first complete sweep mark every property as due.

    A torn sweep may have missed something. It is not the first complete one: nothing is offered on a guess.
    """
    prefix = scope(end.org, end.connection)
    account = rows.find(AccountRow, account_key(prefix))
    if account is not None and account.started_at > end.started_at:
        return FoldResult(Disposition.IGNORED)
    seen = _seen(rows, prefix, end)
    if seen is None or (account is None and end.torn):
        return FoldResult(Disposition.IGNORED, counts={"incomplete": 1})
    emits: list[Emit] = []
    missed, held_back = ({}, 0) if end.torn else _missed(rows, prefix, end, seen)
    for stage, entities in missed.items():
        emits += [refetch(end, stage, entity, RefetchReason.MISSED, now) for entity in entities]
    awaiting = account.awaiting if account else ()
    if account is None or account.first_sweep == end.sweep:
        emits += _due_properties(rows, prefix, end)
    elif not end.torn:
        emits += [_due(end, number) for number in awaiting]
        awaiting = tuple(number for number in awaiting if _still_awaits(rows, prefix, number, end.sweep))
    first_sweep = account.first_sweep if account else end.sweep
    rows.put(
        account_key(prefix),
        AccountRow(
            sweep=end.sweep,
            first_sweep=first_sweep,
            started_at=end.started_at,
            completed_at=end.ended_at,
            entities=end.entities,
            held_back=held_back,
            pulsed_until=account.pulsed_until if account else None,
            whole_sweep=(account.whole_sweep if account else "") if end.torn else end.sweep,
            awaiting=awaiting,
        ),
    )
    emits.append(Emit(topics.INTEGRATION_STATUS, end.org, _result(end, first_sweep)))
    return FoldResult(Disposition.APPLIED, emits, {"held_back": held_back} if held_back else {})


def _result(end: SweepEnd, first_sweep: str) -> SyncResult:
    return SyncResult(
        org=end.org,
        name=end.connection,
        sweep=end.sweep,
        started_at=end.started_at,
        ended_at=end.ended_at,
        entities=end.entities,
        first_sweep=first_sweep,
        denied=end.denied,
    )


def _due_properties(rows: Rows, prefix: bytes, end: SweepEnd) -> Iterator[Emit]:
    for key, _ in rows.scan(PropertyRow, properties_of(prefix)):
        yield _due(end, id_of(key))


def _due(end: SweepEnd, property_id: int) -> Emit:
    due = DeliveryDue(
        org=end.org,
        connection=end.connection,
        property_id=property_id,
        reason=DueReason.SWEPT,
        seen_at=end.ended_at,
    )
    return Emit(topics.DUE, end.org, due)


def _still_awaits(rows: Rows, prefix: bytes, property_id: int, sweep: str) -> bool:
    """Return whether a property has a unit that was first seen after a sweep had begun."""
    row = rows.find(PropertyRow, property_key(prefix, property_id))
    units = (rows.find(UnitRow, unit_key(prefix, number)) for number in (row.units if row else ()))
    return any(unit is not None and unit.awaits and unit.awaited_sweep > sweep for unit in units)


def _missed(
    rows: Rows, prefix: bytes, end: SweepEnd, seen: dict[EntityKind, set[int]]
) -> tuple[dict[EntityKind, list[int]], int]:
    """Return the ids that a complete sweep missed, by kind, and how many of them the guard holds back.

    Leases and listings end in great numbers on ordinary days, so for them alone the guard requires only that the list
    was not empty; where properties or units seem to vanish, nothing of that sweep is believed.
    """
    missed: dict[EntityKind, list[int]] = {}
    suspicious = False
    for stage in STAGES:
        if stage in end.denied:
            continue
        known, missed[stage] = _unseen(rows, prefix, end, stage, seen[stage])
        share = GUARD_SHARE if stage in (EntityKind.PROPERTY, EntityKind.UNIT) else 1.0
        suspicious |= len(missed[stage]) > GUARD_LEAST and len(missed[stage]) >= share * known
    return ({}, sum(map(len, missed.values()))) if suspicious else (missed, 0)


def _unseen(rows: Rows, prefix: bytes, end: SweepEnd, stage: EntityKind, seen: set[int]) -> tuple[int, list[int]]:
    """Return how many entities a sweep of this stage should bring, and the ids of those that it did not.

    What was fetched otherwise since the sweep began is not missed. Only rows that the sweep did not bring are decoded.
    """
    known, missed = 0, []
    for key, row in _rows_of(rows, prefix, stage):
        entity = id_of(key)
        if entity in seen:
            known += 1
            continue
        expected, seq = _expected(stage, row())
        if expected and (seq < end.seq or seq == 0):
            known += 1
            missed.append(entity)
    return known, missed


def _seen(rows: Rows, prefix: bytes, end: SweepEnd) -> dict[EntityKind, set[int]] | None:
    """Return the ids that the pages of a sweep brought, by stage; null if one of the pages was not folded."""
    seen: dict[EntityKind, set[int]] = {}
    for stage, pages in zip(STAGES, end.pages, strict=True):
        seen[stage] = set()
        for number in range(pages):
            page = rows.find(SeenRow, seen_key(prefix, stage, number))
            if page is None or page.sweep != end.sweep:
                return None
            seen[stage].update(page.ids)
    return seen


def _rows_of(
    rows: Rows, prefix: bytes, stage: EntityKind
) -> Iterator[tuple[bytes, Callable[[], PropertyRow | UnitRow | LeaseRow]]]:
    """Return the rows that hold entities of a kind, undecoded."""
    match stage:
        case EntityKind.PROPERTY:
            yield from rows.scan(PropertyRow, properties_of(prefix))
        case EntityKind.LEASE:
            yield from rows.scan(LeaseRow, leases_of(prefix))
        case _:
            yield from rows.scan(UnitRow, units_of(prefix))


def _expected(stage: EntityKind, row: PropertyRow | UnitRow | LeaseRow) -> tuple[bool, int]:
    """Return whether a complete sweep of a kind should bring what a row holds, and the sequence of what it holds."""
    if isinstance(row, LeaseRow):
        return row.live and not row.gone, row.seq
    if stage is EntityKind.LISTING and isinstance(row, UnitRow):
        return row.listing is not None, row.listing_seq
    return not row.gone, row.seq
