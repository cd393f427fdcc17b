"""The end of a sweep: what it did not bring is fetched by its id.

An entity is removed when the PMS answers 404 to that fetch; `streams.core.rent_roll.missed` decides whether at once.
"""

from collections.abc import Callable, Iterator, Mapping

from schemas import topics
from schemas.base import EntityKind
from schemas.delivery import DeliveryDue, DueReason
from schemas.integrations import SyncResult
from schemas.pms import STAGES, RecheckStep
from schemas.rent_roll import (
    AbsentRow,
    AccountRow,
    LeaseRow,
    Page,
    PageItem,
    PropertyRow,
    SeenRow,
    SweepEnd,
    SweptRow,
    UnitRow,
)
from streams.core.flows import Disposition, Emit, FoldResult
from streams.core.rent_roll.keys import (
    absent_key,
    absent_of,
    account_key,
    id_of,
    leases_of,
    properties_of,
    scope,
    seen_key,
    swept_key,
    unit_key,
    units_of,
)
from streams.core.rent_roll.marks import note_mark
from streams.core.rent_roll.members import units_of_property
from streams.core.rent_roll.missed import Decision, Missed, decide
from streams.core.rent_roll.pages import fold_removal
from streams.core.rows import Rows


def fold_sweep_end(rows: Rows, end: SweepEnd) -> FoldResult:
    """Fetch what a complete sweep missed; after the first complete sweep mark every property as due.

    A torn sweep may have missed something. It is not the first complete one: nothing is offered on a guess.
    """
    prefix = scope(end.org, end.connection)
    account = rows.find(AccountRow, account_key(prefix))
    if account is not None and _is_older(end, account):
        return FoldResult(Disposition.IGNORED)
    seen = _seen(rows, prefix, end)
    if seen is None or (account is None and end.torn):
        return FoldResult(Disposition.IGNORED, counts={"incomplete": 1})
    emits: list[Emit] = []
    decisions: Mapping[EntityKind, Decision] = {}
    if not end.torn:
        since = account.seq if account else 0
        found = _missed(rows, prefix, end, seen)
        decisions = decide(found, end.sweep, asked_since=since, confirmed=end.confirms_removals)
        emits += _follow(rows, prefix, end, decisions)
    awaiting = account.awaiting if account else ()
    if account is None or account.first_sweep == end.sweep:
        emits += _due_properties(rows, prefix, end)
    elif not end.torn:
        for number in awaiting:
            note_mark(rows, prefix, number, end.seq, end.ended_at)
            emits.append(_due(end, number))
        awaiting = tuple(number for number in awaiting if _still_awaits(rows, prefix, number, end.sweep))
    held_before = account.held_back if account else 0
    held_back = held_before if end.torn else sum(one.held for one in decisions.values())
    after = _account_after(rows, prefix, end, account, held_back=held_back, awaiting=awaiting)
    rows.put(account_key(prefix), after)
    emits.append(Emit(topics.INTEGRATION_STATUS, end.org, _result(end, after)))
    counts = {"held_back": held_back} if held_back != held_before else {}
    return FoldResult(Disposition.APPLIED, emits, counts)


def _is_older(end: SweepEnd, account: AccountRow) -> bool:
    """Return whether a sweep began before the last one; not by its time, since clocks may differ by hours."""
    if account.begun_seq:
        return end.seq < account.begun_seq
    return end.started_at < account.started_at


def _account_after(
    rows: Rows, prefix: bytes, end: SweepEnd, account: AccountRow | None, *, held_back: int, awaiting: tuple[int, ...]
) -> AccountRow:
    """Return the row of the connection after a sweep."""
    before = account.seq if account else 0
    if account is not None and account.sweep == end.sweep:
        seq = before  # it is folded again: what was asked for since then is still newer
    else:
        swept = (rows.find(SweptRow, swept_key(prefix, stage)) for stage in STAGES)
        seq = before if end.torn else max([one.seq for one in swept if one is not None], default=before)
    return AccountRow(
        sweep=end.sweep,
        first_sweep=account.first_sweep if account else end.sweep,
        started_at=end.started_at,
        completed_at=end.ended_at,
        entities=end.entities,
        held_back=held_back,
        seq=seq,
        pulsed_until=account.pulsed_until if account else None,
        whole_sweep=max(account.whole_sweep if account else "", "" if end.torn else end.sweep),
        awaiting=awaiting,
        begun_seq=end.seq,
    )


def _result(end: SweepEnd, account: AccountRow) -> SyncResult:
    return SyncResult(
        org=end.org,
        name=end.connection,
        sweep=end.sweep,
        started_at=end.started_at,
        ended_at=end.ended_at,
        entities=end.entities,
        first_sweep=account.first_sweep,
        denied=end.denied,
        held_removals=account.held_back,
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
    units = (rows.find(UnitRow, unit_key(prefix, one)) for one in units_of_property(rows, prefix, property_id))
    return any(unit is not None and unit.awaits and unit.awaited_sweep > sweep for unit in units)


def _missed(rows: Rows, prefix: bytes, end: SweepEnd, seen: Mapping[EntityKind, set[int]]) -> dict[EntityKind, Missed]:
    """Return what a complete sweep missed, by kind; kinds that the credentials may not read are left out."""
    found: dict[EntityKind, Missed] = {}
    for stage in STAGES:
        if stage not in end.denied:
            known, missed = _unseen(rows, prefix, end, stage, seen[stage])
            absent = {id_of(key): row() for key, row in rows.scan(AbsentRow, absent_of(prefix, stage))}
            found[stage] = Missed(known, missed, absent)
    return found


def _follow(rows: Rows, prefix: bytes, end: SweepEnd, decisions: Mapping[EntityKind, Decision]) -> Iterator[Emit]:
    """Remove what is to be removed, and yield what follows from that and from what is to be asked for."""
    for kind, decision in decisions.items():
        for entity in decision.forget:
            rows.remove(absent_key(prefix, kind, entity))
        for entity in decision.remove:
            key = absent_key(prefix, kind, entity)
            absent = rows.find(AbsentRow, key)
            assert absent is not None
            rows.put(key, absent.model_copy(update={"removed_by": end.sweep}))
            yield from fold_removal(rows, _removal(end, kind, entity, absent))
        if decision.ask:
            step = RecheckStep(
                org=end.org,
                connection=end.connection,
                sweep=end.sweep,
                kind=kind,
                ids=decision.ask,
                guarded=decision.guarded,
            )
            yield Emit(topics.RECHECKS, end.org, step)


def _removal(end: SweepEnd, kind: EntityKind, entity: int, absent: AbsentRow) -> Page:
    """Return the page of the answer that an entity does not exist."""
    return Page(
        org=end.org,
        connection=end.connection,
        kind=kind,
        seq=absent.seq,
        fetched_at=absent.at,
        seen_at=end.ended_at,
        items=(PageItem(id=entity),),
    )


def _unseen(rows: Rows, prefix: bytes, end: SweepEnd, stage: EntityKind, seen: set[int]) -> tuple[int, dict[int, int]]:
    """Return how many entities a sweep of this stage should bring, and the sequences of those that it did not, by id.

    What was fetched otherwise since the sweep began is not missed. Only rows that the sweep did not bring are decoded.
    """
    known, missed = 0, {}
    for key, row in _rows_of(rows, prefix, stage):
        entity = id_of(key)
        if entity in seen:
            known += 1
            continue
        expected, seq = _expected(stage, row())
        if expected and (seq < end.seq or seq == 0):
            known += 1
            missed[entity] = seq
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
