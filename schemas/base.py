"""The base class of every record, frozen, and the scalar types that records share."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Self

import msgspec


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A record: immutable, on a topic or in a row of a table.

    The class is the only hand-written schema; Avro follows from it (`schemas.avro`). A new field needs a default, so
    that what was written before it stays readable. A subclass repeats the options ``frozen`` and ``kw_only``. Values
    are validated where they come from outside: when a record is decoded, or by `model_validate`.
    """

    @classmethod
    def model_validate(cls, given: Mapping[str, Any]) -> Self:
        """Return the record of these fields. Raise `msgspec.ValidationError`."""
        return msgspec.convert({name: _plain(value) for name, value in given.items()}, cls, strict=False)

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """Return the record with other values of some fields, which are not validated."""
        return msgspec.structs.replace(self, **update)


_AS_THEY_ARE = (datetime, date, Decimal, bytes)


def _plain(value: Any) -> Any:
    """Return a value in the form that msgspec converts from: other records inside it as dictionaries."""
    return msgspec.to_builtins(value, builtin_types=_AS_THEY_ARE)


class Row(Model, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=False):
    """A record that is a row of a table, or a part of one: it is read and written by this project only.

    So it is written as msgpack, a tenth of the cost of Avro; fields with their default are left out. What former
    releases wrote as Avro is still read, and a field that a former release had is ignored.
    """


@dataclass(frozen=True, slots=True)
class Digits:
    """How many digits a Decimal has, and how many of them are decimal places."""

    max_digits: int
    decimal_places: int


Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""A point in time, aware; to the microsecond, and in UTC once it was decoded."""

Money = Annotated[Decimal, Digits(14, 2)]
"""An amount in the currency of the property's country, never a float."""

Half = Annotated[Decimal, Digits(5, 2)]
"""A count that knows halves (bathrooms)."""


class EntityKind(StrEnum):
    """What a PMS keeps, as far as a rent roll needs it."""

    UNKNOWN = "unknown"
    PROPERTY = "property"
    UNIT = "unit"
    LEASE = "lease"
    TENANT = "tenant"
    LISTING = "listing"
