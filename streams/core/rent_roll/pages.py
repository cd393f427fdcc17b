"""Folding a page: each of its entities is compared with its row, and what differs is written and marked as due."""

from collections.abc import Callable

from schemas import topics
from schemas.avro import schema_of
from schemas.base import EntityKind
from schemas.codec import UnknownWriter, decode_as, encode, head_of, row_holds
from schemas.delivery import DeliveryDue, DueReason
from schemas.rent_roll import (
    AbsentRow,
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
    PropertyType,
    SeenRow,
    SweptRow,
    UnitRow,
    UnitSnapshot,
)
from streams.core.due import Units, merge, named, united
from streams.core.flows import Disposition, Emit, FoldResult, RowsDamaged
from streams.core.rent_roll.firsts import LEASES, LISTING, proving_sweep
from streams.core.rent_roll.keys import (
    absent_key,
    account_key,
    lease_key,
    property_key,
    scope,
    seen_key,
    swept_key,
    unit_key,
)
from streams.core.rent_roll.marks import note_mark
from streams.core.rent_roll.members import note_member, units_of_property
from streams.core.rent_roll.refetch import RefetchReason, refetch
from streams.core.rows import Rows, UnreadableRow

_UNIT_HEAD, _LEASE_HEAD, _PROPERTY_HEAD = (head_of(schema_of(row)) for row in (UnitRow, LeaseRow, PropertyRow))


def fold_page(rows: Rows, page: Page) -> FoldResult:
    """Fold a page into the rows. An entity that cannot be folded is left out, as long as any other can."""
    try:
        return _PageFold(rows, page).fold()
    except (RowsDamaged, UnknownWriter, UnreadableRow):
        raise
    except Exception:
        if len(page.items) == 1:
            raise
    rows.drop()
    return _PageFold(rows, page, one_by_one=True).fold()


def fold_removal(rows: Rows, page: Page) -> list[Emit]:
    """Fold a page of entities that do not exist, though sweeps went on since it was read; return what follows.

    That is right where none of these sweeps has brought the entities.
    """
    return _PageFold(rows, page).removed()


def item_of(snapshot: PropertySnapshot | UnitSnapshot | LeaseSnapshot | ListingSnapshot) -> PageItem:
    """Return the item that carries a snapshot on a page; the id of a listing is that of its unit."""
    match snapshot:
        case UnitSnapshot():
            return PageItem(id=snapshot.id, body=encode(snapshot), parent=snapshot.property_id)
        case ListingSnapshot():
            return PageItem(id=snapshot.unit_id, body=encode(snapshot), parent=snapshot.property_id)
        case _:
            return PageItem(id=snapshot.id, body=encode(snapshot))


