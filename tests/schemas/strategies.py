"""Arbitrary records, built from the models; and arbitrary data, built from an Avro schema."""

import types
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeVar, get_args, get_origin

import msgspec
from hypothesis import strategies as st

from schemas.avro import hints_of
from schemas.base import Digits, Model

R = TypeVar("R", bound=Model)

LONGS = st.integers(-(2**63), 2**63 - 1)
INSTANTS = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 -- hypothesis adds the zone
ZONED = st.builds(lambda at, hours: at.astimezone(timezone(timedelta(hours=hours))), INSTANTS, st.integers(-12, 14))


def defstruct(name: str, fields: list[Any]) -> type[Model]:
    """A record with these fields: name and type, and its default if it has one."""
    made: Any = msgspec.defstruct(name, fields, bases=(Model,), frozen=True, kw_only=True)
    return made  # type: ignore[no-any-return]


def records(record: type[R]) -> st.SearchStrategy[R]:
    """Any record of a class."""
    return st.builds(record, **{info.name: _of(hint, []) for info, hint in hints_of(record)})


def _of(hint: Any, metadata: list[Any]) -> st.SearchStrategy[Any]:  # noqa: PLR0911 -- a table of kinds
    if hasattr(hint, "__metadata__"):
        return _of(hint.__origin__, [*metadata, *hint.__metadata__])
    if get_origin(hint) is types.UnionType or type(None) in get_args(hint):
        (inner,) = (option for option in get_args(hint) if option is not type(None))
        return st.none() | _of(inner, metadata)
    if get_origin(hint) is tuple:
        return st.lists(_of(get_args(hint)[0], []), max_size=3).map(tuple)
    if hint is Decimal:
        (digits,) = (one for one in metadata if isinstance(one, Digits))
        return amounts(digits.max_digits, digits.decimal_places)
    if issubclass(hint, StrEnum):
        return st.sampled_from(list(hint))
    if issubclass(hint, Model):
        return records(hint)
    scalars: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: LONGS,
        str: st.text(max_size=8),
        bytes: st.binary(max_size=8),
        datetime: ZONED,
        date: st.dates(),
    }
    return scalars[hint]


def amounts(digits: int, places: int) -> st.SearchStrategy[Decimal]:
    """Every Decimal of so many digits, some of them written with fewer places than they may have."""
    top = 10**digits - 1
    exact = st.integers(-top, top).map(lambda units: Decimal(units).scaleb(-places))
    whole = st.integers(-(10 ** (digits - places) - 1), 10 ** (digits - places) - 1).map(Decimal)
    return exact | whole


def data(schema: Any, named: dict[str, Any] | None = None) -> st.SearchStrategy[Any]:  # noqa: PLR0911 -- a table of kinds
    """Any value that a writer of this schema can write."""
    named = {} if named is None else named
    if isinstance(schema, list):
        return st.one_of([data(branch, named) for branch in schema])
    if isinstance(schema, str):
        plain = {
            "null": st.none(),
            "boolean": st.booleans(),
            "long": LONGS,
            "string": st.text(max_size=8),
            "bytes": st.binary(max_size=8),
        }
        return plain[schema] if schema in plain else data(named[schema], named)
    if "name" in schema:
        named[f"{schema['namespace']}.{schema['name']}"] = schema
    match schema:
        case {"logicalType": "timestamp-micros"}:
            return INSTANTS
        case {"logicalType": "date"}:
            return st.dates()
        case {"logicalType": "decimal", "precision": precision, "scale": scale}:
            return amounts(precision, scale)
        case {"type": "enum", "symbols": symbols}:
            return st.sampled_from(symbols)
        case {"type": "array", "items": items}:
            return st.lists(data(items, named), max_size=3)
        case {"type": "record", "fields": fields}:
            return st.fixed_dictionaries({field["name"]: data(field["type"], named) for field in fields})
    raise TypeError(f"no data for {schema}")
