"""The rent roll: pages of snapshots, folded in any order and any number of times into the same rows.

What orders them is the fetch sequence that our own fetcher took before each call. A row keeps the sequence of what it
holds and refuses an older one. One row is written per unit, with a small index row per property; a page of a sweep
writes only rows that differ, which is why a second mark is needed: `SweptRow` says how far sweeps have looked at a kind
of entity, and a reply older than that which *differs* is asked for again instead of believed (it may be older than an
unchanged look).
"""

from collections.abc import Callable, Iterator
from datetime import datetime

from schemas import topics
from schemas.avro import schema_of
from schemas.base import EntityKind
from schemas.codec import decode_as, encode, head_of
from schemas.delivery import DeliveryDue, DueReason
from schemas.pms import FetchOrigin, FetchRequest
from schemas.rent_roll import (
    AccountRow,
    LeaseEntry,
    LeaseRow,
    LeaseSnapshot,
    LeaseStatus,
    ListingSnapshot,
    Page,
    PageItem,
    PropertyRow,
    PropertySnapshot,
    SeenRow,
    SweepEnd,
    SweptRow,
    UnitRow,
    UnitSnapshot,
)
from streams.core.flows import Disposition, Emit, FoldResult
from streams.core.rows import Rows

STAGES = (EntityKind.PROPERTY, EntityKind.UNIT, EntityKind.LEASE, EntityKind.LISTING)
"""The order in which a sweep reads an account: parents first."""

GUARD_LEAST = 10
GUARD_SHARE = 0.2
"""A complete sweep that missed more than this many entities of a kind *and* this share of them is not believed."""


# ------------------------------------------------------------------------------------------------------------- keys


def scope(org: str, connection: str) -> bytes:
    """Make the prefix of every row of a connection; PMS ids are unique within it only."""
    return f"{org}/{connection}/".encode()


def unit_key(at: bytes, unit: int) -> bytes:
    return b"%su/%012d" % (at, unit)


def property_key(at: bytes, property_id: int) -> bytes:
    return b"%sp/%012d" % (at, property_id)


def lease_key(at: bytes, lease: int) -> bytes:
    return b"%sl/%012d" % (at, lease)


def seen_key(at: bytes, stage: EntityKind, number: int) -> bytes:
    return b"%ss/%s/%06d" % (at, stage.value.encode(), number)


def swept_key(at: bytes, kind: EntityKind) -> bytes:
    return b"%sw/%s" % (at, kind.value.encode())


def account_key(at: bytes) -> bytes:
    return at + b"a"


# ------------------------------------------------------------------------------------------------------------ apply


def apply(rows: Rows, said: Page | SweepEnd, now: datetime) -> FoldResult:
    """Fold one record into the rows. Idempotent: a record that came before says again what it said then."""
    if isinstance(said, SweepEnd):
        return _sweep_end(rows, said, now)
    return _Apply(rows, said).page()


def _holds(raw: bytes, head: bytes, body: bytes) -> bool:
    """Tell whether a row says exactly ``body`` already and is not gone, without decoding it.

    Sound since a body begins with two bytes that no text in a row can hold, names its schema, and ends by itself; and
    since ``gone`` is the first field of every row. A row by an older writer is decoded instead.
    """
    return raw.startswith(head) and raw[10] == 0 and body in raw


_UNIT_HEAD, _LEASE_HEAD, _PROPERTY_HEAD = (head_of(schema_of(row)) for row in (UnitRow, LeaseRow, PropertyRow))


