"""A batch in RentSync's own form, as bytes. Pure: the same batch gives the same bytes, on every attempt.

The receiver's words ("project", "status_name") live here and nowhere else.
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
    UnitState.UNKNOWN: "Unavailable",  # a state that a newer version wrote: nothing that we do not know is offered
}


def property_shape(batch: Batch, source: str) -> Mapping[str, Any]:
    """One property with its units: what the receiver's guide calls a full property."""
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
    """A JSON number that always has a fraction (``1500.0``); a float holds an amount of fourteen digits exactly."""
    return None if amount is None else float(amount)


Shape = Callable[[Batch, str], Mapping[str, Any]]

SHAPES: Final[Mapping[str, Shape | None]] = {"property": property_shape, "unit": None, "flat": None}
"""Every shape that `RENTSYNC_SHAPE` may name; null: it is not built yet."""


def encode(batch: Batch, shape: Shape, source: str) -> bytes:
    """The body of the POST."""
    return json.dumps(shape(batch, source), ensure_ascii=False, separators=(",", ":")).encode()
