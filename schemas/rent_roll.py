"""The rent roll: entities as fetched, the pages that carry them, and the rows of the table."""

from datetime import date
from enum import StrEnum

from schemas.base import EntityKind, Half, Instant, Model, Money, Row


class PropertyType(StrEnum):
    """The type of a property, as far as a listing needs it."""

    UNKNOWN = "unknown"
    APARTMENT = "apartment"
    CONDO_OR_TOWNHOME = "condo_or_townhome"
    HOUSE = "house"
    COMMERCIAL = "commercial"


class LeaseStatus(StrEnum):
    """The status of a lease according to the PMS."""

    UNKNOWN = "unknown"
    FUTURE = "future"
    ACTIVE = "active"
    PAST = "past"


class TenantStatus(StrEnum):
    """The status of a tenant of a lease according to the PMS."""

    UNKNOWN = "unknown"
    FUTURE = "future"
    CURRENT = "current"
    MOVED_OUT = "moved_out"


class PropertySnapshot(Model, frozen=True, kw_only=True):
    """A property as fetched."""

    id: int
    name: str
    address_line1: str | None = None
    city: str | None = None
    state: str | None = None
    postal_code: str | None = None
    country: str | None = None
    is_active: bool = True
    type: PropertyType = PropertyType.UNKNOWN


class UnitSnapshot(Model, frozen=True, kw_only=True):
    """A unit as fetched. Null where the PMS has no value."""

    id: int
    property_id: int
    code: str
    building: str | None = None
    market_rent: Money | None = None
    bedrooms: Half | None = None
    bathrooms: Half | None = None
    size: int | None = None
    """Floor area in the unit of measurement of the account (square feet by default; the PMS does not name it)."""
    is_listed: bool | None = None
    is_occupied: bool | None = None
    """A flag that the PMS derives at query time: a cross-check, never the source of a status."""
    implausible_rent: bool = False
    """Whether the PMS has a market rent that is no amount of money."""
    bedrooms_or_more: bool = False
    """Whether the PMS knows ``bedrooms`` as the least number only."""
    bathrooms_or_more: bool = False
    """Whether the PMS knows ``bathrooms`` as the least number only."""


class LeaseTenant(Model, frozen=True, kw_only=True):
    """A tenant on a lease: an id and a status, no name."""

    id: int
    status: TenantStatus
    move_in: date | None = None


class MoveOut(Model, frozen=True, kw_only=True):
    """A tenant's notice to vacate."""

    tenant_id: int
    on: date
    """The day on which the tenant will move out."""
    notice_given: date | None = None


class LeaseSnapshot(Model, frozen=True, kw_only=True):
    """A lease as fetched, without anything personal and without its rent."""

    id: int
    property_id: int
    unit_id: int
    starts_on: date | None = None
    ends_on: date | None = None
    status: LeaseStatus
    ends_by_itself: bool = False
    """Whether the PMS moves the tenants out at ``ends_on`` (``AutomaticallyMoveOutTenants``)."""
    eviction_pending: bool = False
    renewal: str | None = None
    tenants: tuple[LeaseTenant, ...] = ()
    move_outs: tuple[MoveOut, ...] = ()


class ListingSnapshot(Model, frozen=True, kw_only=True):
    """The advertisement of a unit, as fetched."""

    unit_id: int
    property_id: int | None = None
    rent: Money | None = None
    available_on: date | None = None
    features: tuple[str, ...] = ()
    """The PMS's own names of the features of unit and property, sorted."""
    implausible_rent: bool = False
    """Whether the PMS has a rent that is no amount of money."""


class PageItem(Model, frozen=True, kw_only=True):
    """One entity of a page; ``body`` is its encoded snapshot, so that it is compared without being decoded."""

    id: int
    body: bytes | None = None
    """Null: the PMS answered that it does not exist (a listing: the unit is not listed)."""
    parent: int | None = None
    """Of a unit or a listing: the property, so that the fold need not decode the body."""


class Page(Model, frozen=True, kw_only=True):
    """Entities of one kind as one call brought them. Written to ``rent-roll.changes``."""

    org: str
    connection: str
    kind: EntityKind
    seq: int
    """The org's fetch sequence, taken before the call: a larger one is a newer state."""
    fetched_at: Instant
    seen_at: Instant | None = None
    """When the change was first seen (the arrival of its webhook), for the freshness metric."""
    sweep: str | None = None
    number: int = 0
    """Which page of its stage this is, for a sweep."""
    items: tuple[PageItem, ...] = ()
    whole_of: int | None = None
    """The property of which all entities of this kind are on this page (of leases those that are not past)."""
    guarded: bool = False
    """Whether an entity that does not exist is not removed yet, because so many are missing."""


