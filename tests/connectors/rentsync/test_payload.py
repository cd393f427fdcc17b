"""Tests of the request bodies of RentSync."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from connectors.rentsync.payload import encode, property_shape
from connectors.rentsync.standin import problems
from schemas.delivery import BatchMode, UnitState
from tests.connectors.sink_suite import batch, unit

GOLDEN = Path(__file__).parent / "golden"


def test_the_documented_example_of_a_full_property_is_reproduced() -> None:
    """The body equals the documented example, except for white space."""
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
    """Rent is a JSON number with a fraction, exact to the cent; null if it is not known."""
    body = encode(batch(unit(base_rent=amount)), property_shape, "rentstream")

    assert f'"base_rent":{written}}}'.encode() in body


@pytest.mark.parametrize("state", list(UnitState))
def test_every_state_has_a_documented_status_name(state: UnitState) -> None:
    """Each state has one of the four names, and only an available unit has the name Available."""
    unit_body = property_shape(batch(unit(state=state)), "rentstream")["units"][0]

    assert unit_body["status_name"] in {"Available", "Rented", "Unavailable", "Removed"}
    assert (unit_body["status_name"] == "Available") is unit_body["is_available"]


def test_attempt_mode_and_version_do_not_change_the_bytes() -> None:
    """Fields that change between attempts are not in the body."""
    first = batch()
    again = batch(attempt=3, mode=BatchMode.DELTA, version=9, seen_at=first.cut_at)

    assert encode(first, property_shape, "s") == encode(again, property_shape, "s")


def test_sent_bodies_pass_the_validation_of_the_stand_in() -> None:
    """Bodies with and without units are valid by the rules of the stand-in."""
    for sent in (batch(), batch(units=()), batch(unit(base_rent=None), unit(2, "", UnitState.REMOVED))):
        assert list(problems(json.loads(encode(sent, property_shape, "rentstream")))) == []
