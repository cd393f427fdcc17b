"""Encoding of a batch as a RentSync request body. Pure: the same batch gives the same bytes in every attempt.

The receiver's own terms ("project", "status_name") are used in this module only.
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


def property_shape(batch: Batch, source: str) -> Mapping[str, Any]:
    """Return one property with its units, the form that RentSync documents as a full property."""
    return {
        "sync_metadata": {
            "sync_id": batch.sync_id,
            "sync_timestamp": batch.cut_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "source": source,
        },
        "property": {
            "project_id": batch.property.id,
            "project_name": batch.property.name,
            "address": batch.property.address,
        },
        "units": [_unit(unit) for unit in batch.units],
    }


def _unit(unit: OfferedUnit) -> Mapping[str, Any]:
    return {
        "unit_id": unit.id,
        "unit_code": unit.code,
        "status_name": STATUS_NAMES[unit.state],
        "is_available": unit.is_available,
        "base_rent": _number(unit.base_rent),
    }


def _number(amount: Decimal | None) -> float | None:
    """Return a JSON number that always has a fraction (``1500.0``); a float is exact for up to fourteen digits."""
    return None if amount is None else float(amount)


Shape = Callable[[Batch, str], Mapping[str, Any]]

SHAPES: Final[Mapping[str, Shape | None]] = {"property": property_shape, "unit": None, "flat": None}
"""The shapes that `RENTSYNC_SHAPE` documents; null if a shape is not available yet."""


def encode(batch: Batch, shape: Shape, source: str) -> bytes:
    """Return the request body of a batch as UTF-8 JSON."""
    return json.dumps(shape(batch, source), ensure_ascii=False, separators=(",", ":")).encode()
