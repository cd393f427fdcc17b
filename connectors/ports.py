"""The ports between the flows and external systems. A connector implements one or more of them.

Every outcome is a value: a port does not raise for anything that an external system or the network does.
"""

import random as randomness
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import IntEnum
from typing import Final, Literal, Protocol
from zoneinfo import ZoneInfo

from pydantic import JsonValue, SecretStr

from schemas.base import EntityKind
from schemas.commands import Push
from schemas.delivery import Batch
from schemas.integrations import CheckResult, CheckStatus, EntityAccess, IntegrationMode, IntegrationRole
from schemas.pms import FetchRequest
from schemas.rent_roll import LeaseSnapshot, ListingSnapshot, PropertySnapshot, UnitSnapshot

Snapshot = PropertySnapshot | UnitSnapshot | LeaseSnapshot | ListingSnapshot


class Clock(Protocol):
    """A source of time that is passed in, so that a test controls it."""

    def now(self) -> datetime:
        """Return the current time, aware and in UTC."""
        ...

    def monotonic(self) -> float:
        """Return a time in seconds that never goes back; only differences between two values have a meaning."""
        ...

    async def sleep(self, seconds: float) -> None: ...


WaitToCall = Callable[[], Awaitable[None]]

MAY_CALL: Final[ContextVar[WaitToCall | None]] = ContextVar("may_call", default=None)
"""What a call has to wait for right before it is sent, however long it waited for its turn: the proof that this process
still owns the work. Set by the runner of the calls; null where no proof is needed."""


async def may_call() -> None:
    """Return when a call may be sent; a connector awaits this right before each request."""
    wait = MAY_CALL.get()
    if wait is not None:
        await wait()