class SweepEnd(Model, frozen=True, kw_only=True):
    """A sweep of an account is complete. Written to ``rent-roll.changes`` behind its pages."""

    org: str
    connection: str
    sweep: str
    seq: int
    """A fetch sequence older than every page of the sweep: a row with a newer one was fetched otherwise."""
    started_at: Instant
    ended_at: Instant
    pages: tuple[int, ...]
    """Pages of each stage, in the order of the stages."""
    entities: int
    torn: bool = False
    """Whether the account changed during the sweep: then what it missed is not fetched."""
    denied: tuple[EntityKind, ...] = ()
    """Kinds that the credentials may not read, and that the sweep leaves out."""
    confirms_removals: bool = False
    """Whether a person confirmed that much may be gone."""


class LeaseEntry(Row, frozen=True, kw_only=True):
    """A lease in the row of its unit."""

    id: int
    body: bytes


class UnitRow(Row, frozen=True, kw_only=True):
    """One unit of the rent roll: what was fetched of it, its leases and its listing, each with its sequence.

    Status and availability depend on the day and are derived when they are needed, never stored.
    """

    gone: bool = False
    """First on purpose: `schemas.codec.row_holds` reads this byte without decoding the row."""
    property_id: int | None = None
    """Null while only leases or a listing of the unit were seen."""
    seq: int = 0
    body: bytes | None = None
    listing_seq: int = 0
    listing: bytes | None = None
    leases: tuple[LeaseEntry, ...] = ()
    """Those that are not past, by id."""
    version: int = 0
    """Counts the changes of this row."""
    fetched_at: Instant
    """When its content was fetched; a sweep that finds no difference does not write it."""
    awaits: int = 0
    """What was not read yet since the unit was first seen (`streams.core.rent_roll.firsts`); 0: nothing."""
    awaited_sweep: str = ""
    """The first sweep whose end proves that it was read all the same."""


class LeaseRow(Row, frozen=True, kw_only=True):
    """A lease by its id: names its unit, so that a lease that moves is removed from the former one."""

    gone: bool = False
    seq: int
    unit_id: int | None = None
    came_from: int | None = None
    """Its unit before this sequence, if that was another one."""
    body: bytes | None = None
    live: bool = False
    """Active or future: a complete sweep brings it."""


class PropertyRow(Row, frozen=True, kw_only=True):
    """What was fetched of a property; which units it has is in `MemberRow`."""

    gone: bool = False
    seq: int = 0
    body: bytes | None = None
    units: tuple[int, ...] = ()
    """The units of the property, in rows of former releases."""
    version: int = 0
    fetched_at: Instant


class MemberRow(Row, frozen=True, kw_only=True):
    """The index of the units of a property: there is one for each unit."""

    unit_id: int


class SeenRow(Row, frozen=True, kw_only=True):
    """Which ids one page of the newest sweep brought; what a complete sweep did not bring is fetched by id."""

    sweep: str
    ids: tuple[int, ...]


class MarkRow(Row, frozen=True, kw_only=True):
    """When a property was last marked as due, so that a mark that is lost on its way is found."""

    seq: int
    """Sequence of what changed it; the row of its delivery keeps the one that it was cut with."""
    at: Instant


class AbsentRow(Row, frozen=True, kw_only=True):
    """An entity that does not exist according to the PMS, and that is not removed yet because so many are missing."""

    seq: int
    """The sequence of that answer: something newer in the entity's row makes this one void."""
    at: Instant
    removed_by: str = ""
    """The sweep at whose end it was removed; the next one deletes this row."""


class SweptRow(Row, frozen=True, kw_only=True):
    """The newest page of a sweep for one kind of entity: an older reply that differs is fetched again."""

    seq: int


class PulseEnd(Model, frozen=True, kw_only=True):
    """The end of a pulse: what changed in the account until then has been read. Written to ``rent-roll.changes``."""

    org: str
    connection: str
    until: Instant
    """By the clock of the PMS."""


class AccountRow(Row, frozen=True, kw_only=True):
    """A connection as a whole."""

    sweep: str
    """The last complete sweep."""
    first_sweep: str
    """The first complete one: before it nothing is offered to a receiver."""
    started_at: Instant
    completed_at: Instant
    entities: int = 0
    held_back: int = 0
    """Entities whose removal waits for the confirmation of a person."""
    seq: int = 0
    """The newest sequence of the last complete sweep; what was fetched otherwise since then has a newer one."""
    pulsed_until: Instant | None = None
    """Until when, by the clock of the PMS, pulses have read what changed; null before the first one."""
    whole_sweep: str = ""
    """The last complete sweep that was not torn."""
    awaiting: tuple[int, ...] = ()
    """Properties with units that were first seen since then."""
    begun_seq: int = 0
    """The sequence from before the last complete sweep; 0 in rows of former releases."""
