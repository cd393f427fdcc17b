"""What receivers have to be sent, what they were sent, and what they answered."""

from datetime import date
from enum import StrEnum

from schemas.base import Half, Instant, Model, Money, Row


class DueReason(StrEnum):
    """Why a receiver may not know the present state of a property."""

    UNKNOWN = "unknown"
    CHANGED = "changed"
    WITHDRAWN = "withdrawn"
    """Something changed that may have made units unavailable: that is sent at once, and a record with ``changed``
    follows for everything."""
    SWEPT = "swept"
    """The first full sweep is complete: everything was held back until then."""
    DATE_PASSED = "date_passed"
    """A date passed at the property: a lease starts, a unit becomes available."""
    RETRY = "retry"
    SCHEDULED = "scheduled"
    """The daily snapshot."""
    ASKED = "asked"
    """Requested by a person."""
    RECONFIGURED = "reconfigured"
    """The configuration of the receiver, or of the connection, changed since it was looked at."""


class DeliveryDue(Model, frozen=True, kw_only=True):
    """A property that some receiver may not know the present state of. Written to ``deliveries.due``."""

    org: str
    connection: str
    property_id: int
    reason: DueReason
    seen_at: Instant
    """When the change was first seen (the arrival of its webhook)."""
    sink: str | None = None
    """Null: every receiver of the org."""
    version: int | None = None
    """Of a retry: the delivery that waits. A newer one supersedes the retry."""
    attempt: int = 0
    """Of a retry: the number of the attempt that failed, or that was held."""
    held: bool = False
    """Of a retry: whether that attempt was not made, so that it is still to come."""
    snapshot_at: Instant | None = None
    """Of the daily snapshot: the moment of the schedule."""
    units: tuple[int, ...] | None = None
    """The units that changed; null if any of the property may have."""
    mark: int = 0
    """Sequence of the property's mark (`schemas.rent_roll.MarkRow`) that this record stands for; 0 if there is none."""
    after: int = 0
    """Sequence of the mark before the oldest one that this record stands for. If the receiver's row does not know that
    one, a record was lost, and ``units`` does not have everything."""


class UnitState(StrEnum):
    """The state of a unit, as receivers get it."""

    UNKNOWN = "unknown"
    AVAILABLE = "available"
    RENTED = "rented"
    UNAVAILABLE = "unavailable"
    REMOVED = "removed"


class Doubt(StrEnum):
    """What is doubtful about the data of the PMS. A doubt is shown to people and changes nothing that is sent."""

    UNKNOWN = "unknown"
    LISTED_WHILE_OCCUPIED = "listed_while_occupied"
    OVERDUE_MOVE_OUT = "overdue_move_out"
    OCCUPANCY_FLAG = "occupancy_flag"
    IMPLAUSIBLE_RENT = "implausible_rent"
    AMBIGUOUS_DWELLING = "ambiguous_dwelling"
    BEDROOMS_OR_MORE = "bedrooms_or_more"
    BATHROOMS_OR_MORE = "bathrooms_or_more"
    NO_TIME_ZONE = "no_time_zone"
    """Of a connection; all others are of a unit."""


class OfferedProperty(Model, frozen=True, kw_only=True):
    """A property as it is offered, before the mapping to a receiver's own format."""

    id: int
    name: str
    address: str
    """Line 1, city, state."""
    is_active: bool


class OfferedUnit(Model, frozen=True, kw_only=True):
    """A unit as it is offered, before the mapping to a receiver's own format. Null where unknown."""

    id: int
    code: str
    building: str | None = None
    state: UnitState
    status: str
    """The finer status (``vacant_unrented_ready``, …)."""
    is_available: bool
    available_on: date | None = None
    when_available: str | None = None
    base_rent: Money | None = None
    size: int | None = None
    bedrooms: Half | None = None
    bathrooms: Half | None = None
    dwelling_type: str | None = None
    view: str | None = None
    has_garage: bool | None = None
    pets_allowed: int | None = None


class BatchMode(StrEnum):
    """Whether a batch holds all units of a property or only those that its receiver does not know yet."""

    UNKNOWN = "unknown"
    SNAPSHOT = "snapshot"
    DELTA = "delta"


class Batch(Model, frozen=True, kw_only=True):
    """What is to be POSTed: cut from the rent roll as it is now. Written to ``deliveries.batches``.

    Same content, same bytes: a retry whose units are unchanged repeats ``batch_id``, ``sync_id`` and ``cut_at``.
    """

    org: str
    connection: str
    sink: str
    receiver: str = ""
    """Identity of the receiver's configuration that it was cut for; it must not be sent to another one."""
    form: str = ""
    """The form that it was cut for: in another one its id would go with two bodies."""
    configured_at: Instant | None = None
    """When the configuration that it was cut for was changed: shows whether the batch or a process is outdated."""
    batch_id: str
    sync_id: str
    cut_at: Instant
    seen_at: Instant
    """When the oldest change in it was first seen."""
    version: int
    """Counts the deliveries of this property to this receiver."""
    attempt: int = 1
    mode: BatchMode
    property: OfferedProperty
    units: tuple[OfferedUnit, ...]
    dead_letter: str | None = None
    """The reason of the dead letter that was written for this delivery already; null if there is none."""


