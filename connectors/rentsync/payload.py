"""Encoding of a batch as a RentSync request body. Pure: the same batch gives the same bytes in every attempt.

The shapes are those of chapter 4 of the guide: `unit` (4.1), `property` (4.2) and `flat` (4.3). The receiver's own
terms ("project", "status_name") are used in this module only.
"""

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from schemas.delivery import Batch, OfferedUnit, UnitState

STATUS_NAMES: Final[Mapping[UnitState, str]] = {
    UnitState.AVAILABLE: "Available",
    UnitState.RENTED: "Rented",
    UnitState.UNAVAILABLE: "Unavailable",
    UnitState.REMOVED: "Removed",
    UnitState.UNKNOWN: "Unavailable",  # written by a newer version; a unit in an unknown state must not be offered
}
STATUS_IDS: Final[Mapping[str, int]] = {"Available": 1, "Rented": 2, "Unavailable": 3, "Removed": 4}

Body = dict[str, Any]


def property_shape(batch: Batch, source: str, *, everything: bool) -> Body:
    """Return one property with its units (4.2); with ``everything`` also what chapter 2 has besides."""
    more = {"mode": batch.mode.value, "unit_count": len(batch.units)} if everything else {}
    building: Body = {
        "project_id": batch.property.id,
        "project_name": batch.property.name,
        "address": batch.property.address,
    }
    if everything:
        building["is_actived"] = batch.property.is_active
    return {
        "sync_metadata": _metadata(batch, source) | more,
        "property": building,
        "units": [
            {
                "unit_id": unit.id,
                "unit_code": unit.code,
                "status_name": STATUS_NAMES[unit.state],
                "is_available": unit.is_available,
                "base_rent": _number(unit.base_rent),
            }
            | (_rest(unit) if everything else {})
            for unit in batch.units
        ],
    }


def flat_shape(batch: Batch, source: str, *, everything: bool) -> Body:
    """Return one row for each unit (4.3); with ``everything`` also what chapter 2 has besides."""
    del source  # this shape has no place for it
    return {
        "sync_timestamp": _timestamp(batch),
        "units": [
            {
                "property_id": batch.property.id,
                "unit_id": unit.id,
                "unit_code": unit.code,
                "status_id": STATUS_IDS[STATUS_NAMES[unit.state]],
                "status_name": STATUS_NAMES[unit.state],
                "is_available": unit.is_available,
                "base_rent": _number(unit.base_rent),
                "bedrooms": _number(unit.bedrooms),
                "bathrooms": _number(unit.bathrooms),
            }
            | (_rest(unit) if everything else {})
            for unit in batch.units
        ],
    }


def unit_shape(batch: Batch, source: str, *, everything: bool) -> Body:
    """Return the units with all that is known of each (4.1): one alone as it is, several in a list."""
    del everything  # each has every member in any case
    units = [_whole(batch, unit) for unit in batch.units]
    return units[0] if len(units) == 1 else {"sync_metadata": _metadata(batch, source), "units": units}


def _metadata(batch: Batch, source: str) -> Body:
    return {"sync_id": batch.sync_id, "sync_timestamp": _timestamp(batch), "source": source}


def _timestamp(batch: Batch) -> str:
    return batch.cut_at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _rest(unit: OfferedUnit) -> Body:
    """Return what chapter 2 has of a unit besides the examples; the unknown is left out, unless it is nullable."""
    known = {
        "building": unit.building,
        "type": _type(unit.bedrooms),
        "dwelling_type": unit.dwelling_type,
        "status_id": STATUS_IDS[STATUS_NAMES[unit.state]],
        "when_available": unit.when_available,
        "size_sqft": unit.size,
        "bedrooms": _number(unit.bedrooms),
        "bathrooms": _number(unit.bathrooms),
        "view": unit.view,
        "has_garage": unit.has_garage,
        "pets_allowed": unit.pets_allowed,
    }
    return {name: value for name, value in known.items() if value is not None} | {"price_amortized": None}


def _whole(batch: Batch, unit: OfferedUnit) -> Body:
    """Return a unit with every member of 4.1, null where it is not known. No source names a lead."""
    name = STATUS_NAMES[unit.state]
    return {
        "unit_id": unit.id,
        "project_id": batch.property.id,
        "project_name": batch.property.name,
        "property_address": batch.property.address,
        "unit_code": unit.code,
        "building": unit.building,
        "floor": None,
        "floorplan": None,
        "type": _type(unit.bedrooms),
        "dwelling_type": unit.dwelling_type,
        "status": {"id": STATUS_IDS[name], "name": name},
        "availability": {"is_available": unit.is_available, "when_available": unit.when_available},
        "pricing": {"base_rent": _number(unit.base_rent), "price_amortized": None},
        "specifications": {
            "size_sqft": unit.size,
            "bedrooms": _number(unit.bedrooms),
            "bathrooms": _number(unit.bathrooms),
            "dens": None,
        },
        "attributes": {
            "exposure": None,
            "view": unit.view,
            "has_garage": unit.has_garage,
            "pets_allowed": unit.pets_allowed,
        },
        "sync_timestamp": _timestamp(batch),
    }


def _type(bedrooms: Decimal | None) -> str | None:
    """Return the type of a unit in the words of the guide (``1 Bed``)."""
    if bedrooms is None:
        return None
    return f"{bedrooms:f} Bed" if bedrooms else "Studio"


def _number(amount: Decimal | None) -> float | None:
    """Return a JSON number that always has a fraction (``1500.0``); a float is exact for up to fourteen digits."""
    return None if amount is None else float(amount)


Shape = Callable[..., Body]
"""Arguments: the batch, the name of the source, and by name whether ``everything`` is wanted."""

SHAPES: Final[Mapping[str, Shape]] = {"property": property_shape, "unit": unit_shape, "flat": flat_shape}
"""The shapes of `RENTSYNC_SHAPE`."""

FIELDS: Final[Mapping[str, bool]] = {"core": False, "all": True}
"""The values of `RENTSYNC_FIELDS`: whether everything is wanted."""


def encode(batch: Batch, shape: str, source: str, fields: str = "core") -> bytes:
    """Return the request body of a batch as UTF-8 JSON; ``shape`` is of `SHAPES`, ``fields`` of `FIELDS`."""
    body = SHAPES[shape](batch, source, everything=FIELDS[fields])
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
