"""Requests to a PMS: which entity to fetch, and the steps of a sweep."""

from enum import StrEnum

from schemas.base import EntityKind, Instant, Model


class FetchOrigin(StrEnum):
    """Why an entity is to be read again."""

    UNKNOWN = "unknown"
    WEBHOOK = "webhook"
    """The PMS reported a change."""
    ROLL = "roll"
    """The rent roll needs it: an unknown parent, or a unit whose lease changed."""
    ASKED = "asked"
    """A person asked for it."""


class FetchRequest(Model, frozen=True, kw_only=True):
    """A request to fetch one entity of a PMS, which may have changed. Written to ``pms.webhooks``.

    A webhook about something that a rent roll does not need is written too; ``ignored`` names the rule.
    """

    org: str
    connection: str
    origin: FetchOrigin
    event: str
    """The PMS's own name of the event (``Rental.Updated``), or the reason of a request of ours."""
    kind: EntityKind = EntityKind.UNKNOWN
    entity: int | None = None
    """The PMS's number of the entity; for a listing that of its unit."""
    occurred_at: Instant | None = None
    """When it happened according to the PMS, seconds to minutes before."""
    received_at: Instant
    ignored: str | None = None
    body: bytes = b""
    """The webhook's body as it came, byte for byte."""
    also: tuple[EntityKind, ...] = ()
    """Of a property: the kinds of its entities that are to be read in full as well."""


STAGES = (EntityKind.PROPERTY, EntityKind.UNIT, EntityKind.LEASE, EntityKind.LISTING)
"""The order in which a sweep reads the kinds of entities of an account: parents first."""


class SweepStep(Model, frozen=True, kw_only=True):
    """The next pages of a sweep, which carries its state from record to record: a crash repeats one step at the most.

    Written to ``pms.sweeps``.
    """

    org: str
    connection: str
    sweep: str
    """Id of the sweep: the time of its start, ``20251122T020000Z`` style, unique for a connection."""
    started_at: Instant
    seq: int = 0
    """A fetch sequence taken before the first call."""
    stage: EntityKind
    offset: int = 0
    """How many entities of this stage were read before."""
    page: int = 0
    """How many pages of this stage were written before."""
    total: int | None = None
    """How many entities this stage has according to the PMS; null before its first page, or if the PMS does not say."""
    page_rows: int = 0
    """The most rows that a page of this stage brought: the PMS may send fewer than it is asked for."""
    again: int = 0
    """How often this stage was begun again, because its list shrank while it was read."""
    entities: int = 0
    """How many entities all stages brought so far."""
    pages: tuple[int, ...] = ()
    """Pages of each finished stage, in the order of the stages."""
    torn: bool = False
    """Whether a stage brought another number of entities than the PMS counted."""
    denied: tuple[EntityKind, ...] = ()
    """Kinds that the credentials may not read, and that the sweep leaves out."""
    asked: bool = False
    """Whether a person asked for it: then it waits for a sweep that is running."""
    confirms_removals: bool = False
    """Whether a person confirmed that much may be gone (`streams.core.rent_roll.missed`)."""


class RecheckStep(Model, frozen=True, kw_only=True):
    """Entities that a complete sweep missed, to be fetched by their ids, some at a time. Written to ``pms.rechecks``.

    It carries its state from record to record. If one is lost, the end of the next sweep asks again.
    """

    org: str
    connection: str
    sweep: str
    """The sweep that missed them."""
    kind: EntityKind
    ids: tuple[int, ...]
    """Those that are left, in the order in which they are fetched."""
    guarded: bool = False
    """Whether so many are missing that an answer 404 removes nothing yet."""


class PulseStep(Model, frozen=True, kw_only=True):
    """A request to read what changed in an account since a point in time. Written to ``pms.pulses``."""

    org: str
    connection: str
    since: Instant
    """By the clock of the PMS."""
    started_at: Instant