class DeliveryResult(StrEnum):
    """How an attempt of a delivery ended."""

    UNKNOWN = "unknown"
    ACKNOWLEDGED = "acknowledged"
    WAITING = "waiting"
    """Parked on a rung; it comes back."""
    DEAD = "dead"
    """The last attempt failed, or no attempt can succeed."""
    CANCELLED = "cancelled"
    """The receiver was disabled, deleted or replaced before it answered."""


class DeliveryOutcome(Model, frozen=True, kw_only=True):
    """The outcome of an attempt of a delivery. Written to ``deliveries.outcomes``."""

    org: str
    connection: str
    sink: str
    property_id: int
    version: int
    result: DeliveryResult
    attempt: int
    at: Instant
    status: int | None = None
    """The receiver's HTTP status, if it answered."""
    detail: str | None = None
    reason: str | None = None
    """Why it is dead or waits, as in `streams.core.retry.Reason`."""
    due_at: Instant | None = None
    """When it comes back, if it waits."""


class DeliveryPhase(StrEnum):
    """The state of the delivery of a property to a receiver; see `streams.core.delivery.states`."""

    UNKNOWN = "unknown"
    IDLE = "idle"
    IN_FLIGHT = "in_flight"
    WAITING = "waiting"
    OWED = "owed"
    """The delivery was given up, and the receiver does not know the state of the property."""


class Acknowledged(Row, frozen=True, kw_only=True):
    """A unit and the digest of what the receiver has of it, or of what is on its way."""

    unit_id: int
    digest: bytes
    """Eight bytes of the digest of the unit and its property, as offered."""


class DeliveryRow(Row, frozen=True, kw_only=True):
    """One property at one receiver."""

    phase: DeliveryPhase = DeliveryPhase.IDLE
    receiver: str = ""
    """Identity of the receiver's configuration that ``known`` and ``sent`` belong to."""
    address: str = ""
    """Fingerprint of the system and the URL of that receiver; empty in rows of former releases."""
    form: str = ""
    """In which form it was sent batches; empty for the usual one."""
    revision: str = ""
    """Of everything else in the configurations that decides what is sent; of the last time that it was looked at."""
    version: int = 0
    attempt: int = 0
    dirty_since: Instant | None = None
    """The oldest change that came while a delivery was on its way."""
    known: tuple[Acknowledged, ...] | None = None
    """What the receiver acknowledged, in rows of former releases: now each unit has a `KnownRow`."""
    introduced: bool = False
    """Whether the receiver acknowledged a snapshot."""
    dirty_units: tuple[int, ...] | None = None
    """If ``dirty_since`` is set: the units that changed; null if any may have."""
    sent: tuple[Acknowledged, ...] = ()
    """What was sent and not acknowledged: the receiver may have it or not."""
    batch_id: str = ""
    sync_id: str = ""
    cut_at: Instant | None = None
    seen_at: Instant | None = None
    mode: BatchMode = BatchMode.UNKNOWN
    content: bytes = b""
    """Digest of the content on its way: a retry with the same one repeats its bytes."""
    cause: str = ""
    """``topic:offset`` of the record that started the delivery: if it is consumed again, the batch is emitted again."""
    acknowledged_at: Instant | None = None
    last_error: str | None = None
    due_at: Instant | None = None
    """When a delivery that waits comes back."""
    given_up_at: Instant | None = None
    """When the delivery was given up last; null if it was not since the last acknowledgement."""
    given_up: int = 0
    """How often it was given up since the last acknowledgement."""
    dead_letter: str | None = None
    """The reason of the dead letter that was written for it."""
    mark: int = 0
    """Sequence of the last mark of the property (`MarkRow`) that was looked at, or is part of ``dirty_units``."""
    snapshot_due: Instant | None = None
    """The latest moment of the schedule that a snapshot was asked for."""
    snapshot_cut_at: Instant | None = None
    """When what is on its way was cut as a snapshot last; not earlier than ``snapshot_due``."""
    snapshot_at: Instant | None = None
    """``snapshot_cut_at`` of the last snapshot that the receiver acknowledged."""


class OpenRow(Row, frozen=True, kw_only=True):
    """An entry of the index of open deliveries: those that are not idle, that changed, or that have a dead letter."""

    version: int
    """The version of the delivery when it began to be open."""


class KnownRow(Row, frozen=True, kw_only=True):
    """What a receiver acknowledged of one unit."""

    digest: bytes
    """Eight bytes of the digest of the unit and its property, as offered."""


class NextDateRow(Row, frozen=True, kw_only=True):
    """The next day on which the availability of a unit may change without an event."""

    on: date


class DoubtfulUnit(Row, frozen=True, kw_only=True):
    """One unit and what is doubtful about it, as of the last time that it was cut."""

    unit_id: int
    doubts: tuple[Doubt, ...]
    since: Instant
    """When these doubts were first seen together."""


class DoubtsRow(Row, frozen=True, kw_only=True):
    """The doubtful units of a property, in rows of former releases: now each unit has a `DoubtfulUnit`."""

    units: tuple[DoubtfulUnit, ...] = ()


class ReceiverRow(Row, frozen=True, kw_only=True):
    """A receiver as a whole: the counter that keeps sync ids unique within a second."""

    second: str = ""
    count: int = 0
    acknowledged_at: Instant | None = None
    """When it last acknowledged a batch, to the second."""