class _Apply:
    """One page on its way into the rows."""

    def __init__(self, rows: Rows, page: Page) -> None:
        self.rows = rows
        self.said = page
        self.at = scope(page.org, page.connection)
        self.emits: list[Emit] = []
        self.told: set[int] = set()
        """Properties that this page has said to be due: its units of one property are one reason."""
        self.changed = 0
        self.repeated = 0

    def page(self) -> FoldResult:
        page = self.said
        swept = self.rows.find(SweptRow, swept_key(self.at, page.kind))
        swept_to = swept.seq if swept else 0
        self.offered = self.rows.find(AccountRow, account_key(self.at)) is not None
        fold, row_key, head = self._fold()
        raw, sweeping = self.rows.raw, page.sweep is not None
        if page.seq <= swept_to:
            for item in page.items:
                self._late(item)
        else:
            for item in page.items:
                if sweeping and item.body is not None:
                    there = raw(row_key(self.at, item.id))
                    if there is not None and _holds(there, head, item.body):
                        continue
                fold(item)
            if sweeping:
                self._seen(page)
        counts = {"missed": self.changed} if sweeping and self.offered and self.changed else {}
        return FoldResult(self._verdict(), self.emits, counts)

    def _fold(self) -> tuple[Callable[[PageItem], None], Callable[[bytes, int], bytes], bytes]:
        match self.said.kind:
            case EntityKind.UNIT:
                return self._unit, unit_key, _UNIT_HEAD
            case EntityKind.LEASE:
                return self._lease, lease_key, _LEASE_HEAD
            case EntityKind.LISTING:
                return self._listing, unit_key, _UNIT_HEAD
            case EntityKind.PROPERTY:
                return self._property, property_key, _PROPERTY_HEAD
            case other:
                raise ValueError(f"a page of {other} is not part of a rent roll")

    def _verdict(self) -> Disposition:
        if self.changed or self.emits:
            return Disposition.DUPLICATE if self.repeated and not self.changed else Disposition.APPLIED
        return Disposition.IGNORED if self.said.items else Disposition.APPLIED

    def _seen(self, page: Page) -> None:
        assert page.sweep is not None
        self.rows.put(swept_key(self.at, page.kind), SweptRow(seq=page.seq))
        ids = tuple(item.id for item in page.items)
        self.rows.put(seen_key(self.at, page.kind, page.number), SeenRow(sweep=page.sweep, ids=ids))

    def _late(self, item: PageItem) -> None:
        """Take an entity from a reply that is older than the newest page of a sweep.

        Either this reply came before (then say again what it said), or the roll knows something newer, or nothing
        differs. Else nobody can tell which is the later truth without asking.
        """
        row: UnitRow | LeaseRow | PropertyRow | None
        match self.said.kind:
            case EntityKind.LEASE:
                row = self.rows.find(LeaseRow, lease_key(self.at, item.id))
                known, body = (row.seq, row.body) if row else (0, None)
            case EntityKind.PROPERTY:
                row = self.rows.find(PropertyRow, property_key(self.at, item.id))
                known, body = (row.seq, row.body) if row else (0, None)
            case EntityKind.UNIT:
                row = self.rows.find(UnitRow, unit_key(self.at, item.id))
                known, body = (row.seq, row.body) if row else (0, None)
            case _:
                row = self.rows.find(UnitRow, unit_key(self.at, item.id))
                known, body = (row.listing_seq, row.listing) if row else (0, None)
        gone = row is not None and row.gone and self.said.kind is not EntityKind.LISTING
        same = row is not None and (gone if item.body is None and not isinstance(row, UnitRow) else body == item.body)
        if known == self.said.seq:
            self._repeat(item.id)
        elif known < self.said.seq and not same:
            self._ask(self.said.kind, item.id, FetchOrigin.ROLL, "overtaken by a sweep")

    def _repeat(self, entity: int) -> None:
        """Say again what a record of this very sequence said: the first time may have died before it was heard."""
        self.repeated += 1
        match self.said.kind:
            case EntityKind.PROPERTY:
                self._due(entity)
            case EntityKind.LEASE:
                row = self.rows.find(LeaseRow, lease_key(self.at, entity))
                for unit in (row.unit_id, row.came_from) if row else ():
                    if unit is not None:
                        self._due(self._unit_row(unit_key(self.at, unit)).property_id)
            case _:
                self._due(self._unit_row(unit_key(self.at, entity)).property_id)

    # ---- one entity ------------------------------------------------------------------------------------------------

    def _unit(self, item: PageItem) -> None:
        key, seq = unit_key(self.at, item.id), self.said.seq
        row = self._unit_row(key)
        if seq <= row.seq:
            if seq == row.seq:
                self._repeat(item.id)
            return
        if item.body is None:
            if row.gone:
                self.rows.put(key, row.model_copy(update={"seq": seq}))
                return
            self._put_unit(key, row, {"seq": seq, "gone": True})
            self._due(row.property_id)
            return
        if row.body == item.body and not row.gone:
            # Not when it was fetched: `mark_date_changes` has to see since when nothing was said.
            self.rows.put(key, row.model_copy(update={"seq": seq}))
            return
        property_id = item.parent if item.parent is not None else decode_as(UnitSnapshot, item.body).property_id
        if row.property_id not in (None, property_id):
            self._due(row.property_id)
            self._index(row.property_id, item.id, belongs=False)
        if row.body is None or row.property_id != property_id:  # else it stands in the index since it was seen first
            self._index(property_id, item.id, belongs=True)
        self._put_unit(key, row, {"seq": seq, "gone": False, "body": item.body, "property_id": property_id})
        self._due(property_id)

    def _listing(self, item: PageItem) -> None:
        key, seq = unit_key(self.at, item.id), self.said.seq
        row = self._unit_row(key)
        if seq <= row.listing_seq:
            if seq == row.listing_seq:
                self._repeat(item.id)
            return
        if row.listing == item.body:
            self.rows.put(key, row.model_copy(update={"listing_seq": seq}))
            return
        named = item.parent
        self._adopt(row, item.id, named)
        property_id = row.property_id or named
        self._put_unit(key, row, {"listing_seq": seq, "listing": item.body, "property_id": property_id})
        self._due(property_id)

    def _lease(self, item: PageItem) -> None:
        key, seq = lease_key(self.at, item.id), self.said.seq
        row = self.rows.find(LeaseRow, key) or LeaseRow(seq=0)
        if seq <= row.seq:
            if seq == row.seq:
                self._repeat(item.id)
            return
        same = {"seq": seq, "came_from": None}
        if (item.body is None and row.gone) or (item.body == row.body and not row.gone):
            self.rows.put(key, row.model_copy(update=same))
            return
        lease = None if item.body is None else decode_as(LeaseSnapshot, item.body)
        live = lease is not None and lease.status is not LeaseStatus.PAST
        unit_id = row.unit_id if lease is None else lease.unit_id
        moved = row.unit_id is not None and row.unit_id != unit_id
        if moved and row.unit_id is not None:
            self._stand(row.unit_id, item.id, None, None)
            self._look_at(row.unit_id)
        if unit_id is not None:
            self._stand(unit_id, item.id, item.body if live else None, lease.property_id if lease else None)
            self._look_at(unit_id)
        self.rows.put(
            key,
            LeaseRow(
                seq=seq,
                unit_id=unit_id,
                came_from=row.unit_id if moved else None,
                gone=lease is None,
                body=row.body if lease is None else item.body,
                live=live,
            ),
        )
        self.changed += 1

    def _look_at(self, unit: int) -> None:
        """Ask for a unit whose lease changed: the PMS works its occupancy out anew and tells nobody."""
        if self.said.sweep is None:
            self._ask(EntityKind.UNIT, unit, FetchOrigin.ROLL, "a lease of this unit changed")

    def _stand(self, unit: int, lease: int, body: bytes | None, property_id: int | None) -> None:
        """Let a lease stand in the row of a unit, or leave it."""
        key = unit_key(self.at, unit)
        row = self._unit_row(key)
        others = tuple(entry for entry in row.leases if entry.id != lease)
        leases = others if body is None else tuple(sorted((*others, LeaseEntry(id=lease, body=body)), key=_by_id))
        if leases == row.leases:
            return
        self._adopt(row, unit, property_id)
        self._put_unit(key, row, {"leases": leases, "property_id": row.property_id or property_id})
        self._due(row.property_id or property_id)

    def _property(self, item: PageItem) -> None:
        key, seq = property_key(self.at, item.id), self.said.seq
        row = self.rows.find(PropertyRow, key) or PropertyRow(fetched_at=self.said.fetched_at)
        if seq <= row.seq:
            if seq == row.seq:
                self._repeat(item.id)
            return
        news = {"seq": seq, "fetched_at": self.said.fetched_at}
        if (item.body is None and row.gone) or (item.body is not None and item.body == row.body and not row.gone):
            self.rows.put(key, row.model_copy(update=news))
            return
        if item.body is not None:
            decode_as(PropertySnapshot, item.body)
            news |= {"body": item.body}
        news |= {"gone": item.body is None, "version": row.version + 1}
        self.rows.put(key, row.model_copy(update=news))
        self.changed += 1
        self._due(item.id)

    # ---- what they share -------------------------------------------------------------------------------------------

    def _unit_row(self, key: bytes) -> UnitRow:
        found = self.rows.find(UnitRow, key)
        return found or UnitRow(fetched_at=self.said.fetched_at)

    def _put_unit(self, key: bytes, row: UnitRow, news: dict[str, object]) -> None:
        at = self.said.fetched_at
        self.rows.put(key, row.model_copy(update={"version": row.version + 1, "fetched_at": at} | news))
        self.changed += 1

    def _adopt(self, row: UnitRow, unit: int, property_id: int | None) -> None:
        """Put a unit that is known by its lease or listing only into its property's index, and ask for itself."""
        if row.seq == 0:
            self._ask(EntityKind.UNIT, unit, FetchOrigin.ROLL, "named before it was seen")
            if row.property_id is None and property_id is not None:
                self._index(property_id, unit, belongs=True)

    def _index(self, property_id: int | None, unit: int, *, belongs: bool) -> None:
        if property_id is None:
            return
        key = property_key(self.at, property_id)
        row = self.rows.find(PropertyRow, key)
        if row is None:
            row = PropertyRow(fetched_at=self.said.fetched_at)
            self._ask(EntityKind.PROPERTY, property_id, FetchOrigin.ROLL, "named before it was seen")
        if belongs != (unit in row.units):
            others = {*row.units} - {unit}
            self.rows.put(key, row.model_copy(update={"units": tuple(sorted(others | ({unit} if belongs else set())))}))

    def _due(self, property_id: int | None) -> None:
        if property_id is None or not self.offered or property_id in self.told:
            return
        self.told.add(property_id)
        page = self.said
        due = DeliveryDue(
            org=page.org,
            connection=page.connection,
            property_id=property_id,
            reason=DueReason.CHANGED,
            seen_at=page.seen_at or page.fetched_at,
        )
        self.emits.append(Emit(topics.LINGERING, page.org, due, once=("due", page.connection, property_id)))

    def _ask(self, kind: EntityKind, entity: int, origin: FetchOrigin, why: str) -> None:
        self.emits.append(_ask(self.said, kind, entity, origin, why, self.said.fetched_at))


