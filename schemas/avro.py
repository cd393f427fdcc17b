"""Avro schemas, derived from the records, so that no schema is written twice.

Mapping: ``Decimal`` bytes/decimal, ``datetime`` timestamp-micros, ``date`` date, ``StrEnum`` enum whose first symbol
``unknown`` is the default, ``X | None`` a union with null, ``tuple[X, ...]`` array, nested records by name.
"""

import types
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from schemas.base import Model

NAMESPACE = "rentstream"

Schema = dict[str, Any]

_SCALARS: dict[type, Any] = {
    bool: "boolean",
    int: "long",
    float: "double",
    str: "string",
    bytes: "bytes",
    datetime: {"type": "long", "logicalType": "timestamp-micros"},
    date: {"type": "int", "logicalType": "date"},
}


def schema_of(record: type[Model]) -> Schema:
    """Return the Avro schema of a record class, nested records in place at their first use."""
    schema: Schema = _record(record, set())
    return schema


def _record(record: type[Model], named: set[str]) -> Any:
    name = record.__name__
    if name in named:
        return f"{NAMESPACE}.{name}"
    named.add(name)
    return {
        "type": "record",
        "name": name,
        "namespace": NAMESPACE,
        "fields": [_field(key, info, named) for key, info in record.model_fields.items()],
    }


def _field(name: str, info: FieldInfo, named: set[str]) -> Schema:
    declared: Schema = {"name": name, "type": _type(info.annotation, [*info.metadata], named)}
    if not info.is_required():
        declared["default"] = _default(info)
        if isinstance(declared["type"], list) and declared["default"] is not None:
            raise TypeError(f"{info}: what may be null is null by default, as Avro has it of the first of a union")
    return declared


def _default(info: FieldInfo) -> Any:
    """Return a default as JSON, as Avro requires it; bytes are written as ISO-8859-1 text."""
    if info.default is PydanticUndefined:
        raise TypeError(f"{info}: a default factory cannot be written into a schema")
    return _json(info.default)


def _json(value: Any) -> Any:
    match value:
        case StrEnum():
            return value.value
        case bytes():
            return value.decode("latin-1")
        case tuple():
            return [_json(one) for one in value]
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"{value!r}: no way is agreed to write such a default into a schema")


def _type(hint: Any, metadata: list[Any], named: set[str]) -> Any:  # noqa: PLR0911 -- a table of kinds
    if hasattr(hint, "__metadata__"):
        return _type(hint.__origin__, [*metadata, *hint.__metadata__], named)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        inner = [option for option in get_args(hint) if option is not types.NoneType]
        if len(inner) != 1:
            raise TypeError(f"{hint}: only X | None is a union that both ends can resolve")
        return ["null", _type(inner[0], metadata, named)]
    if origin is tuple:
        items, *rest = get_args(hint)
        if rest != [...]:
            raise TypeError(f"{hint}: only a tuple of one kind, tuple[X, ...], is an array")
        return {"type": "array", "items": _type(items, [], named)}
    if hint is Decimal:
        return {"type": "bytes", "logicalType": "decimal", **_digits(metadata)}
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _enum(hint, named)
    if isinstance(hint, type) and issubclass(hint, Model):
        return _record(hint, named)
    if hint in _SCALARS:
        return _SCALARS[hint]
    raise TypeError(f"{hint}: no Avro type is agreed for it")


def _digits(metadata: list[Any]) -> Schema:
    flat = [part for item in metadata for part in (getattr(item, "metadata", None) or [item])]
    precision = next((m.max_digits for m in flat if getattr(m, "max_digits", None)), None)
    scale = next((m.decimal_places for m in flat if getattr(m, "decimal_places", None) is not None), None)
    if precision is None or scale is None:
        raise TypeError("a Decimal needs max_digits and decimal_places")
    return {"precision": precision, "scale": scale}


def _enum(enum: type[StrEnum], named: set[str]) -> Any:
    if enum.__name__ in named:
        return f"{NAMESPACE}.{enum.__name__}"
    named.add(enum.__name__)
    symbols = [member.value for member in enum]
    if symbols[0] != "unknown":
        raise TypeError(f"{enum.__name__}: its first member has to be UNKNOWN, what an older reader falls back to")
    return {
        "type": "enum",
        "name": enum.__name__,
        "namespace": NAMESPACE,
        "symbols": symbols,
        "default": "unknown",
    }
