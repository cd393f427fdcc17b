"""The answers of reads of the view; the OpenAPI document is generated from these classes."""

from datetime import date, datetime
from enum import StrEnum

from pydantic import Field

from schemas import topics
from streams.web.api.models import ApiModel


class State(StrEnum):
    """The state of a unit, as receivers get it."""

    AVAILABLE = "available"
    RENTED = "rented"
    UNAVAILABLE = "unavailable"
    REMOVED = "removed"


class Page(ApiModel):
    """A page of a list."""

    as_of: datetime | None = Field(
        description="Everything that was written before is in it; null before the view was complete the first time."
    )
    next_cursor: str | None = Field(description="For the next page; null on the last one.")


class Acknowledgement(ApiModel):
    """What a receiver knows of a unit."""

    receiver: str
    up_to_date: bool = Field(description="Whether it acknowledged the unit as it is now.")
    acknowledged_at: datetime | None = Field(description="When it last acknowledged a batch of the property.")
    error: str | None = Field(description="Why it does not know the last change; null if nothing failed.")


class RollUnit(ApiModel):
    """A unit of the rent roll."""

    connection: str
    unit_id: int
    property_id: int
    property_name: str | None
    address: str | None
    code: str
    building: str | None
    state: State
    status: str = Field(description="The finer status.", examples=["vacant_unrented_ready"])
    is_available: bool
    available_on: date | None
    when_available: str | None
    rent: float | None
    size: int | None
    bedrooms: float | None
    bathrooms: float | None
    doubts: tuple[str, ...] = Field(description="What is doubtful about the data of the PMS; it changes nothing.")
    version: int = Field(description="Counts the changes of the unit.")
    fetched_at: datetime
    offered: bool = Field(description="False as long as not everything was read that decides the state.")
    receivers: tuple[Acknowledgement, ...]


class SyncOfConnection(ApiModel):
    """How far a connection is with its work."""

    connection: str
    sync_state: str = Field(examples=["synced"])
    sync_detail: str | None


class RentRoll(Page):
    """Units of the current rent roll, by connection and id."""

    sync_state: str = Field(
        description="The least complete state of the connections: explains an empty list before the first sweep; "
        "`none` without a connection.",
        examples=["synced"],
    )
    connections: tuple[SyncOfConnection, ...]
    items: tuple[RollUnit, ...]


class Phase(StrEnum):
    """Where the delivery of a property to a receiver stands."""

    IDLE = "idle"
    IN_FLIGHT = "in_flight"
    WAITING = "waiting"
    OWED = "owed"
    UNKNOWN = "unknown"


class Delivery(ApiModel):
    """What a receiver knows of a property."""

    receiver: str
    connection: str
    property_id: int
    phase: Phase = Field(description="`idle`: it knows everything; `owed`: given up, and tried again later.")
    version: int
    attempt: int
    mode: str | None
    sync_id: str | None
    batch_id: str | None
    cut_at: datetime | None
    owed_since: datetime | None = Field(description="When the oldest change was seen that it may not know.")
    acknowledged_at: datetime | None
    next_attempt: datetime | None
    given_up_at: datetime | None
    error: str | None


class Deliveries(Page):
    """What receivers know, by receiver, connection and property."""

    items: tuple[Delivery, ...]


class Attempt(ApiModel):
    """A batch that was sent, and how that ended."""

    receiver: str
    connection: str
    property_id: int
    version: int
    attempt: int
    batch_id: str | None
    sync_id: str | None
    mode: str | None
    units: int | None
    cut_at: datetime | None
    seen_at: datetime | None = Field(description="When the oldest change in it was first seen.")
    result: str | None = Field(description="`acknowledged`, `waiting`, `dead` or `cancelled`; null without an answer.")
    http_status: int | None
    reason: str | None
    detail: str | None
    ended_at: datetime | None
    next_attempt: datetime | None
    at: datetime


class Attempts(Page):
    """Batches of the last days, newest first."""

    items: tuple[Attempt, ...]


class Webhook(ApiModel):
    """A webhook that was accepted."""

    connection: str
    event: str
    kind: str
    entity: int | None
    occurred_at: datetime | None
    ignored: str | None = Field(description="Why it led to nothing; null if it led to a read.")
    at: datetime
    partition: int
    offset: int


class Webhooks(Page):
    """Webhooks of the last days, newest first."""

    items: tuple[Webhook, ...]


class LetterState(StrEnum):
    """Whether a record that was given up is still owed."""

    OPEN = "open"
    CLOSED = "closed"


class DeadLetter(ApiModel):
    """A record that was given up."""

    id: str = Field(examples=["3-1042"])
    time: datetime
    org: str
    origin: str = Field(description="The topic that it was on.", examples=[topics.BATCHES.name])
    flow: str | None = Field(description="What gave it up.", examples=["deliver_batches"])
    reason: str | None = Field(examples=["rejected"])
    attempts: int
    connection: str | None
    receiver: str | None
    entity: str | None = Field(
        description="With the id of the PMS, or our id of a property or an owner.", examples=["property:1001"]
    )
    fingerprint: str = Field(description="Equal for failures of the same kind.", examples=["9f2c64a1b0d3"])
    message: str | None = Field(description="The failure in words.")
    first_failed_at: datetime | None
    replays: int = Field(description="How often it was replayed before.")
    state: LetterState = Field(description="`closed`: what was given up has been made up for since.")


class DeadLetterGroup(ApiModel):
    """Records that were given up for the same cause."""

    fingerprint: str
    flow: str | None
    reason: str | None
    letters: int
    open: int = Field(description="How many of them are open.")
    entities: int
    first: datetime
    last: datetime
    message: str | None = Field(description="The words of one of the failures.")