def _by_id(entry: LeaseEntry) -> int:
    return entry.id


def _ask(said: Page | SweepEnd, kind: EntityKind, entity: int, origin: FetchOrigin, why: str, at: datetime) -> Emit:
    notice = FetchRequest(
        org=said.org,
        connection=said.connection,
        origin=origin,
        event=why,
        kind=kind,
        entity=entity,
        received_at=at,
    )
    return Emit(topics.WEBHOOKS, said.org, notice, once=("ask", said.connection, kind, entity))


# -------------------------------------------------------------------------------------------------- end of a sweep


def _sweep_end(rows: Rows, end: SweepEnd, now: datetime) -> FoldResult:
    """Ask for what a complete sweep did not bring; what it was the first of may now be offered.

    An entity is never removed here: it is asked for by its id, and goes only when the PMS answers 404.
    """
    at = scope(end.org, end.connection)
    account = rows.find(AccountRow, account_key(at))
    if account is not None and account.started_at > end.started_at:
        return FoldResult(Disposition.IGNORED)
    seen = _seen(rows, at, end)
    if seen is None:
        return FoldResult(Disposition.IGNORED, counts={"incomplete": 1})
    emits: list[Emit] = []
    missed, held_back = ({}, 0) if end.torn else _missed(rows, at, end, seen)
    for stage, entities in missed.items():
        emits += [_ask(end, stage, entity, FetchOrigin.SWEEP, "missed by a sweep", now) for entity in entities]
    if account is None or account.first_sweep == end.sweep:
        emits += [
            Emit(
                topics.DUE,
                end.org,
                DeliveryDue(
                    org=end.org,
                    connection=end.connection,
                    property_id=_id(key),
                    reason=DueReason.SWEPT,
                    seen_at=end.ended_at,
                ),
            )
            for key, _ in rows.scan(PropertyRow, at + b"p/")
        ]
    rows.put(
        account_key(at),
        AccountRow(
            sweep=end.sweep,
            first_sweep=account.first_sweep if account else end.sweep,
            started_at=end.started_at,
            completed_at=end.ended_at,
            entities=end.entities,
            held_back=held_back,
        ),
    )
    return FoldResult(Disposition.APPLIED, emits, {"held_back": held_back} if held_back else {})


