"""Offers to send."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from schemas.delivery import OfferedProperty, OfferedUnit, UnitState
from streams.core.offer import Offer

NOW = datetime(2026, 3, 1, 12, 30, 15, tzinfo=UTC)


def offered(number: int = 1, rent: int = 1500, state: UnitState = UnitState.AVAILABLE, **more: Any) -> OfferedUnit:
    free = state is UnitState.AVAILABLE
    given = {
        "id": number,
        "code": f"{number}",
        "state": state,
        "status": state.value,
        "is_available": free,
        "available_on": NOW.date() if free else None,
        "when_available": "Immediate" if free else None,
        "base_rent": Decimal(rent),
    }
    return OfferedUnit.model_validate(given | more)


def offer_of(*units: OfferedUnit, number: int = 10, active: bool = True, name: str = "Sunset Apartments") -> Offer:
    return Offer(OfferedProperty(id=number, name=name, address="1 Main St, Calgary, AB", is_active=active), units)
