"""The ports: what the flows ask of the outside, and how it may answer. A connector implements one or more of them.

Every answer is a value; a port raises for nothing that the outside can do.
"""

import random as randomness
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import IntEnum
from typing import Literal, Protocol
from zoneinfo import ZoneInfo

from pydantic import JsonValue, SecretStr

from schemas.base import EntityKind
from schemas.delivery import Batch
from schemas.integrations import CheckResult, CheckStatus, EntityAccess, IntegrationMode, IntegrationRole
from schemas.pms import FetchRequest
from schemas.rent_roll import LeaseSnapshot, ListingSnapshot, PropertySnapshot, UnitSnapshot

Snapshot = PropertySnapshot | UnitSnapshot | LeaseSnapshot | ListingSnapshot


class Clock(Protocol):
    """Time as a parameter, so that a test can move it."""

    def now(self) -> datetime:
        """Aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None: ...


# --------------------------------------------------------------------------------------------- how the outside fails


@dataclass(frozen=True, slots=True)
class Throttled:
    """429: too many calls; everyone slows down. ``retry_after`` in seconds, if the outside said so."""

    detail: str
    retry_after: float | None = None
    status: int | None = 429


@dataclass(frozen=True, slots=True)
class Unavailable:
    """408, 425, 5xx or the network: worth another attempt. ``status`` is null where nothing answered."""

    detail: str
    status: int | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Unauthorized:
    """401, 403: a person has to mend the credentials or their permissions."""

    detail: str
    status: int | None = 401


@dataclass(frozen=True, slots=True)
class Missing:
    """404, 410 of a whole endpoint: a person has to mend the address."""

    detail: str
    status: int | None = 404


@dataclass(frozen=True, slots=True)
class Rejected:
    """400, 422 and every other 4xx: the same request will never be taken."""

    detail: str
    status: int | None = None


Failure = Throttled | Unavailable | Unauthorized | Missing | Rejected


# ------------------------------------------------------------------------------------------------------ the PMS reads


class Priority(IntEnum):
    """Who goes first on a connection's API budget."""

    COMMAND = 0
    WEBHOOK = 1
    SWEEP = 2


