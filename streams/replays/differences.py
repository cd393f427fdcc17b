"""What receivers will learn by the replay of deliveries: field by field, against what they acknowledged last."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import asdict

from schemas import topics
from schemas.codec import DecodeError, UnknownWriter, decode_as
from schemas.delivery import Batch, OfferedUnit
from schemas.replay import PlannedDifference
from streams.backends.ports import Backend
from streams.view.queries import Item, Queries

COMPARED: Final = 20
"""Deliveries of a plan that are compared."""

SHOWN: Final = 200
"""Differences of a plan."""

BATCHES: Final = 50
"""Acknowledged batches of a property in which its units are looked for."""

FIELDS: Final[Mapping[str, str]] = {
    "code": "code",
    "building": "building",
    "state": "state",
    "isAvailable": "is_available",
    "availableOn": "available_on",
    "whenAvailable": "when_available",
    "rent": "base_rent",
    "size": "size",
    "bedrooms": "bedrooms",
    "bathrooms": "bathrooms",
}
"""Fields of the rent roll, and their names in what a receiver is offered."""


@dataclass(frozen=True, slots=True, order=True)
class Delivery:
    """A property at a receiver."""

    receiver: str
    connection: str
    property_id: int


async def differences(
    queries: Queries, backend: Backend, org: str, deliveries: Iterable[Delivery]
) -> tuple[int, tuple[PlannedDifference, ...]]:
    """Return how many deliveries were compared, and what differs.

    Raise `streams.view.database.ViewUnavailable` and `streams.backends.ports.BackendError`.
    """
    chosen = sorted(set(deliveries))[:COMPARED]
    found: list[PlannedDifference] = []
    for one in chosen:
        units = await asyncio.to_thread(queries.unknown_units, org, one.receiver, one.connection, one.property_id)
        if units:
            known = await _acknowledged(queries, backend, org, one, {unit["unitId"] for unit in units})
            for unit in units:
                found += _of_unit(one, unit, known.get(unit["unitId"]))
    return len(chosen), tuple(found[:SHOWN])


Known = tuple[Batch, OfferedUnit]


async def _acknowledged(
    queries: Queries, backend: Backend, org: str, one: Delivery, wanted: set[int]
) -> Mapping[int, Known]:
    """Return the last content of each unit that the receiver acknowledged, as far as it is still on its topic."""
    places = await asyncio.to_thread(queries.acknowledged, org, one.receiver, one.connection, one.property_id, BATCHES)
    found: dict[int, Known] = {}
    for partition in {partition for partition, _ in places}:
        offsets = sorted(offset for number, offset in places if number == partition)
        records = await backend.read(topics.BATCHES.name, partition, offsets)
        for _, record in sorted(records.items(), reverse=True):
            try:
                batch = decode_as(Batch, record.value)
            except (DecodeError, UnknownWriter):
                continue
            for unit in batch.units:
                if unit.id in wanted:
                    found.setdefault(unit.id, (batch, unit))
    return found


def _of_unit(one: Delivery, unit: Item, known: Known | None) -> Iterator[PlannedDifference]:
    """Yield what differs of a unit."""

    def differs(field: str, before: Any, now: Any) -> PlannedDifference:
        return PlannedDifference(
            receiver=one.receiver,
            connection=one.connection,
            property_id=one.property_id,
            unit_id=unit["unitId"],
            field=field,
            known=_text(before),
            now=_text(now),
        )

    if known is None:
        yield differs("unit", None, unit["code"])
        return
    batch, offered = known
    before = asdict(offered)
    pairs = [(name, before[theirs], unit[name]) for name, theirs in FIELDS.items()]
    pairs += [("propertyName", batch.property.name, unit["propertyName"])]
    pairs += [("address", batch.property.address, unit["address"])]
    changed = [pair for pair in pairs if _text(pair[1]) != _text(pair[2])]
    if not changed:
        yield differs("other", None, None)
    for field, earlier, now in changed:
        yield differs(field, earlier, now)


def _text(value: Any) -> str | None:
    """Return a value as text: a number without zeros at its end, so that equal values have equal texts."""
    if value is None:
        return None
    text = str(getattr(value, "value", value))
    return text.rstrip("0").rstrip(".") if "." in text and text.replace(".", "").isdigit() else text
