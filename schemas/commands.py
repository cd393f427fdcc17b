"""Commands of upstream apps, which create and change properties and owners in a PMS, and what becomes of each."""

from enum import StrEnum

from schemas.base import Half, Instant, Model, Money, Row


class SyncEntity(StrEnum):
    """What an upstream app may create in a PMS."""

    UNKNOWN = "unknown"
    PROPERTY = "property"
    OWNER = "owner"


class CommandAction(StrEnum):
    """What a command asks for."""

    UNKNOWN = "unknown"
    CREATE = "create"
    UPDATE = "update"
    RETRY = "retry"
    """A person, or the retry ladder, asks to try the last operation again."""


class SyncStatus(StrEnum):
    """Whether a PMS has an entity as it was commanded."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    """It is not sent yet: it is new, or waits for another entity or for an earlier operation."""
    SYNCING = "syncing"
    """It is being sent, or waits for another attempt."""
    SYNCED = "synced"
    FAILED = "failed"
    """It was given up, or refused; a person may correct it, or have it tried again."""
    CONFLICT = "conflict"
    """It cannot be decided whether the PMS has it already; a person has to look."""


class PostalAddress(Model, frozen=True, kw_only=True):
    """A postal address, as the upstream app wrote it."""

    line1: str
    line2: str | None = None
    line3: str | None = None
    city: str | None = None
    state: str | None = None
    postal_code: str
    country: str


class UnitBody(Model, frozen=True, kw_only=True):
    """A unit of a property that is to be created."""

    number: str
    address: PostalAddress | None = None
    """Null: that of its property."""
    size: int | None = None
    market_rent: Money | None = None
    bedrooms: Half | None = None
    bathrooms: Half | None = None
    description: str | None = None


class PropertyBody(Model, frozen=True, kw_only=True):
    """A property as it is to be in the PMS."""

    name: str
    address: PostalAddress
    sub_type: str
    """In the PMS's own words (``MultiFamily``)."""
    is_active: bool = True
    structure: str | None = None
    year_built: int | None = None
    reserve: Money | None = None
    bank_account: int | None = None
    """The PMS's id; null: that of the connection's settings, or the account's only one."""
    manager: int | None = None
    """The PMS's id of the staff member who manages it."""
    owners: tuple[str, ...] = ()
    """Our ids, or the PMS's."""
    units: tuple[UnitBody, ...] = ()


class Phone(Model, frozen=True, kw_only=True):
    """A phone number and its kind (``home``, ``work``, ``mobile``, ``fax``)."""

    kind: str
    number: str


class OwnerBody(Model, frozen=True, kw_only=True):
    """An owner, a person or a company, as it is to be in the PMS."""

    first_name: str | None = None
    last_name: str | None = None
    company_name: str | None = None
    email: str | None = None
    phones: tuple[Phone, ...] = ()
    address: PostalAddress
    properties: tuple[str, ...] = ()
    """Our ids, or the PMS's."""


class Command(Model, frozen=True, kw_only=True):
    """A request to create or change an entity in a PMS, or to try again. Written to ``pms.commands``."""

    org: str
    connection: str
    action: CommandAction
    operation: str
    """Id of the operation; a further record with the same one is a repetition of the first."""
    entity: SyncEntity
    id: str
    """Our id of the entity."""
    property: PropertyBody | None = None
    owner: OwnerBody | None = None
    digest: bytes = b""
    """Of the request's body: another body under the same idempotency key is refused."""
    by: str = ""
    """Subject of the token."""
    at: Instant
    version: int = 0
    """Of a retry by the ladder: the push that waits. A newer one supersedes the retry."""
    attempt: int = 0
    """Of a retry by the ladder: the number of the attempt that failed, or that was held."""
    held: bool = False
    """Of a retry by the ladder: whether that attempt was not made."""


class Push(Model, frozen=True, kw_only=True):
    """One operation, ready to be made in the PMS: everything that it depends on is there. Written to ``pms.pushes``."""

    org: str
    connection: str
    operation: str
    entity: SyncEntity
    id: str
    version: int
    """Counts the pushes of this entity."""
    attempt: int
    since: Instant
    """When the command was accepted: what the PMS has created of it is not older."""
    pms_id: int | None = None
    """Null: it is to be created."""
    property: PropertyBody | None = None
    owner: OwnerBody | None = None
    owner_ids: tuple[int, ...] = ()
    """The PMS's ids of the owners of a property."""
    property_ids: tuple[int, ...] = ()
    """The PMS's ids of the properties of an owner."""


