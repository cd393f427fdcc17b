"""What the PMS tells us, and what we ask of it: notices and the steps of a sweep."""

from enum import StrEnum

from schemas.base import EntityKind, Instant, Model


class FetchOrigin(StrEnum):
    """Why an entity is to be read again."""

    UNKNOWN = "unknown"
    WEBHOOK = "webhook"
    """The PMS said so."""
    SWEEP = "sweep"
    """A complete pull missed it: is it gone?"""
    ROLL = "roll"
    """The rent roll needs it: a parent that it has never seen, a unit that a lease moved away from."""


class FetchRequest(Model):
    """A hint that one entity of a PMS changed; what it is now has to be fetched. Written to ``pms.webhooks``.

    A webhook that names nothing that a rent roll needs is kept too, with ``ignored`` saying by which rule.
    """

    org: str
    connection: str
    origin: FetchOrigin
    event: str
    """The PMS's own name of the event (``Rental.Updated``), or what we wanted with it."""
    kind: EntityKind = EntityKind.UNKNOWN
    entity: int | None = None
    """The PMS's number of the entity; for a listing that of its unit."""
    occurred_at: Instant | None = None
    """When the PMS says that it happened (it may be seconds to minutes ago)."""
    received_at: Instant
    ignored: str | None = None
    body: bytes = b""
    """The webhook's body as it came, byte for byte."""


STAGES = (EntityKind.PROPERTY, EntityKind.UNIT, EntityKind.LEASE, EntityKind.LISTING)
"""The order in which a sweep reads the kinds of entities of an account: parents first."""


class SweepStep(Model):
    """The next pages that a full read of an account wants: the sweep carries its own state from record to record.

    A crash repeats one step at the most. Written to ``pms.sweeps``.
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
    """What the PMS said how many there are of this stage (``X-Total-Count``), once it said so."""
    entities: int = 0
    """How many entities all stages read so far."""
    pages: tuple[int, ...] = ()
    """Pages of each finished stage, in the order of the stages."""
    torn: bool = False
    """Whether a stage brought another number of entities than the PMS counted."""
