"""The base class of every record, frozen and closed, and the scalar types that records share."""

from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Model(BaseModel):
    """A record: immutable, on a topic or in a row of a table.

    The class is the only hand-written schema; Avro follows from it (`schemas.avro`). A new field needs a default, so
    that what was written before it stays readable.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


def _to_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a point in time needs its zone")
    return value if value.tzinfo is UTC else value.astimezone(UTC)


Instant = Annotated[datetime, AfterValidator(_to_utc)]
"""A point in time, aware, kept in UTC to the microsecond."""

Money = Annotated[Decimal, Field(max_digits=14, decimal_places=2)]
"""An amount in the currency of the property's country, never a float."""

Half = Annotated[Decimal, Field(max_digits=5, decimal_places=2)]
"""A count that knows halves (bathrooms)."""


class EntityKind(StrEnum):
    """What a PMS keeps, as far as a rent roll needs it."""

    UNKNOWN = "unknown"
    PROPERTY = "property"
    UNIT = "unit"
    LEASE = "lease"
    TENANT = "tenant"
    LISTING = "listing"