class Haste:
    """Whether work that could wait has become urgent, because something urgent waits behind it."""

    def __init__(self) -> None:
        self._urgent = False
        self._listeners: list[Callable[[], None]] = []

    def urge(self) -> None:
        """Make it urgent."""
        self._urgent = True
        while self._listeners:
            self._listeners.pop()()

    def when_urgent(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` once it is urgent, at once if it is."""
        if self._urgent:
            listener()
        else:
            self._listeners.append(listener)


HASTE: Final[ContextVar[Haste | None]] = ContextVar("haste", default=None)
"""Set by the runner of the calls while replayed records are processed: live ones of the same key wait for them."""


# ----------------------------------------------------------------------------------------------------------- failures


@dataclass(frozen=True, slots=True)
class Throttled:
    """429: too many calls. ``retry_after`` is in seconds, null if the answer does not contain it."""

    detail: str
    retry_after: float | None = None
    status: int | None = 429


@dataclass(frozen=True, slots=True)
class Unavailable:
    """408, 425, 5xx or a network error: another attempt may succeed. ``status`` is null if there was no answer."""

    detail: str
    status: int | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Unauthorized:
    """401, 403: the credentials or their permissions have to be corrected."""

    detail: str
    status: int | None = 401


@dataclass(frozen=True, slots=True)
class Missing:
    """404, 410 of an endpoint: the configured URL has to be corrected."""

    detail: str
    status: int | None = 404


@dataclass(frozen=True, slots=True)
class Rejected:
    """400, 422 and every other 4xx: the same request will never be accepted."""

    detail: str
    status: int | None = None


Failure = Throttled | Unavailable | Unauthorized | Missing | Rejected


# ------------------------------------------------------------------------------------------------ reading from a PMS


class Priority(IntEnum):
    """The order in which waiting calls are admitted to a connection's API budget; the lowest value first."""

    COMMAND = 0
    WEBHOOK = 1
    SWEEP = 2
    REPLAY = 3


@dataclass(frozen=True, slots=True)
class Found:
    """The current state of an entity."""

    kind: EntityKind
    id: int
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Gone:
    """The PMS answered that the entity does not exist (404); for a listing: the unit is not listed."""

    kind: EntityKind
    id: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """The result of one fetch: the entity itself, or the entities that it stands for (the leases of a tenant)."""

    items: tuple[Found | Gone, ...]


@dataclass(frozen=True, slots=True)
class PageOf:
    """One page of a list.

    ``total`` is the number of entities in the whole list, as reported by the PMS; null if it does not say. ``rows`` is
    the number of rows in the page; ``items`` has fewer if rows cannot be used for a rent roll.
    """

    items: tuple[Found, ...]
    rows: int
    total: int | None
    at: datetime | None = None
    """When the PMS answered, by its own clock; null if it does not say."""


class PropertySource(Protocol):
    """Reads entities of one PMS connection. The connector handles retries, auth, rate limit and concurrency."""

    async def fetch(
        self, kind: EntityKind, entity: int, priority: Priority = Priority.WEBHOOK
    ) -> Fetched | Failure: ...

    async def page(self, kind: EntityKind, offset: int, priority: Priority = Priority.SWEEP) -> PageOf | Failure:
        """Return at most ``page_size`` entities, ordered by id, after skipping the first ``offset``."""
        ...

    async def changed(
        self, kind: EntityKind, since: datetime, offset: int, priority: Priority = Priority.WEBHOOK
    ) -> PageOf | Failure:
        """Return at most ``page_size`` entities that were updated since a time of the PMS's clock, ordered by id.

        Unlike a page, they may be past (leases). Properties, units and leases have such a list.
        """
        ...

    async def all_of(
        self, kind: EntityKind, property_id: int, priority: Priority = Priority.WEBHOOK
    ) -> Fetched | Failure:
        """Return all units or all listings of a property, or all its leases that are not past."""
        ...

    @property
    def page_size(self) -> int: ...

    async def aclose(self) -> None: ...


# -------------------------------------------------------------------------------------------------- writing to a PMS


@dataclass(frozen=True, slots=True)
class Pushed:
    """The PMS has the entity as it was commanded, under this id."""

    pms_id: int
    found: bool = False
    """Whether an earlier attempt, whose answer was lost, had created it."""


@dataclass(frozen=True, slots=True)
class Undecided:
    """The PMS may have the entity already, and only a person can decide which one it is: nothing was created."""

    detail: str


@dataclass(frozen=True, slots=True)
class Invalid:
    """The PMS refuses the content. ``fields``: JSON pointers of ours, each with what is wrong."""

    detail: str
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Halfway:
    """The entity is in the PMS under this id, but a further step failed; the next attempt goes on from there."""

    pms_id: int
    why: "Failure | Invalid"


class PropertyGateway(Protocol):
    """Creates and changes entities of one PMS connection.

    An entity is never created twice: what an earlier attempt may have left behind is looked for before each creation.
    """

    async def push(self, push: Push) -> Pushed | Undecided | Invalid | Halfway | Failure: ...


# ----------------------------------------------------------------------------------------------- webhooks of a PMS


@dataclass(frozen=True, slots=True)
class Refused:
    """A webhook that is rejected: the HTTP status of the answer, and the reason as text for the sender."""

    status: int
    detail: str


class WebhookReader(Protocol):
    """Verifies and parses the webhook requests of one connection. Pure: time is passed in."""

    def read(self, headers: Sequence[tuple[bytes, bytes]], body: bytes, now: datetime) -> FetchRequest | Refused:
        """Return the request to fetch the changed entity, or the reason for a rejection.

        ``headers`` have the form of ASGI, with names in lower case.
        """
        ...


# ------------------------------------------------------------------------------------------------------- the receiver


@dataclass(frozen=True, slots=True)
class Accepted:
    """2xx: the receiver accepted the batch. ``seconds`` is the duration of the call."""

    status: int
    seconds: float = 0.0


class ListingSink(Protocol):
    """Delivers batches to one listing receiver of an org."""

    @property
    def name(self) -> str: ...

    async def deliver(self, batch: Batch) -> Accepted | Failure: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LeasingRules:
    """How a connection's leases and listings are read: what the customer decides and the PMS does not know."""

    make_ready_days: int = 0
    """Make-ready days of a unit between a move-out and the next move-in."""
    auto_move_out_days: int = 60
    """From how many days before its end on a lease counts as on notice whose tenants the PMS will move out."""
    listed_only: bool = False
    """Whether only units with a listing are offered."""


DEFAULT_RULES: Final = LeasingRules()


@dataclass(frozen=True, slots=True)
class Connection:
    """One set of credentials for one PMS account of one org."""

    org: str
    name: str
    system: str
    enabled: bool
    timezone: str
    """IANA name of the time zone in which calendar dates of its properties are interpreted."""
    rules: LeasingRules = DEFAULT_RULES
    timezone_is_default: bool = False
    """Whether no setting names the time zone."""

    def day(self, now: datetime) -> date:
        """Return the calendar date in the connection's time zone."""
        return now.astimezone(ZoneInfo(self.timezone)).date()


# ------------------------------------------------------------------------------------------------------ integrations


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings and decrypted secrets of one integration; its repr shows no secret.

    Names are in camelCase, as in the API. An absent setting has its default.
    """

    settings: Mapping[str, JsonValue] = field(default_factory=dict)
    secrets: Mapping[str, tuple[SecretStr, ...]] = field(default_factory=dict)
    """Newest first; only a field with ``several`` may have more than one."""
    mode: IntegrationMode = IntegrationMode.PRODUCTION


@dataclass(frozen=True, slots=True)
class Field:
    """One setting or secret in the configuration of a system."""

    name: str
    """camelCase; `RENTSYNC_USER_AGENT` of the environment is ``userAgent``."""
    env: str
    """Name in the environment."""
    kind: Literal["setting", "secret"]
    description: str
    """The allowed values, as the end of a sentence."""
    required: bool = False
    several: bool = False
    """Whether several values may be valid at once (webhook secrets during a rotation)."""
    default: JsonValue = None


@dataclass(frozen=True, slots=True)
class FieldError:
    """An error in one field of a configuration."""

    pointer: str
    """JSON pointer into the body of ``PUT /api/integrations/{name}`` (``/settings/baseUrl``, ``/secrets/token``)."""
    detail: str
    """The error and the allowed values; never the value of a secret."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome of a connection test."""

    checks: tuple[CheckResult, ...]
    access: tuple[EntityAccess, ...] = ()
    account: int | None = None
    """The account's id in the PMS; null if the test could not read it."""

    @property
    def passed(self) -> bool:
        """Return whether every required check passed."""
        return all(check.status is CheckStatus.PASSED for check in self.checks if check.required)


class System(Protocol):
    """A kind of integration, registered in `connectors.registry`. It has no state; `open` creates a client."""

    @property
    def name(self) -> str:
        """Return the name in records, metrics and URL paths (``buildium``)."""
        ...

    @property
    def title(self) -> str:
        """Return the name to display (``Buildium``)."""
        ...

    @property
    def role(self) -> IntegrationRole: ...

    @property
    def fields(self) -> tuple[Field, ...]: ...

    def errors(self, configuration: Configuration) -> tuple[FieldError, ...]:
        """Return every error of a configuration; empty if it can be used."""
        ...

    def environment(self, env: Mapping[str, str]) -> Configuration | None:
        """Return the configuration that the environment describes; null if it describes none.

        Raise `connectors.settings.SettingsError` if it describes one that cannot be used.
        """
        ...

    async def check(self, configuration: Configuration, clock: Clock) -> Checked:
        """Test the connection within ten seconds, without changing anything in the external system."""
        ...


class UsesBudget(Protocol):
    """An API budget: its use can be measured, and another process may have used it."""

    def taken_over(self) -> None:
        """Start no call until what a former owner has started has left the window."""
        ...

    @property
    def used_ratio(self) -> float:
        """Return the used share of the budget, from 0 to 1."""
        ...


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """The client of a connection: its ports, which share an API budget."""

    source: PropertySource
    gateway: PropertyGateway
    budget: UsesBudget


class SourceSystem(System, Protocol):
    """A property management system."""

    def open(self, configuration: Configuration, clock: Clock, random: randomness.Random) -> OpenedSource:
        """Open a client with its own API budget; closing the source closes all of it.

        Raise `connectors.settings.SettingsError` if it cannot be used.
        """
        ...

    def reader(self, org: str, connection: str, configuration: Configuration, *, enabled: bool) -> WebhookReader:
        """Return the reader of a connection's webhooks."""
        ...

    def connection(self, org: str, name: str, configuration: Configuration, *, enabled: bool) -> Connection:
        """Return the properties of a connection that the flows need."""
        ...

    def account_of(self, body: bytes) -> int | None:
        """Return the account id in an unverified webhook body; null if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a receiver gets a snapshot of everything, changed or not."""

    cron: str
    """Five fields: minute, hour, day of the month, month, day of the week."""
    timezone: str
    """IANA name."""


class SinkSystem(System, Protocol):
    """A listing receiver."""

    def schedule(self, configuration: Configuration) -> Schedule | None:
        """Return when it gets regular snapshots; null for never.

        Raise `connectors.settings.SettingsError` if the configuration cannot be used.
        """
        ...

    def form(self, configuration: Configuration) -> str:
        """Return a name for the form of batches, empty for the usual one: another form needs a snapshot of everything.

        Raise `connectors.settings.SettingsError` if the configuration cannot be used.
        """
        ...

    def open(self, name: str, configuration: Configuration, clock: Clock) -> ListingSink:
        """Open a client. Raise `connectors.settings.SettingsError` if the configuration cannot be used."""
        ...
