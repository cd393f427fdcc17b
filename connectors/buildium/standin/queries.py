"""Queries of the stand-in's lists: filters, sort order, offset and limit.

A filter of Buildium that the stand-in does not have is answered with 501, so that a test cannot rely on it by mistake.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final

from connectors.buildium.standin.entities import Json
from connectors.buildium.standin.portfolio import LEASE, LISTING, PROPERTY, TENANT, UNIT, Portfolio
from schemas.base import EntityKind

Query = Mapping[str, Sequence[str]]
Keep = Callable[[Portfolio, Any], bool]

_COMMON: Final = frozenset({"orderby", "offset", "limit"})
_UPDATED: Final = frozenset({"lastupdatedfrom", "lastupdatedto"})

KNOWN: Final[Mapping[EntityKind, frozenset[str]]] = {
    PROPERTY: _COMMON | _UPDATED | {"location", "types", "subtypes", "status", "rentalownerids", "propertyids"},
    UNIT: _COMMON | _UPDATED | {"propertyids"},
    LEASE: _COMMON
    | _UPDATED
    | {"propertyids", "rentalownerids", "unitnumber", "tenantname", "leasedatefrom", "leasedateto", "leasetypes"}
    | {"leasestatuses", "createddatetimefrom", "createddatetimeto"},
    TENANT: _COMMON
    | _UPDATED
    | {"propertyids", "rentalownerids", "unitids", "unitnumber", "name", "phone", "email", "buildingstatuses"}
    | {"leasetermstatuses"},
    LISTING: _COMMON | {"entitytype", "entityid"},
}


class Refusal(Exception):  # noqa: N818 - an error response, not an error of the program
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def check_names(kind: EntityKind, query: Query) -> None:
    """Raise `Refusal` for a parameter in the wrong case, which is answered with 404; ignore unknown parameters."""
    known = KNOWN[kind]
    for name in query:
        if name not in known and name.lower() in known:
            raise Refusal(404, "")


def select(portfolio: Portfolio, kind: EntityKind, query: Query) -> Sequence[int]:
    """Return the ids that match the filters of a query, in its sort order."""
    filters = {name: values for name, values in query.items() if name in KNOWN[kind] - _COMMON}
    order = (query.get("orderby") or [""])[-1]
    if kind is LEASE and set(filters) == {"leasestatuses"} and set(filters["leasestatuses"]) == {"Active", "Future"}:
        found = portfolio.live_leases()
    elif filters:
        keep = _tests(kind, filters)
        entities = portfolio.entities(kind)
        found = [number for number in portfolio.ids(kind) if all(test(portfolio, entities[number]) for test in keep)]
    else:
        found = portfolio.ids(kind)
    return _ordered(portfolio, kind, found, order)


def window(query: Query) -> tuple[int, int]:
    """Return offset and limit; the default limit is 50, and a limit of more than 1000 becomes 1000."""
    offset, limit = _integer(query, "offset", 0), _integer(query, "limit", 50)
    if offset < 0 or limit < 1:
        raise Refusal(400, "The offset must not be negative and the limit must be positive.")
    return offset, min(limit, 1000)


def _integer(query: Query, name: str, default: int) -> int:
    value = (query.get(name) or [str(default)])[-1]
    if not re.fullmatch(r"-?\d{1,9}", value, re.ASCII):
        raise Refusal(400, f"The value of {name} is not a number.")
    return int(value)


# --------------------------------------------------------------------------------------------------------------- order


def _ordered(portfolio: Portfolio, kind: EntityKind, ids: Sequence[int], order: str) -> Sequence[int]:
    """Sort ids by the fields of ``orderby``; without it, return them in an order that no client can rely on."""
    if not order:
        return sorted(ids, key=lambda number: number * 2_654_435_761 & 0xFFFF_FFFF)
    unique = "unit.id" if kind is LISTING else "id"
    if re.fullmatch(rf"{re.escape(unique)}( asc)?", order.strip(), re.IGNORECASE):
        return ids
    rows = {number: portfolio.json(kind, number) for number in ids}
    found = list(ids)
    for part in reversed(order.split(",")):
        name, _, direction = part.strip().partition(" ")
        if direction.strip().lower() not in {"", "asc", "desc"}:
            raise Refusal(400, f"The sort direction of {name} is invalid.")
        keys = {number: _value(row, name) for number, row in rows.items()}
        found.sort(key=keys.__getitem__, reverse=direction.strip().lower() == "desc")
    return found


def _value(row: Json, name: str) -> tuple[bool, Any]:
    """Return the sort key of a field, whose name is case-insensitive and may be nested (``Unit.Id``); null first."""
    value: Any = row
    for part in name.split("."):
        fields = {key.lower(): key for key in value} if isinstance(value, dict) else {}
        if part.lower() not in fields:
            raise Refusal(400, f"The result has no property {name} to sort by.")
        value = value[fields[part.lower()]]
    if isinstance(value, (dict, list)):
        raise Refusal(400, f"The property {name} cannot be sorted by.")
    return (value is not None, value if value is not None else "")


# -------------------------------------------------------------------------------------------------------------- filters


def _tests(kind: EntityKind, filters: Query) -> list[Keep]:
    table = _FILTERS[kind]
    for name in filters:
        if name not in table:
            raise Refusal(501, f"This stand-in does not have the filter {name}.")
    return [table[name](values) for name, values in filters.items()]


def _ids(values: Iterable[str]) -> set[int]:
    try:
        return {int(value) for value in values}
    except ValueError:
        raise Refusal(400, "An id in the query is not a number.") from None


def _since(values: Sequence[str]) -> Keep:
    at = _moment(values[-1])
    return lambda _, entity: bool(entity.updated_at.replace(microsecond=0) >= at)


def _until(values: Sequence[str]) -> Keep:
    at = _moment(values[-1])
    return lambda _, entity: bool(entity.updated_at.replace(microsecond=0) <= at)


def _moment(value: str) -> datetime:
    try:
        return datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise Refusal(422, "A time in the query must be in UTC and look like 2025-01-31T12:00:00Z.") from None


def _day(value: str) -> date:
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise Refusal(400, "A date in the query is invalid.") from None


def _one_of(values: Sequence[str], allowed: Iterable[str]) -> set[str]:
    if not set(values) <= set(allowed):
        raise Refusal(400, "A value in the query is not one of its enumeration.")
    return set(values)


def _by_status(values: Sequence[str]) -> Keep:
    active = _one_of(values, {"Active", "InActive"}) == {"Active"}
    return lambda _, rental: rental.is_active is active


def _by_lease_status(values: Sequence[str]) -> Keep:
    wanted = _one_of(values, {"Active", "Past", "Future"})
    return lambda of, lease: of.lease_status(lease) in wanted


def _by_lease_type(values: Sequence[str]) -> Keep:
    wanted = _one_of(values, {"None", "Fixed", "FixedWithRollover", "AtWill"})
    return lambda _, lease: lease.type in wanted


def _by_sub_type(values: Sequence[str]) -> Keep:
    return lambda _, rental: rental.sub_type in values


def _by_location(values: Sequence[str]) -> Keep:
    part = values[-1].lower()
    return lambda _, rental: part in rental.address.city.lower() or part in rental.address.state.lower()


def _by_property(values: Sequence[str]) -> Keep:
    wanted = _ids(values)
    return lambda _, rental: rental.id in wanted


def _by_property_of_unit(values: Sequence[str]) -> Keep:
    wanted = _ids(values)
    return lambda _, unit: unit.property_id in wanted


def _by_property_of_lease(values: Sequence[str]) -> Keep:
    wanted = _ids(values)
    return lambda of, lease: of.units[lease.unit_id].property_id in wanted


def _by_unit_number(values: Sequence[str]) -> Keep:
    return lambda of, lease: values[-1].lower() in of.units[lease.unit_id].number.lower()


def _starts_from(values: Sequence[str]) -> Keep:
    day = _day(values[-1])
    return lambda _, lease: bool(lease.starts_on >= day)


def _ends_until(values: Sequence[str]) -> Keep:
    day = _day(values[-1])
    return lambda _, lease: lease.ends_on is not None and bool(lease.ends_on <= day)


def _by_entity_of_listing(values: Sequence[str]) -> Keep:
    wanted = _ids(values)
    return lambda of, listing: of.units[listing.unit_id].property_id in wanted


def _by_entity_type(values: Sequence[str]) -> Keep:
    if values[-1] != "Property":
        raise Refusal(501, "This stand-in filters listings by property only.")
    return lambda _, __: True


UPDATED: Final[Mapping[str, Callable[[Sequence[str]], Keep]]] = {"lastupdatedfrom": _since, "lastupdatedto": _until}
"""The filters by the time of the last update, both inclusive."""

_FILTERS: Final[Mapping[EntityKind, Mapping[str, Callable[[Sequence[str]], Keep]]]] = {
    PROPERTY: {
        "propertyids": _by_property,
        "status": _by_status,
        "subtypes": _by_sub_type,
        "location": _by_location,
        **UPDATED,
    },
    UNIT: {"propertyids": _by_property_of_unit, **UPDATED},
    LEASE: {
        "propertyids": _by_property_of_lease,
        "leasestatuses": _by_lease_status,
        "leasetypes": _by_lease_type,
        "unitnumber": _by_unit_number,
        "leasedatefrom": _starts_from,
        "leasedateto": _ends_until,
        **UPDATED,
    },
    TENANT: {**UPDATED},
    LISTING: {"entitytype": _by_entity_type, "entityid": _by_entity_of_listing},
}
