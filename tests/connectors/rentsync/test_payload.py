"""RentSync's form of a batch."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from connectors.rentsync.payload import encode, property_shape
from connectors.rentsync.standin import problems
from schemas.delivery import BatchMode, UnitState
from tests.connectors.sink_suite import batch, unit

GOLDEN = Path(__file__).parent / "golden"


def test_the_full_property_of_the_guide_is_reproduced() -> None:
    """The guide's own example comes out byte for byte, but for its blanks."""
    golden = json.loads((GOLDEN / "property.json").read_text(encoding="utf-8"))
    rented = unit(12346, "102", UnitState.RENTED, base_rent=Decimal(2100))

    body = encode(batch(unit(), rented), property_shape, "aigent")

    assert body == json.dumps(golden, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        (Decimal(1500), "1500.0"),
        (Decimal("1500.00"), "1500.0"),
        (Decimal("0.00"), "0.0"),
        (Decimal("1299.99"), "1299.99"),
        (Decimal("999999999999.99"), "999999999999.99"),
        (None, "null"),
    ],
)
def test_rent_is_a_number_or_null(amount: Decimal | None, written: str) -> None:
    """Rent is a JSON number with a fraction, to the cent; null where nobody knows it."""
    body = encode(batch(unit(base_rent=amount)), property_shape, "rentstream")

    assert f'"base_rent":{written}}}'.encode() in body


@pytest.mark.parametrize("state", list(UnitState))
def test_every_state_has_a_name_that_the_receiver_knows(state: UnitState) -> None:
    """No state leaves without one of the four names, and only an available unit is called so."""
    said = property_shape(batch(unit(state=state)), "rentstream")["units"][0]

    assert said["status_name"] in {"Available", "Rented", "Unavailable", "Removed"}
    assert (said["status_name"] == "Available") is said["is_available"]


def test_what_cannot_change_the_content_does_not_change_the_bytes() -> None:
    """The attempt, the mode and the finer times are not in the body."""
    first = batch()
    again = batch(attempt=3, mode=BatchMode.DELTA, version=9, seen_at=first.cut_at)

    assert encode(first, property_shape, "s") == encode(again, property_shape, "s")


def test_the_stand_in_and_the_sender_agree() -> None:
    """What is sent is what the stand-in's own rules want, also with no units."""
    for sent in (batch(), batch(units=()), batch(unit(base_rent=None), unit(2, "", UnitState.REMOVED))):
        assert list(problems(json.loads(encode(sent, property_shape, "rentstream")))) == []