class _PageFold:
    """One page on its way into the rows."""

    def __init__(self, rows: Rows, page: Page, *, one_by_one: bool = False) -> None:
        self.rows = rows
        self.page = page
        self.one_by_one = one_by_one
        """Whether an entity that cannot be folded is left out."""
        self.failed: list[tuple[PageItem, Exception]] = []
        self.prefix = scope(page.org, page.connection)
        self.emits: list[Emit] = []
        self.due: dict[int, Units] = {}
        """What this page has marked as due, by property."""
        self.withdrawn: dict[int, Units] = {}
        """Of that, what may have become unavailable."""
        self.changed = 0
        self.repeated = 0
        self.account = rows.find(AccountRow, account_key(self.prefix))
        self.offered = self.account is not None
        """Whether the first sweep is complete: before it nothing is marked as due."""

    def fold(self) -> FoldResult:
        page = self._guarded()
        swept = self.rows.find(SweptRow, swept_key(self.prefix, page.kind))
        sweeping = page.sweep is not None
        if page.seq <= (swept.seq if swept else 0):
            for item in page.items:
                self._fold_item(self._late, item)
        else:
            self._items(page, sweeping=sweeping)
            if sweeping:
                self._mark_swept(page)
            if page.whole_of is not None:
                self._read_whole(page.whole_of)
        self._emit_due()
        counts = {"missed": self.changed} if sweeping and self.offered and self.changed else {}
        alone = {"sweep": None, "whole_of": None}  # of the page, not of the item
        failed = tuple((page.model_copy(update={"items": (item,), **alone}), error) for item, error in self.failed)
        return FoldResult(self._disposition(), self.emits, counts, failed=failed)

    def _guarded(self) -> Page:
        """Note what does not exist and is not removed yet; return the page without it."""
        page = self.page
        if page.guarded:
            absent = AbsentRow(seq=page.seq, at=page.fetched_at)
            for item in page.items:
                if item.body is None:
                    self.rows.put(absent_key(self.prefix, page.kind, item.id), absent)
            self.page = page.model_copy(update={"items": tuple(item for item in page.items if item.body is not None)})
        return self.page

    def removed(self) -> list[Emit]:
        """Fold the items whatever the sequence of the newest sweep is."""
        self._items(self.page, sweeping=False)
        self._emit_due()
        return self.emits

    def _items(self, page: Page, *, sweeping: bool) -> None:
        fold, key_of, head = self._by_kind()
        raw, prefix = self.rows.raw, self.prefix
        for item in page.items:
            if sweeping and item.body is not None:
                stored = raw(key_of(prefix, item.id))
                if stored is not None and row_holds(stored, head, item.body):
                    continue
            self._fold_item(fold, item)

    def _fold_item(self, fold: Callable[[PageItem], None], item: PageItem) -> None:
        """Fold an item; if that fails, undo its writes and note the item. Raise if none of the page can be folded."""
        if not self.one_by_one:
            fold(item)
            return
        rows, emits, counts = self.rows.savepoint(), len(self.emits), (self.changed, self.repeated)
        due, withdrawn = dict(self.due), dict(self.withdrawn)
        try:
            fold(item)
        except (RowsDamaged, UnknownWriter, UnreadableRow):
            raise
        except Exception as error:
            self.rows.roll_back(rows)
            del self.emits[emits:]
            self.due, self.withdrawn = due, withdrawn
            self.changed, self.repeated = counts
            self.failed.append((item, error))
            if len(self.failed) == len(self.page.items):
                raise

    def _by_kind(self) -> tuple[Callable[[PageItem], None], Callable[[bytes, int], bytes], bytes]:
        match self.page.kind:
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

    def _disposition(self) -> Disposition:
        if self.changed or self.emits or self.due:
            return Disposition.DUPLICATE if self.repeated and not self.changed else Disposition.APPLIED
        return Disposition.IGNORED if self.page.items else Disposition.APPLIED

    def _mark_swept(self, page: Page) -> None:
        assert page.sweep is not None
        self.rows.put(swept_key(self.prefix, page.kind), SweptRow(seq=page.seq))
        ids = tuple(item.id for item in page.items)
        self.rows.put(seen_key(self.prefix, page.kind, page.number), SeenRow(sweep=page.sweep, ids=ids))

    # ---- a reply that is older than the newest page of a sweep -----------------------------------------------------

    def _late(self, item: PageItem) -> None:
        """Fold an entity of a reply that is older than the newest page of a sweep.

        The same reply may have been folded before (then repeat what it emitted), the row may hold something newer, or
        nothing may differ. Otherwise only another fetch decides which state is the later one.
        """
        known, same = self._compare(item)
        if known == self.page.seq:
            self._repeat(item.id)
        elif known < self.page.seq and not same:
            self._refetch(self.page.kind, item.id, RefetchReason.OVERTAKEN)

    def _compare(self, item: PageItem) -> tuple[int, bool]:
        """Return the sequence of what the rows hold of an entity, and whether the item is the same."""
        row: UnitRow | LeaseRow | PropertyRow | None
        match self.page.kind:
            case EntityKind.LEASE:
                row = self.rows.find(LeaseRow, lease_key(self.prefix, item.id))
            case EntityKind.PROPERTY:
                row = self.rows.find(PropertyRow, property_key(self.prefix, item.id))
            case EntityKind.UNIT:
                row = self.rows.find(UnitRow, unit_key(self.prefix, item.id))
            case _:
                unit = self.rows.find(UnitRow, unit_key(self.prefix, item.id))
                return (unit.listing_seq, unit.listing == item.body) if unit else (0, False)
        if row is None:
            return 0, False
        return row.seq, row.gone if item.body is None else not row.gone and row.body == item.body

    def _repeat(self, entity: int) -> None:
        """Repeat what a record of this very sequence emitted: a crash may have come before it was durable."""
        self.repeated += 1
        match self.page.kind:
            case EntityKind.PROPERTY:
                self._mark_due(entity)
            case EntityKind.LEASE:
                row = self.rows.find(LeaseRow, lease_key(self.prefix, entity))
                for unit in (row.unit_id, row.came_from) if row else ():
                    if unit is not None:
                        self._mark_due(self._unit_row(unit_key(self.prefix, unit)).property_id, unit, withdrawn=True)
            case _:
                unit_row = self._unit_row(unit_key(self.prefix, entity))
                self._mark_due(unit_row.property_id, entity, withdrawn=True)
                if self.page.kind is EntityKind.UNIT and unit_row.awaits:
                    self._ask(entity, unit_row.property_id)

    # ---- one entity ------------------------------------------------------------------------------------------------

    def _unit(self, item: PageItem) -> None:
        key, seq = unit_key(self.prefix, item.id), self.page.seq
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
            self._mark_due(row.property_id, item.id, withdrawn=True)
            return
        if row.body == item.body and not row.gone:
            # `fetched_at` stays: `mark_date_changes` looks at the dates that passed since the row last changed.
            self.rows.put(key, row.model_copy(update={"seq": seq}))
            return
        property_id = item.parent if item.parent is not None else decode_as(UnitSnapshot, item.body).property_id
        if row.property_id is not None and row.property_id != property_id:
            self._mark_due(row.property_id, item.id)
            self._index(row.property_id, item.id, belongs=False)
        if row.body is None or row.property_id != property_id:  # otherwise the property's index has it already
            self._index(property_id, item.id, belongs=True)
        update: dict[str, object] = {"seq": seq, "gone": False, "body": item.body, "property_id": property_id}
        first = row.body is None and self.offered
        if first:
            proof = proving_sweep(self.page.sweep, self.page.fetched_at)
            update |= {"awaits": LEASES | LISTING, "awaited_sweep": proof}
        self._put_unit(key, row, update)
        self._mark_due(property_id, item.id)
        if first:
            self._ask(item.id, property_id)

    def _ask(self, unit: int, property_id: int | None) -> None:
        """Ask for what a unit awaits that was seen for the first time; a sweep reads it anyway."""
        if property_id is None:
            return
        key = account_key(self.prefix)
        account = self.rows.find(AccountRow, key)
        if account is not None and property_id not in account.awaiting:
            self.rows.put(key, account.model_copy(update={"awaiting": (*account.awaiting, property_id)}))
        if self.page.sweep is None:
            self._refetch(EntityKind.LISTING, unit, RefetchReason.FIRST_SEEN)
            self._refetch(EntityKind.PROPERTY, property_id, RefetchReason.FIRST_SEEN, also=(EntityKind.LEASE,))

    def _read_whole(self, property_id: int) -> None:
        """Fetch what a page with all entities of a kind of a property did not bring; note that leases were read."""
        kind, brought = self.page.kind, {item.id for item in self.page.items}
        for unit in units_of_property(self.rows, self.prefix, property_id):
            key = unit_key(self.prefix, unit)
            known = self._unit_row(key)
            for entity in _known_of(kind, unit, known):
                if entity not in brought:
                    self._refetch(kind, entity, RefetchReason.NOT_ON_PAGE)
            if kind is EntityKind.LEASE and known.awaits & LEASES and known.seq <= self.page.seq:
                self.rows.put(key, known.model_copy(update={"awaits": known.awaits & ~LEASES}))
                self._mark_due(property_id, unit)

    def _listing(self, item: PageItem) -> None:
        key, seq = unit_key(self.prefix, item.id), self.page.seq
        row = self._unit_row(key)
        if seq <= row.listing_seq:
            if seq == row.listing_seq:
                self._repeat(item.id)
            return
        awaits = row.awaits & ~LISTING
        if row.listing == item.body:
            self.rows.put(key, row.model_copy(update={"listing_seq": seq, "awaits": awaits}))
            if awaits != row.awaits:
                self._mark_due(row.property_id, item.id)
            return
        self._reference(row, item.id, item.parent)
        property_id = row.property_id or item.parent
        update = {"listing_seq": seq, "listing": item.body, "property_id": property_id}
        self._put_unit(key, row, {**update, "awaits": awaits})
        self._mark_due(property_id, item.id, withdrawn=item.body is None)

    def _lease(self, item: PageItem) -> None:
        key, seq = lease_key(self.prefix, item.id), self.page.seq
        row = self.rows.find(LeaseRow, key) or LeaseRow(seq=0)
        if seq <= row.seq:
            if seq == row.seq:
                self._repeat(item.id)
            return
        if (item.body is None and row.gone) or (item.body == row.body and not row.gone):
            self.rows.put(key, row.model_copy(update={"seq": seq, "came_from": None}))
            return
        lease = None if item.body is None else decode_as(LeaseSnapshot, item.body)
        live = lease is not None and lease.status is not LeaseStatus.PAST
        unit_id = row.unit_id if lease is None else lease.unit_id
        moved = row.unit_id is not None and row.unit_id != unit_id
        if moved and row.unit_id is not None:
            self._put_lease(row.unit_id, item.id, None, None)
            self._refetch_unit(row.unit_id)
        if unit_id is not None:
            self._put_lease(unit_id, item.id, item.body if live else None, lease.property_id if lease else None)
            self._refetch_unit(unit_id)
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

    def _put_lease(self, unit: int, lease: int, body: bytes | None, property_id: int | None) -> None:
        """Write a lease into the row of its unit; a null body removes it."""
        key = unit_key(self.prefix, unit)
        row = self._unit_row(key)
        others = tuple(entry for entry in row.leases if entry.id != lease)
        leases = others if body is None else tuple(sorted((*others, LeaseEntry(id=lease, body=body)), key=_by_id))
        if leases == row.leases:
            return
        self._reference(row, unit, property_id)
        self._put_unit(key, row, {"leases": leases, "property_id": row.property_id or property_id})
        self._mark_due(row.property_id or property_id, unit, withdrawn=body is not None)

    def _property(self, item: PageItem) -> None:
        key, seq = property_key(self.prefix, item.id), self.page.seq
        row = self.rows.find(PropertyRow, key) or PropertyRow(fetched_at=self.page.fetched_at)
        if seq <= row.seq:
            if seq == row.seq:
                self._repeat(item.id)
            return
        update: dict[str, object] = {"seq": seq, "fetched_at": self.page.fetched_at}
        if (item.body is None and row.gone) or (item.body is not None and item.body == row.body and not row.gone):
            self.rows.put(key, row.model_copy(update=update))
            return
        left = True
        if item.body is not None:
            building = decode_as(PropertySnapshot, item.body)  # a damaged body must fail here, not at every later read
            left = not building.is_active or building.type is PropertyType.COMMERCIAL
            update |= {"body": item.body}
        update |= {"gone": item.body is None, "version": row.version + 1}
        self.rows.put(key, row.model_copy(update=update))
        self.changed += 1
        self._mark_due(item.id, withdrawn=left)

    # ---- what they share -------------------------------------------------------------------------------------------

    def _unit_row(self, key: bytes) -> UnitRow:
        return self.rows.find(UnitRow, key) or UnitRow(fetched_at=self.page.fetched_at)

    def _put_unit(self, key: bytes, row: UnitRow, update: dict[str, object]) -> None:
        changed = {"version": row.version + 1, "fetched_at": self.page.fetched_at}
        self.rows.put(key, row.model_copy(update=changed | update))
        self.changed += 1

    def _reference(self, row: UnitRow, unit: int, property_id: int | None) -> None:
        """Fetch a unit that only a lease or listing refers to so far, and add it to its property's index."""
        if row.seq == 0:
            self._refetch(EntityKind.UNIT, unit, RefetchReason.REFERENCED)
            if row.property_id is None and property_id is not None:
                self._index(property_id, unit, belongs=True)

    def _index(self, property_id: int, unit: int, *, belongs: bool) -> None:
        """Add a unit to the index of a property, or remove it."""
        key = property_key(self.prefix, property_id)
        row = self.rows.find(PropertyRow, key)
        if row is None:
            row = PropertyRow(fetched_at=self.page.fetched_at)
            self.rows.put(key, row)
            self._refetch(EntityKind.PROPERTY, property_id, RefetchReason.REFERENCED)
        note_member(self.rows, self.prefix, property_id, row, unit, belongs=belongs)

    def _mark_due(self, property_id: int | None, unit: int | None = None, *, withdrawn: bool = False) -> None:
        """Mark a unit, or all of a property, as due; ``withdrawn``: the change may have made it unavailable."""
        if property_id is None or not self.offered:
            return
        units = None if unit is None else frozenset({unit})
        for found in (self.due, self.withdrawn) if withdrawn else (self.due,):
            found[property_id] = united(found.get(property_id, frozenset()), units)

    def _emit_due(self) -> None:
        """Emit what this page has marked: what may have become unavailable for now, and everything after the linger."""
        page = self.page
        for property_id, units in self.due.items():
            mark, after = note_mark(self.rows, self.prefix, property_id, page.seq, page.fetched_at)
            due = DeliveryDue(
                org=page.org,
                connection=page.connection,
                property_id=property_id,
                reason=DueReason.CHANGED,
                seen_at=page.seen_at or page.fetched_at,
                units=named(units),
                mark=mark,
                after=after,
            )
            at = (page.connection, property_id)
            if property_id in self.withdrawn:
                now = {
                    "reason": DueReason.WITHDRAWN,
                    "units": named(self.withdrawn[property_id]),
                    "mark": 0,
                    "after": 0,
                }
                self.emits.append(
                    Emit(topics.DUE, page.org, due.model_copy(update=now), once=("withdrawn", *at), merge=merge)
                )
            self.emits.append(Emit(topics.LINGERING, page.org, due, once=("due", *at), merge=merge))

    def _refetch_unit(self, unit: int) -> None:
        """Fetch a unit whose lease changed; a sweep reads all units anyway."""
        if self.page.sweep is None:
            self._refetch(EntityKind.UNIT, unit, RefetchReason.LEASE_CHANGED)

    def _refetch(
        self, kind: EntityKind, entity: int, reason: RefetchReason, *, also: tuple[EntityKind, ...] = ()
    ) -> None:
        self.emits.append(refetch(self.page, kind, entity, reason, self.page.fetched_at, also=also))


def _known_of(kind: EntityKind, unit: int, row: UnitRow) -> tuple[int, ...]:
    """Return the ids of the entities of a kind that a unit's row holds as existing."""
    match kind:
        case EntityKind.UNIT:
            return () if row.gone or row.body is None else (unit,)
        case EntityKind.LISTING:
            return () if row.listing is None else (unit,)
        case _:
            return tuple(entry.id for entry in row.leases)


def _by_id(entry: LeaseEntry) -> int:
    return entry.id
