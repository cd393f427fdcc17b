"""One Buildium account in memory, with methods that edit it.

As in Buildium, the status of leases and tenants and the flags of units are derived from dates at the time of a query.
Every edit returns the webhook events that Buildium would send for it, which may be none.
"""

import json
from collections.abc import MutableMapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from connectors.buildium.standin.entities import (
    Address,
    Event,
    Events,
    Json,
    Lease,
    Listing,
    Occupant,
    Owner,
    Property,
    T,
    Tenant,
    Unit,
    person,
)
from connectors.buildium.standin.rendering import RENDER
from connectors.ports import Clock
from schemas.base import EntityKind

PROPERTY, UNIT, LEASE = EntityKind.PROPERTY, EntityKind.UNIT, EntityKind.LEASE
TENANT, LISTING = EntityKind.TENANT, EntityKind.LISTING

_COMPACT: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False)


class Portfolio:
    """One Buildium account at the time of its clock."""

    def __init__(self, clock: Clock, *, account: int = 123_456, timezone: str = "America/Edmonton") -> None:
        self.clock = clock
        self.account = account
        self.zone = ZoneInfo(timezone)
        self.properties: MutableMapping[int, Property] = {}
        self.units: MutableMapping[int, Unit] = {}
        self.leases: MutableMapping[int, Lease] = {}
        self.tenants: MutableMapping[int, Tenant] = {}
        self.listings: MutableMapping[int, Listing] = {}
        self.owners: dict[int, Owner] = {}
        self.units_of: MutableMapping[int, list[int]] = {}
        self.leases_of: MutableMapping[int, list[int]] = {}
        self.leases_of_tenant: MutableMapping[int, list[int]] = {}
        self.bank_accounts = [10_407]
        """Ids of the bank accounts of the company."""
        self.details: dict[int, dict[str, Any]] = {}
        """What was written of a property besides its own fields, by Buildium's names."""
        self.announced: Events = ()
        """Events of what was written over the API, for a webhook."""
        self._next_id = 9_000_000
        self._day: date | None = None
        self._rows: dict[EntityKind, dict[int, bytes]] = {kind: {} for kind in EntityKind}
        self._lease_statuses: dict[int, str] = {}
        self._orders: dict[EntityKind, Sequence[int]] = {}
        self._live: Sequence[int] | None = None

    # ----------------------------------------------------------------------------------------------- derived from dates

    def today(self) -> date:
        """Return the date in the account's time zone; when it changes, clear every cache of derived values."""
        today = self.clock.now().astimezone(self.zone).date()
        if today != self._day:
            self._day = today
            self._lease_statuses.clear()
            self._live = None
            for rows in self._rows.values():
                rows.clear()
        return today

    def lease_status(self, lease: Lease) -> str:
        known = self._lease_statuses.get(lease.id)
        if known is None:
            known = self._lease_statuses[lease.id] = self._lease_status(lease, self.today())
        return known

    def _lease_status(self, lease: Lease, today: date) -> str:
        """A lease is past when its end and the moves of all tenants have passed; one without an end has only these."""
        over = lease.ends_on is None or lease.ends_on < today
        left = all(self.tenant_status(lease, occupant, today) == "MovedOut" for occupant in lease.occupants)
        if lease.ended or (over and left and (lease.occupants or lease.ends_on is not None)):
            return "Past"
        return "Future" if lease.starts_on > today else "Active"

    def tenant_status(self, lease: Lease, occupant: Occupant, today: date) -> str:
        moves_out_on = self.move_out(lease, occupant, today)
        if moves_out_on is not None and moves_out_on < today:
            return "MovedOut"
        return "Future" if occupant.moves_in_on > today else "Current"

    @staticmethod
    def move_out(lease: Lease, occupant: Occupant, today: date) -> date | None:
        """Return when a tenant moves out: by notice, or moved out by Buildium at the end of an automatic lease."""
        if occupant.moves_out_on is None and lease.automatic_move_out and lease.ends_on and lease.ends_on < today:
            return lease.ends_on
        return occupant.moves_out_on

    def is_occupied(self, unit: int) -> bool:
        """Return whether a lease of a unit is active. It still is after an early move-out, so the flag lags."""
        return any(self.lease_status(self.leases[lease]) == "Active" for lease in self.leases_of.get(unit, ()))

    # ---------------------------------------------------------------------------------------------------------- as JSON

    def entities(self, kind: EntityKind) -> MutableMapping[int, Any]:
        table: dict[EntityKind, MutableMapping[int, Any]] = {
            PROPERTY: self.properties,
            UNIT: self.units,
            LEASE: self.leases,
            TENANT: self.tenants,
            LISTING: self.listings,
        }
        return table[kind]

    def ids(self, kind: EntityKind) -> Sequence[int]:
        """Return the ids of all entities of a kind, ascending."""
        found = self._orders.get(kind)
        if found is None:
            found = self._orders[kind] = sorted(self.entities(kind))
        return found

    def live_leases(self) -> Sequence[int]:
        """Return the ids of active and future leases, cached because a sweep requests many pages of them."""
        self.today()
        if self._live is None:
            status = self._lease_statuses
            self._live = [
                number
                for number in self.ids(LEASE)
                if (status.get(number) or self.lease_status(self.leases[number])) != "Past"
            ]
        return self._live

    def row(self, kind: EntityKind, number: int) -> bytes:
        """Return an entity as JSON bytes, cached until it changes."""
        self.today()
        if kind is TENANT:
            return _COMPACT.encode(self.json(kind, number)).encode()
        rows = self._rows[kind]
        found = rows.get(number)
        if found is None:
            found = rows[number] = _COMPACT.encode(self.json(kind, number)).encode()
        return found

    def json(self, kind: EntityKind, number: int) -> Json:
        return RENDER[kind](self, number)

    # ------------------------------------------------------------------------------------------------------- properties

    def add_property(self, name: str, address: Address, **more: Any) -> Events:
        number = self._number()
        self.properties[number] = Property(number, name, address, updated_at=self.clock.now(), **more)
        self.units_of[number] = []
        self._changed(PROPERTY, number, order=True)
        return self._event("Rental.Created", PropertyId=number)

    def rename_property(self, number: int, name: str) -> Events:
        self._edit(self.properties, number).name = name
        self._changed(PROPERTY, number)
        return self._event("Rental.Updated", PropertyId=number)

    def move_property(self, number: int, address: Address) -> Events:
        self._edit(self.properties, number).address = address
        self._changed(PROPERTY, number)
        return self._event("Rental.Updated", PropertyId=number)

    def inactivate_property(self, number: int) -> Events:
        self._edit(self.properties, number).is_active = False
        self._changed(PROPERTY, number)
        return self._event("Rental.Updated", PropertyId=number)

    def reactivate_property(self, number: int) -> Events:
        self._edit(self.properties, number).is_active = True
        self._changed(PROPERTY, number)
        return self._event("Rental.Updated", PropertyId=number)

    def remove_property(self, number: int) -> Events:
        """Remove a property with its units."""
        events = [event for unit in tuple(self.units_of.get(number, ())) for event in self.remove_unit(unit)]
        del self.properties[number]
        self._changed(PROPERTY, number, order=True)
        return (*events, *self._event("Rental.Deleted", PropertyId=number))

    # ------------------------------------------------------------------------------------------------------------ units

    def add_unit(self, property_id: int, number: str, **more: Any) -> Events:
        unit = self._number()
        self.units[unit] = Unit(unit, property_id, number, updated_at=self.clock.now(), **more)
        self.units_of[property_id] = [*self.units_of.get(property_id, ()), unit]
        self._changed(UNIT, unit, order=True)
        self._forget_property_of_units(property_id)
        return self._event("RentalUnit.Created", UnitId=unit)

    def set_rent(self, unit: int, amount: Decimal | int | str) -> Events:
        """Change the market rent of a unit, and the rent of its listing if it has one."""
        self._edit(self.units, unit).market_rent = Decimal(amount)
        events = self._event("RentalUnit.Updated", UnitId=unit)
        if unit in self.listings:
            self._edit(self.listings, unit).rent = Decimal(amount)
            events = (*events, *self._event("Listing.Updated", UnitId=unit))
        self._changed(UNIT, unit)
        return events

    def edit_unit(self, unit: int, **fields: Any) -> Events:
        edited = self._edit(self.units, unit)
        for name, value in fields.items():
            setattr(edited, name, value)
        self._changed(UNIT, unit)
        return self._event("RentalUnit.Updated", UnitId=unit)

    def remove_unit(self, unit: int) -> Events:
        """Remove a unit with its leases and its listing. Buildium offers that in its web application only."""
        events = [event for lease in tuple(self.leases_of.get(unit, ())) for event in self.remove_lease(lease)]
        events += self.unlist_unit(unit)
        owner = self.units[unit].property_id
        del self.units[unit]
        self.units_of[owner] = [other for other in self.units_of[owner] if other != unit]
        self._changed(UNIT, unit, order=True)
        self._forget_property_of_units(owner)
        return (*events, *self._event("RentalUnit.Deleted", UnitId=unit))

    # --------------------------------------------------------------------------------------------------------- listings

    def list_unit(
        self,
        unit: int,
        rent: Decimal | int | str | None = None,
        available_on: date | None = None,
        features: Sequence[str] = (),
    ) -> Events:
        """Create or change the listing of a unit; the default of ``rent`` is its market rent."""
        verb = "Updated" if unit in self.listings else "Created"
        amount = Decimal(rent) if rent is not None else self.units[unit].market_rent or Decimal(1000)
        self.listings[unit] = Listing(unit, amount, available_on or self.today(), self.today(), tuple(features))
        self._changed(LISTING, unit, order=True)
        return self._event(f"Listing.{verb}", UnitId=unit)

    def unlist_unit(self, unit: int) -> Events:
        if unit not in self.listings:
            return ()
        del self.listings[unit]
        self._changed(LISTING, unit, order=True)
        return self._event("Listing.Deleted", UnitId=unit)

    # ----------------------------------------------------------------------------------------------------------- leases

    def sign_lease(
        self,
        unit: int,
        starts_on: date,
        ends_on: date | None = None,
        *,
        tenants: int | Sequence[int] = 1,
        rent: Decimal | int | str | None = None,
        **more: Any,
    ) -> Events:
        """Create a lease with a number of new tenants or with existing ones; the first event holds the lease's id."""
        lease = self._number()
        people = [self._person() for _ in range(tenants)] if isinstance(tenants, int) else list(tenants)
        now = self.clock.now()
        self.leases[lease] = Lease(
            lease,
            unit,
            starts_on,
            ends_on,
            rent=Decimal(rent) if rent is not None else self.units[unit].market_rent,
            occupants=[Occupant(person, starts_on) for person in people],
            created_at=now,
            updated_at=now,
            **more,
        )
        self.leases_of[unit] = [*self.leases_of.get(unit, ()), lease]
        for one in people:
            self.leases_of_tenant[one] = [*self.leases_of_tenant.get(one, ()), lease]
        self._changed(LEASE, lease, order=True)
        created = self._event("Lease.Created", LeaseId=lease)
        return created + tuple(event for one in people for event in self._event("LeaseTenant.Created", TenantId=one))

    def start_lease(self, lease: int, on: date | None = None) -> Events:
        """Start a lease: its tenants move in ``on`` a date, by default today."""
        edited, day = self._edit(self.leases, lease), on or self.today()
        edited.starts_on = min(edited.starts_on, day)
        for occupant in edited.occupants:
            occupant.moves_in_on = min(occupant.moves_in_on, day)
        self._changed(LEASE, lease)
        return self._event("Lease.Updated", LeaseId=lease)

    def end_lease(self, lease: int) -> Events:
        """End a lease: all its tenants have moved out."""
        edited = self._edit(self.leases, lease)
        edited.ended = True
        for occupant in edited.occupants:
            occupant.moves_out_on = min(occupant.moves_out_on or date.max, self.today() - timedelta(days=1))
        self._changed(LEASE, lease)
        return self._event("Lease.Updated", LeaseId=lease)

    def give_notice(
        self, lease: int, tenant: int | None, move_out_on: date, notice_given: date | None = None
    ) -> Events:
        """Record a notice to vacate of one tenant, or of all tenants if ``tenant`` is null."""
        edited, events = self._edit(self.leases, lease), list[Event]()
        for occupant in edited.occupants:
            if tenant in {None, occupant.tenant_id}:
                occupant.moves_out_on, occupant.notice_given = move_out_on, notice_given or self.today()
                events += self._event("Lease.MoveOut.Created", LeaseId=lease, TenantId=occupant.tenant_id)
        self._changed(LEASE, lease)
        return tuple(events)

    def withdraw_notice(self, lease: int) -> Events:
        """Withdraw the notices to vacate of a lease. Buildium has no event for that: only a sweep finds it."""
        for occupant in self._edit(self.leases, lease).occupants:
            occupant.moves_out_on = occupant.notice_given = None
        self._changed(LEASE, lease)
        return ()

    def renew_lease(self, lease: int, until: date, *, status: str | None = "Renewed") -> Events:
        """Renew a lease in place: it gets a later end and the status of its renewal offer, and no new lease begins."""
        return self.edit_lease(lease, ends_on=until, renewal=status)

    def edit_lease(self, lease: int, **fields: Any) -> Events:
        edited = self._edit(self.leases, lease)
        for name, value in fields.items():
            setattr(edited, name, value)
        self._changed(LEASE, lease)
        return self._event("Lease.Updated", LeaseId=lease)

    def move_lease(self, lease: int, unit: int) -> Events:
        """Move a lease with its tenants to another unit."""
        edited = self._edit(self.leases, lease)
        old, edited.unit_id = edited.unit_id, unit
        self.leases_of[old] = [other for other in self.leases_of[old] if other != lease]
        self.leases_of[unit] = [*self.leases_of.get(unit, ()), lease]
        self._changed(LEASE, lease)
        self._forget(UNIT, old)
        return self._event("Lease.Updated", LeaseId=lease)

    def remove_lease(self, lease: int) -> Events:
        removed = self.leases[lease]
        del self.leases[lease]
        self.leases_of[removed.unit_id] = [other for other in self.leases_of[removed.unit_id] if other != lease]
        for occupant in removed.occupants:
            known = self.leases_of_tenant.get(occupant.tenant_id, ())
            self.leases_of_tenant[occupant.tenant_id] = [other for other in known if other != lease]
        self._changed(LEASE, lease, order=True)
        self._forget(UNIT, removed.unit_id)
        return self._event("Lease.Deleted", LeaseId=lease)

    # ---------------------------------------------------------------------------------------------------------- caches

    def _number(self) -> int:
        self._next_id += 1
        return self._next_id

    def _person(self) -> int:
        number = self._number()
        self.tenants[number] = person(number)
        self._changed(TENANT, number, order=True)
        return number

    def _event(self, name: str, **ids: int) -> Events:
        return (Event(name, ids, self.clock.now()),)

    @staticmethod
    def _edit(entities: MutableMapping[int, T], number: int) -> T:
        entity = entities[number]
        entities[number] = entity  # a generated entity has to be stored once it is edited
        return entity

    def _forget(self, kind: EntityKind, number: int) -> None:
        self._rows[kind].pop(number, None)

    def _forget_property_of_units(self, number: int) -> None:
        """Forget the rows that contain a property's number of units: its own, and those of its listings."""
        self._forget(PROPERTY, number)
        for unit in self.units_of.get(number, ()):
            self._forget(LISTING, unit)

    def _changed(self, kind: EntityKind, number: int, *, order: bool = False) -> None:
        """Forget the rows that contain the entity, and set the time of its last update (a listing has none)."""
        if order:
            self._orders.pop(kind, None)
        if kind is LEASE:
            self._lease_statuses.pop(number, None)
            self._live = None
        self._forget(kind, number)
        entity = self.entities(kind).get(number)
        if entity is not None and hasattr(entity, "updated_at"):
            entity.updated_at = self.clock.now()
        for other, ids in self._shown_in(kind, number, entity):
            for one in ids:
                self._forget(other, one)

    def _shown_in(self, kind: EntityKind, number: int, entity: Any) -> Sequence[tuple[EntityKind, Sequence[int]]]:
        if kind is PROPERTY:
            units = self.units_of.get(number, [])
            return ((UNIT, units), (LISTING, units))
        if kind is UNIT:
            owner = [entity.property_id] if entity else []
            return ((LISTING, [number]), (PROPERTY, owner), (LEASE, self.leases_of.get(number, [])))
        if kind is LEASE:
            return ((UNIT, [entity.unit_id] if entity else []),)
        return ((UNIT, [number]),) if kind is LISTING else ()
