"""Avro schemas, derived from the records, so that no schema is written twice.

Mapping: ``Decimal`` bytes/decimal, ``datetime`` timestamp-micros, ``date`` date, ``StrEnum`` enum whose first symbol
``unknown`` is the default, ``X | None`` a union with null, ``tuple[X, ...]`` array, nested records by name.
"""

import types
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Union, get_args, get_origin, get_type_hints

from msgspec import NODEFAULT
from msgspec.structs import FieldInfo, fields

from schemas.base import Digits, Model, Row

NAMESPACE = "rentstream"
ROWS = "rentstream.rows"
"""The namespace of what is written as msgpack: its fingerprints must not be those of Avro."""

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


class Names:
    """The namespace of a schema, and the names that are defined in it."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.defined: set[str] = set()

    def refer(self, name: str) -> str | None:
        """Return the full name of a type that was defined before; else null, and it is defined from now on."""
        if name in self.defined:
            return f"{self.namespace}.{name}"
        self.defined.add(name)
        return None


def schema_of(record: type[Model], namespace: str | None = None) -> Schema:
    """Return the Avro schema of a record class, nested records in place at their first use.

    ``namespace``: another one than that of the class, `ROWS` or `NAMESPACE`.
    """
    own = ROWS if issubclass(record, Row) else NAMESPACE
    schema: Schema = _record(record, Names(namespace or own))
    return schema


def _record(record: type[Model], named: Names) -> Any:
    name = record.__name__
    if before := named.refer(name):
        return before
    return {
        "type": "record",
        "name": name,
        "namespace": named.namespace,
        "fields": [_field(info, hint, named) for info, hint in hints_of(record)],
    }


def hints_of(record: type[Model]) -> list[tuple[FieldInfo, Any]]:
    """Return the fields of a record, each with its type as it is declared."""
    hints = get_type_hints(record, include_extras=True)
    return [(info, hints[info.name]) for info in fields(record)]


def _field(info: FieldInfo, hint: Any, named: Names) -> Schema:
    declared: Schema = {"name": info.name, "type": _type(hint, [], named)}
    if not info.required:
        declared["default"] = _default(info)
        if isinstance(declared["type"], list) and declared["default"] is not None:
            raise TypeError(f"{info}: what may be null is null by default, as Avro has it of the first of a union")
    return declared


def _default(info: FieldInfo) -> Any:
    """Return a default as JSON, as Avro requires it; bytes are written as ISO-8859-1 text."""
    if info.default is NODEFAULT:
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


def _type(hint: Any, metadata: list[Any], named: Names) -> Any:  # noqa: PLR0911 -- a table of kinds
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
    digits = next((one for one in metadata if isinstance(one, Digits)), None)
    if digits is None:
        raise TypeError("a Decimal needs Digits")
    return {"precision": digits.max_digits, "scale": digits.decimal_places}


def _enum(enum: type[StrEnum], named: Names) -> Any:
    if before := named.refer(enum.__name__):
        return before
    symbols = [member.value for member in enum]
    if symbols[0] != "unknown":
        raise TypeError(f"{enum.__name__}: its first member has to be UNKNOWN, what an older reader falls back to")
    return {
        "type": "enum",
        "name": enum.__name__,
        "namespace": named.namespace,
        "symbols": symbols,
        "default": "unknown",
    }
