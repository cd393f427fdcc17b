"""The ports: what the flows ask of the outside, and how it may answer. A connector implements one or more of them.

Every answer is a value; a port raises for nothing that the outside can do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Protocol

from schemas.base import EntityKind
from schemas.delivery import Batch
from schemas.pms import Notice
from schemas.rent_roll import LeaseSnapshot, ListingSnapshot, PropertySnapshot, UnitSnapshot

Snapshot = PropertySnapshot | UnitSnapshot | LeaseSnapshot | ListingSnapshot

SWEEP_STAGES = (EntityKind.PROPERTY, EntityKind.UNIT, EntityKind.LEASE, EntityKind.LISTING)
"""The order in which a sweep reads an account: parents first."""


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
    NOTICE = 1
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

    async def fetch(self, kind: EntityKind, entity: int, priority: Priority = Priority.NOTICE) -> Fetched | Failure: ...

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

    def read(self, headers: Sequence[tuple[bytes, bytes]], body: bytes, now: datetime) -> Notice | Refused:
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