@dataclass(frozen=True, slots=True)
class Found:
    """An entity as it is now."""

    kind: EntityKind
    id: int
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Gone:
    """The PMS answered that this entity is not there (404); for a listing: the unit is not listed."""

    kind: EntityKind
    id: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one call brought: one entity, or those that the named one leads to (a tenant's leases)."""

    items: tuple[Found | Gone, ...]


@dataclass(frozen=True, slots=True)
class PageOf:
    """One page of a list. ``total`` is what the PMS says how many entities the whole list has.

    ``rows`` counts what the PMS sent; ``items`` may be fewer where a row is of no use to a rent roll.
    """

    items: tuple[Found, ...]
    rows: int
    total: int


class PropertySource(Protocol):
    """Reads entities of one connection of a PMS. Patience, auth, rate and concurrency are the connector's business."""

    async def fetch(
        self, kind: EntityKind, entity: int, priority: Priority = Priority.WEBHOOK
    ) -> Fetched | Failure: ...

    async def page(self, kind: EntityKind, offset: int, priority: Priority = Priority.SWEEP) -> PageOf | Failure:
        """The page of at most ``page_size`` entities after the first ``offset`` in the order of their ids."""
        ...

    @property
    def page_size(self) -> int: ...

    async def aclose(self) -> None: ...


# ----------------------------------------------------------------------------------------------------- the PMS speaks


@dataclass(frozen=True, slots=True)
class Refused:
    """A webhook that is not taken: the HTTP status to answer, and why, for a person."""

    status: int
    detail: str


class WebhookReader(Protocol):
    """Turns a PMS's webhook request into a notice, or says why not. Pure: time is passed in."""

    def read(self, headers: Sequence[tuple[bytes, bytes]], body: bytes, now: datetime) -> FetchRequest | Refused:
        """``headers`` as ASGI has them: lower-case names."""
        ...


# ------------------------------------------------------------------------------------------------------- the receiver


@dataclass(frozen=True, slots=True)
class Accepted:
    """2xx: the receiver has it."""

    status: int
    seconds: float = 0.0


class ListingSink(Protocol):
    """Delivers batches to one receiver of an org."""

    @property
    def name(self) -> str: ...

    async def deliver(self, batch: Batch) -> Accepted | Failure: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Connection:
    """One set of credentials for one PMS account of one org."""

    org: str
    name: str
    system: str
    enabled: bool
    timezone: str
    """IANA name of the calendar in which dates of its properties are read."""
    make_ready_days: int = 0
    """Days that a unit needs between a move-out and the next move-in."""

    def day(self, now: datetime) -> date:
        """Return the calendar date at its properties."""
        return now.astimezone(ZoneInfo(self.timezone)).date()


# ------------------------------------------------------------------------------------------------------ integrations


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings and decrypted secrets of one integration; its repr shows no secret.

    Names are in camelCase, as the API has them. An absent setting has its default.
    """

    settings: Mapping[str, JsonValue] = field(default_factory=dict)
    secrets: Mapping[str, tuple[SecretStr, ...]] = field(default_factory=dict)
    """Newest first; only a field with ``several`` may have more than one."""
    mode: IntegrationMode = IntegrationMode.PRODUCTION


@dataclass(frozen=True, slots=True)
class Field:
    """One setting or secret that a system takes."""

    name: str
    """camelCase; `RENTSYNC_USER_AGENT` of the environment is ``userAgent``."""
    env: str
    """Name in the environment."""
    kind: Literal["setting", "secret"]
    description: str
    """What is allowed, as the end of a sentence."""
    required: bool = False
    several: bool = False
    """Whether it may have several values at once (webhook secrets during a rotation)."""
    default: JsonValue = None


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field of a configuration."""

    pointer: str
    """JSON pointer into the body of ``PUT /api/integrations/{name}`` (``/settings/baseUrl``, ``/secrets/token``)."""
    detail: str
    """What is wrong and what is allowed; never the value of a secret."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome of a connection test."""

    checks: tuple[CheckResult, ...]
    access: tuple[EntityAccess, ...] = ()
    account: int | None = None
    """The account's id in the PMS, if the test could read it."""

    @property
    def passed(self) -> bool:
        """Return whether every required check passed."""
        return all(check.status is CheckStatus.PASSED for check in self.checks if check.required)


class System(Protocol):
    """A kind of integration: one row of `connectors.registry`. Stateless; clients are opened by `SourceSystem.open`."""

    @property
    def name(self) -> str:
        """Return the name on records, metrics and paths (``buildium``)."""
        ...

    @property
    def title(self) -> str:
        """Return the name for people (``Buildium``)."""
        ...

    @property
    def role(self) -> IntegrationRole: ...

    @property
    def fields(self) -> tuple[Field, ...]: ...

    def errors(self, configuration: Configuration) -> tuple[FieldError, ...]:
        """Return everything that is wrong with a configuration; nothing if it can be used."""
        ...

    def environment(self, env: Mapping[str, str]) -> Configuration | None:
        """Return what the environment describes, null if it describes none.

        Raise `connectors.settings.SettingsError` if it describes one that cannot be used.
        """
        ...

    async def check(self, configuration: Configuration, clock: Clock) -> Checked:
        """Test the connection without changing anything, within ten seconds."""
        ...


class UsesBudget(Protocol):
    """Tells how much of an API budget is in use."""

    @property
    def used_ratio(self) -> float:
        """Return the used part, 0 to 1."""
        ...


class SourceSystem(System, Protocol):
    """A property management system."""

    def open(
        self, configuration: Configuration, clock: Clock, random: randomness.Random
    ) -> tuple[PropertySource, UsesBudget]:
        """Open a client with an API budget of its own. Raise `connectors.settings.SettingsError`."""
        ...

    def reader(self, org: str, connection: str, configuration: Configuration, *, enabled: bool) -> WebhookReader:
        """Return the reader of a connection's webhooks."""
        ...

    def connection(self, org: str, name: str, configuration: Configuration, *, enabled: bool) -> Connection:
        """Return what the flows have to know of a connection."""
        ...

    def account_of(self, body: bytes) -> int | None:
        """Return the account that an unverified webhook body names; null if it names none."""
        ...


class SinkSystem(System, Protocol):
    """A listing receiver."""

    def open(self, name: str, configuration: Configuration, clock: Clock) -> ListingSink:
        """Open a client. Raise `connectors.settings.SettingsError`."""
        ...
