"""Tests of the request bodies of RentSync."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from connectors.rentsync.payload import FIELDS, SHAPES, encode, property_shape
from connectors.rentsync.standin import problems
from schemas.delivery import BatchMode, UnitState
from tests.connectors.sink_suite import batch, unit

GOLDEN = Path(__file__).parent / "golden"


def test_the_documented_example_of_a_full_property_is_reproduced() -> None:
    """The body equals the documented example, except for white space."""
    golden = json.loads((GOLDEN / "property.json").read_text(encoding="utf-8"))
    rented = unit(12346, "102", UnitState.RENTED, base_rent=Decimal(2100))

    body = encode(batch(unit(), rented), "property", "aigent")

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
    body = encode(batch(unit(base_rent=amount)), "property", "rentstream")

    assert f'"base_rent":{written}}}'.encode() in body


@pytest.mark.parametrize("state", list(UnitState))
def test_every_state_has_a_documented_status_name(state: UnitState) -> None:
    """Each state has one of the four names, and only an available unit has the name Available."""
    unit_body = property_shape(batch(unit(state=state)), "rentstream", everything=False)["units"][0]

    assert unit_body["status_name"] in {"Available", "Rented", "Unavailable", "Removed"}
    assert (unit_body["status_name"] == "Available") is unit_body["is_available"]


def test_attempt_mode_and_version_do_not_change_the_bytes() -> None:
    """Fields that change between attempts are not in the body."""
    first = batch()
    again = batch(attempt=3, mode=BatchMode.DELTA, version=9, seen_at=first.cut_at)

    assert encode(first, "property", "s") == encode(again, "property", "s")


def test_sent_bodies_pass_the_validation_of_the_stand_in() -> None:
    """Bodies with and without units are valid by the rules of the stand-in."""
    for sent in (batch(), batch(units=()), batch(unit(base_rent=None), unit(2, "", UnitState.REMOVED))):
        assert list(problems(json.loads(encode(sent, "property", "rentstream")))) == []


# ------------------------------------------------------------------------------------------------- the other shapes

WHOLE = unit(
    building="A",
    when_available="Immediate",
    size=750,
    bedrooms=Decimal(1),
    bathrooms=Decimal(1),
    dwelling_type="Apartment",
    view="City View",
    has_garage=True,
    pets_allowed=1,
)


@pytest.mark.parametrize("shape", ["unit", "flat"])
def test_the_documented_examples_are_reproduced_member_for_member(shape: str) -> None:
    """In their order, with null for what none of our sources has; the lead is left out."""
    golden = json.loads((GOLDEN / f"{shape}.json").read_text(encoding="utf-8"))
    assert encode(batch(WHOLE), shape, "aigent") == json.dumps(golden, separators=(",", ":")).encode()


def test_several_units_of_shape_unit_are_a_list() -> None:
    body = json.loads(encode(batch(unit(1), unit(2)), "unit", "aigent"))
    assert list(body) == ["sync_metadata", "units"]
    assert [one["unit_id"] for one in body["units"]] == [1, 2]
    assert body["sync_metadata"]["source"] == "aigent"


@pytest.mark.parametrize(("bedrooms", "words"), [(None, None), ("0", "Studio"), ("1", "1 Bed"), ("2.5", "2.5 Bed")])
def test_the_type_of_a_unit_follows_from_its_bedrooms(bedrooms: str | None, words: str | None) -> None:
    one = unit(bedrooms=None if bedrooms is None else Decimal(bedrooms))
    assert json.loads(encode(batch(one), "unit", "s"))["type"] == words


def test_all_fields_add_what_is_known() -> None:
    """What is not known is left out, except for what the guide calls nullable."""
    core, full = (json.loads(encode(batch(WHOLE, unit(2)), "property", "s", fields)) for fields in ("core", "all"))
    assert full["sync_metadata"] == core["sync_metadata"] | {"mode": "snapshot", "unit_count": 2}
    assert full["property"] == core["property"] | {"is_actived": True}
    assert full["units"][0] == core["units"][0] | {
        "building": "A",
        "type": "1 Bed",
        "dwelling_type": "Apartment",
        "status_id": 1,
        "when_available": "Immediate",
        "size_sqft": 750,
        "bedrooms": 1.0,
        "bathrooms": 1.0,
        "view": "City View",
        "has_garage": True,
        "pets_allowed": 1,
        "price_amortized": None,
    }
    assert set(full["units"][1]) - set(core["units"][1]) == {"status_id", "price_amortized"}


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_combination_is_valid_for_the_stand_in(shape: str, fields: str) -> None:
    for sent in (batch(WHOLE), batch(WHOLE, unit(2)), batch(unit(base_rent=None), unit(2, "", UnitState.REMOVED))):
        assert list(problems(json.loads(encode(sent, shape, "rentstream", fields)))) == []


@pytest.mark.parametrize("shape", SHAPES)
def test_the_stand_in_names_what_is_wrong_in_every_shape(shape: str) -> None:
    body = json.loads(encode(batch(WHOLE, unit(2)), shape, "s"))
    first = body["units"][0]
    del first["unit_code"]
    first["wrong"] = 1
    if shape == "unit":
        first["status"]["name"] = "Sold"
        pointer = "#/units/0/status/name"
    else:
        first["status_name"] = "Sold"
        pointer = "#/units/0/status_name"
    assert {where for where, _ in problems(body)} == {"#/units/0/unit_code", "#/units/0/wrong", pointer}