class PushResult(StrEnum):
    """How an attempt of a push ended."""

    UNKNOWN = "unknown"
    DONE = "done"
    WAITING = "waiting"
    """Parked on a rung; it comes back."""
    FAILED = "failed"
    CONFLICT = "conflict"


class FieldProblem(Model, frozen=True, kw_only=True):
    """An error of the PMS in one field, by the JSON pointer of ours."""

    pointer: str
    detail: str


class PushOutcome(Model, frozen=True, kw_only=True):
    """The outcome of an attempt of a push. Written to ``sync.events``."""

    org: str
    connection: str
    entity: SyncEntity
    id: str
    operation: str
    version: int
    attempt: int
    result: PushResult
    at: Instant
    pms_id: int | None = None
    code: str | None = None
    """Why it did not succeed, of a closed set (`streams.core.retry.Reason`, or ``conflict``)."""
    detail: str | None = None
    fields: tuple[FieldProblem, ...] = ()
    due_at: Instant | None = None


class SyncOperation(Model, frozen=True, kw_only=True):
    """One operation in the history of an entity."""

    id: str
    action: CommandAction
    status: SyncStatus
    digest: bytes = b""
    at: Instant
    attempts: int = 0
    ended_at: Instant | None = None
    detail: str | None = None


class SyncState(Model, frozen=True, kw_only=True):
    """Whether a PMS has an entity, for showing. Written to ``sync.states``, which keeps the last one of each entity."""

    org: str
    connection: str
    entity: SyncEntity
    id: str
    name: str = ""
    """What people know it by."""
    pms_id: int | None = None
    status: SyncStatus
    synced_at: Instant | None = None
    attempts: int = 0
    next_attempt_at: Instant | None = None
    code: str | None = None
    detail: str | None = None
    fields: tuple[FieldProblem, ...] = ()
    operations: tuple[SyncOperation, ...] = ()
    """The last ones, newest first."""
    updated_at: Instant


class SyncPhase(StrEnum):
    """Where the current operation of an entity stands."""

    UNKNOWN = "unknown"
    IDLE = "idle"
    """There is none, or it has ended; the status shows how."""
    BLOCKED = "blocked"
    """It waits until another entity is in the PMS."""
    IN_FLIGHT = "in_flight"
    WAITING = "waiting"
    """A failed attempt waits on the ladder."""


class SyncRow(Row, frozen=True, kw_only=True):
    """An entity in table ``sync-states``, by org, kind and id."""

    connection: str
    name: str = ""
    pms_id: int | None = None
    phase: SyncPhase = SyncPhase.IDLE
    status: SyncStatus = SyncStatus.PENDING
    version: int = 0
    attempt: int = 0
    cause: str = ""
    """The record that emitted the last push: consumed again, it emits the same one."""
    current: bytes = b""
    """The `Command` of the current or the last operation, encoded."""
    queue: tuple[bytes, ...] = ()
    """Commands that wait for their turn, oldest first."""
    waits_for: tuple[str, ...] = ()
    """The properties (our ids) that have to be in the PMS first."""
    synced_at: Instant | None = None
    next_attempt_at: Instant | None = None
    changed_at: Instant
    """When the phase was entered."""
    code: str | None = None
    detail: str | None = None
    fields: tuple[bytes, ...] = ()
    """Errors of the PMS in single fields (`FieldProblem`), encoded."""
    operations: tuple[bytes, ...] = ()
    """The last operations (`SyncOperation`), encoded, newest first."""


class OperationRow(Row, frozen=True, kw_only=True):
    """The entity of an operation, as long as its idempotency key is remembered; by the operation."""

    entity: SyncEntity
    id: str
    at: Instant
    """When the command was accepted."""


class TakenRow(Row, frozen=True, kw_only=True):
    """An entity of a PMS that belongs to one of ours, by connection, kind and the PMS's id."""

    id: str


class BlockedRow(Row, frozen=True, kw_only=True):
    """An entity that waits for a property, by the property and the entity."""

    id: str


class UnsyncedRow(Row, frozen=True, kw_only=True):
    """An entity whose operation has not ended: the index of what is looked at regularly."""

    version: int = 0
