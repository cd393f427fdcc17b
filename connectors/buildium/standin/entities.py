"""The events and entities of the stand-in of Buildium, and a mapping that creates entities on demand."""

import json
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final, Generic, TypeVar

COMMERCIAL: Final = frozenset({"Industrial", "Office", "Retail", "ShoppingCenter", "Storage", "ParkingSpace"})
LONG_AGO: Final = datetime(2024, 1, 1, tzinfo=UTC)

Json = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event:
    """A webhook event: its name, the ids in its body, and the time of the change."""

    name: str
    ids: Mapping[str, int]
    occurred_at: datetime

    def body(self, account: int) -> bytes:
        """Return the body of the webhook: compact JSON, with seven digits after the second."""
        at = self.occurred_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "0Z"
        event = {"EventName": self.name, "EventDateTime": at, "AccountId": account, **self.ids}
        return json.dumps(event, separators=(",", ":")).encode()


Events = tuple[Event, ...]


@dataclass(slots=True)
class Address:
    """A postal address."""

    line1: str
    city: str
    state: str
    postal_code: str
    country: str = "Canada"

    def json(self, line2: str | None = None) -> Json:
        return {
            "AddressLine1": self.line1,
            "AddressLine2": line2,
            "AddressLine3": None,
            "City": self.city,
            "State": self.state,
            "PostalCode": self.postal_code,
            "Country": self.country,
        }


@dataclass(slots=True)
class Property:
    """A rental property."""

    id: int
    name: str
    address: Address
    sub_type: str = "MultiFamily"
    is_active: bool = True
    year_built: int | None = None
    features: tuple[str, ...] = ()
    updated_at: datetime = LONG_AGO


@dataclass(slots=True)
class Unit:
    """A rental unit."""

    id: int
    property_id: int
    number: str
    building: str | None = None
    market_rent: Decimal | None = None
    bedrooms: str | None = "OneBed"
    bathrooms: str | None = "OneBath"
    size: int | None = None
    description: str | None = None
    features: tuple[str, ...] = ()
    updated_at: datetime = LONG_AGO


@dataclass(slots=True)
class Tenant:
    """A tenant. All of its data is personal and must not leave the connector."""

    id: int
    first_name: str
    last_name: str
    email: str
    phone: str
    updated_at: datetime = LONG_AGO


@dataclass(slots=True)
class Occupant:
    """A tenant on a lease; ``moves_out_on`` is set by a notice to vacate."""

    tenant_id: int
    moves_in_on: date
    moves_out_on: date | None = None
    notice_given: date | None = None


@dataclass(slots=True)
class Lease:
    """A lease of a unit."""

    id: int
    unit_id: int
    starts_on: date
    ends_on: date | None = None
    type: str = "Fixed"
    rent: Decimal | None = None
    occupants: list[Occupant] = field(default_factory=list)
    automatic_move_out: bool = False
    eviction_pending: bool = False
    renewal: str | None = "NotSet"
    ended: bool = False
    created_at: datetime = LONG_AGO
    updated_at: datetime = LONG_AGO


@dataclass(slots=True)
class Listing:
    """The listing of a unit."""

    unit_id: int
    rent: Decimal
    available_on: date
    listed_on: date
    features: tuple[str, ...] = ()
    is_managed_externally: bool = False


@dataclass(slots=True)
class Owner:
    """An owner of properties, a person or a company."""

    id: int
    first_name: str = ""
    last_name: str = ""
    company_name: str = ""
    email: str | None = None
    property_ids: tuple[int, ...] = ()
    is_active: bool = True
    updated_at: datetime = LONG_AGO

    @property
    def is_company(self) -> bool:
        return bool(self.company_name)


class Generated(MutableMapping[int, T], Generic[T]):
    """A mapping that creates entities on access, so that 100,000 of them need no memory; edited ones are stored."""

    def __init__(self, ids: Sequence[int], has: Callable[[int], bool], create: Callable[[int], T]) -> None:
        self._ids = ids
        self._has = has
        self._create = create
        self._stored: dict[int, T] = {}
        self._removed: set[int] = set()

    def __getitem__(self, number: int) -> T:
        if number in self._stored:
            return self._stored[number]
        if number in self._removed or not self._has(number):
            raise KeyError(number)
        return self._create(number)

    def __setitem__(self, number: int, value: T) -> None:
        self._stored[number] = value
        self._removed.discard(number)

    def __delitem__(self, number: int) -> None:
        if number not in self:
            raise KeyError(number)
        self._stored.pop(number, None)
        self._removed.add(number)

    def __contains__(self, number: object) -> bool:
        return number in self._stored or (isinstance(number, int) and number not in self._removed and self._has(number))

    def __iter__(self) -> Iterator[int]:
        if not self._removed and not self._stored:
            return iter(self._ids)
        added = (number for number in self._stored if not self._has(number))
        return iter([*(number for number in self._ids if number not in self._removed), *added])

    def __len__(self) -> int:
        return sum(1 for _ in self)


_FIRST: Final = (
    "Ada",
    "Ben",
    "Chi",
    "Dora",
    "Emre",
    "Fern",
    "Gus",
    "Hana",
    "Ivo",
    "June",
    "Kofi",
    "Lena",
    "Milo",
    "Noor",
)
_LAST: Final = ("Abbott", "Boyer", "Castellan", "Dhillon", "Eriksen", "Fontaine", "Gill", "Hughes", "Ito", "Janzen")


def person(number: int) -> Tenant:
    """Return a tenant with fictitious personal data."""
    first, last = _FIRST[number % len(_FIRST)], _LAST[number // len(_FIRST) % len(_LAST)]
    email = f"{first}.{last}.{number}@tenant.example".lower()
    return Tenant(number, first, last, email, f"403-555-{number % 10_000:04}")