def _missed(
    rows: Rows, at: bytes, end: SweepEnd, seen: dict[EntityKind, set[int]]
) -> tuple[dict[EntityKind, list[int]], int]:
    """Find what a complete sweep did not bring, and how much of it the guard holds back.

    Leases and listings end in great numbers on ordinary days, so for them alone the guard asks only that the list was
    not empty; but where properties or units seem to vanish, nothing of that sweep is believed.
    """
    missed: dict[EntityKind, list[int]] = {}
    suspicious = False
    for stage in STAGES:
        known, missed[stage] = _unseen(rows, at, end, stage, seen[stage])
        share = GUARD_SHARE if stage in (EntityKind.PROPERTY, EntityKind.UNIT) else 1.0
        suspicious |= len(missed[stage]) > GUARD_LEAST and len(missed[stage]) >= share * known
    return ({}, sum(map(len, missed.values()))) if suspicious else (missed, 0)


def _unseen(rows: Rows, at: bytes, end: SweepEnd, stage: EntityKind, seen: set[int]) -> tuple[int, list[int]]:
    """Count what a pull of this stage should bring, and list what it did not; only the latter is ever decoded.

    What was seen otherwise since the sweep began is not missed.
    """
    known, missed = 0, []
    for key, row in _shelf(rows, at, stage):
        entity = _id(key)
        if entity in seen:
            known += 1
            continue
        expected, seq = _expected(stage, row())
        if expected and (seq < end.seq or seq == 0):
            known += 1
            missed.append(entity)
    return known, missed


def _seen(rows: Rows, at: bytes, end: SweepEnd) -> dict[EntityKind, set[int]] | None:
    """Gather what the pages of a sweep brought; null when one of them is not there."""
    seen: dict[EntityKind, set[int]] = {}
    for stage, pages in zip(STAGES, end.pages, strict=True):
        seen[stage] = set()
        for number in range(pages):
            page = rows.find(SeenRow, seen_key(at, stage, number))
            if page is None or page.sweep != end.sweep:
                return None
            seen[stage].update(page.ids)
    return seen


def _shelf(
    rows: Rows, at: bytes, stage: EntityKind
) -> Iterator[tuple[bytes, Callable[[], PropertyRow | UnitRow | LeaseRow]]]:
    """Give the rows on which entities of a kind are kept."""
    match stage:
        case EntityKind.PROPERTY:
            yield from rows.scan(PropertyRow, at + b"p/")
        case EntityKind.LEASE:
            yield from rows.scan(LeaseRow, at + b"l/")
        case _:
            yield from rows.scan(UnitRow, at + b"u/")


def _expected(stage: EntityKind, row: PropertyRow | UnitRow | LeaseRow) -> tuple[bool, int]:
    """Say whether a complete pull of this kind should bring what a row holds, and as of which sequence it holds it."""
    if isinstance(row, LeaseRow):
        return row.live and not row.gone, row.seq
    if stage is EntityKind.LISTING and isinstance(row, UnitRow):
        return row.listing is not None, row.listing_seq
    return not row.gone, row.seq


def _id(key: bytes) -> int:
    return int(key.rsplit(b"/", 1)[1])


def item_of(snapshot: PropertySnapshot | UnitSnapshot | LeaseSnapshot | ListingSnapshot) -> PageItem:
    """Make what a page carries of a snapshot; a listing goes by its unit."""
    match snapshot:
        case UnitSnapshot():
            return PageItem(id=snapshot.id, body=encode(snapshot), parent=snapshot.property_id)
        case ListingSnapshot():
            return PageItem(id=snapshot.unit_id, body=encode(snapshot), parent=snapshot.property_id)
        case _:
            return PageItem(id=snapshot.id, body=encode(snapshot))
