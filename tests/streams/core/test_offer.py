"""What is offered of a property, read from its rows."""

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import fields

from connectors.ports import LeasingRules
from schemas.base import EntityKind
from schemas.delivery import Doubt, OfferedProperty, OfferedUnit, UnitState
from schemas.rent_roll import ListingSnapshot, MoveOut, PropertySnapshot, PropertyType
from streams.core.offer import Offer, digest, offer
from tests.streams.core.rent_roll.rolls import building, end, fold, lease, page, swept, unit
from tests.streams.core.views import MemoryView

DAY = date(2026, 3, 10)
HOUSE = PropertySnapshot(
    id=10,
    name="Sunset Apartments",
    address_line1="1 Main St",
    city="Calgary",
    state="AB",
    postal_code="T2P",
    country="Canada",
    type=PropertyType.HOUSE,
)


def roll(property_as: PropertySnapshot = HOUSE, *more: Any) -> MemoryView:
    """Return a swept account: one property, one vacant unit, and more pages."""
    view = swept()
    fold(view, page(EntityKind.PROPERTY, 10, property_as), *more)
    return view


def read(view: MemoryView, property_id: int = 10, day: date = DAY, **more: Any) -> Offer:
    found = offer(view, "default", "buildium", property_id, day, **more)
    assert found is not None
    return found


def test_nothing_is_offered_before_the_first_sweep_is_complete() -> None:
    """A unit whose lease was not read yet looks vacant."""
    view = MemoryView()
    fold(view, page(EntityKind.PROPERTY, 2, HOUSE, sweep="s1"), page(EntityKind.UNIT, 3, unit(), sweep="s1"))
    assert offer(view, "default", "buildium", 10, DAY) is None
    fold(
        view,
        page(EntityKind.LEASE, 4, sweep="s1"),
        page(EntityKind.LISTING, 5, sweep="s1"),
        end(1, 1, 1, 1),
    )
    assert [one.id for one in read(view).units] == [1]


def test_nothing_is_offered_of_what_was_never_fetched() -> None:
    """Neither an unknown property, nor one of another account, nor one that only its unit names."""
    view = roll(HOUSE, page(EntityKind.UNIT, 11, unit(5, property_id=77)))
    assert offer(view, "default", "buildium", 99, DAY) is None
    assert offer(view, "default", "buildium", 77, DAY) is None
    assert offer(view, "default", "other", 10, DAY) is None
    assert offer(view, "other", "buildium", 10, DAY) is None


@pytest.mark.parametrize("kind", PropertyType)
def test_a_commercial_property_is_offered_like_an_inactive_one(kind: PropertyType) -> None:
    """So that what was sent of it before becomes unavailable. Other types have the dwelling type that follows."""
    found = offer(roll(HOUSE.model_copy(update={"type": kind})), "default", "buildium", 10, DAY)
    assert found is not None
    (offered,) = found.units
    assert found.property.is_active is (kind is not PropertyType.COMMERCIAL)
    assert (offered.state is UnitState.UNAVAILABLE) is (kind is PropertyType.COMMERCIAL)
    assert offered.dwelling_type == {PropertyType.APARTMENT: "Apartment", PropertyType.HOUSE: "House"}.get(kind)


@pytest.mark.parametrize(
    ("parts", "address"),
    [
        ({}, "1 Main St, Calgary, AB"),
        ({"city": None}, "1 Main St, AB"),
        ({"address_line1": None, "state": ""}, "Calgary"),
        ({"address_line1": None, "city": None, "state": None}, ""),
    ],
)
def test_an_address_is_line_city_and_state(parts: dict[str, Any], address: str) -> None:
    """In this order, without what is unknown."""
    assert read(roll(HOUSE.model_copy(update=parts))).property == OfferedProperty(
        id=10, name="Sunset Apartments", address=address, is_active=True
    )


def test_a_unit_is_offered_with_what_is_known_of_it() -> None:
    view = roll(
        HOUSE,
        page(
            EntityKind.UNIT,
            11,
            unit(building="North", bedrooms=Decimal(2), bathrooms=Decimal("1.5"), size=850, rent=1500),
        ),
        page(EntityKind.LISTING, 12, ListingSnapshot(unit_id=1, property_id=10, rent=Decimal(1650))),
    )
    assert read(view).units == (
        OfferedUnit(
            id=1,
            code="1",
            building="North",
            state=UnitState.AVAILABLE,
            status="vacant_unrented_ready",
            is_available=True,
            available_on=DAY,
            when_available="Immediate",
            base_rent=Decimal(1650),
            size=850,
            bedrooms=Decimal(2),
            bathrooms=Decimal("1.5"),
            dwelling_type="House",
        ),
    )


@pytest.mark.parametrize(
    ("features", "garage", "pets"),
    [
        ((), None, None),
        (("GarageParking",), True, None),
        (("PetsAllowed",), None, 1),
        (("DogFriendly", "GarageParking"), True, 1),
        (("CatFriendly",), None, 1),
        (("AirConditioning", "View"), None, None),
    ],
)
def test_features_of_a_listing_are_offered(features: tuple[str, ...], garage: bool | None, pets: int | None) -> None:
    """Null where no feature states it, never false."""
    view = roll(HOUSE, page(EntityKind.LISTING, 12, ListingSnapshot(unit_id=1, property_id=10, features=features)))
    (offered,) = read(view).units
    assert (offered.has_garage, offered.pets_allowed) == (garage, pets)


def test_units_come_in_the_order_of_their_ids_and_only_those_that_were_fetched() -> None:
    """A unit that only a lease refers to is not offered yet."""
    view = roll(
        HOUSE,
        page(EntityKind.UNIT, 11, unit(3), unit(2)),
        page(EntityKind.LEASE, 12, lease(unit_id=9)),
    )
    assert [one.id for one in read(view).units] == [1, 2, 3]


def test_a_unit_that_moved_is_offered_where_it_is_now() -> None:
    view = roll(HOUSE, page(EntityKind.PROPERTY, 11, building(20)), page(EntityKind.UNIT, 12, unit(1, property_id=20)))
    assert [one.id for one in read(view, 10).units] == []
    assert [one.id for one in read(view, 20).units] == [1]


def test_a_unit_that_is_gone_is_offered_as_removed() -> None:
    """On every further day: the row of the delivery knows whether the receiver has it."""
    (offered,) = read(roll(HOUSE, page(EntityKind.UNIT, 11, gone=(1,)))).units
    assert (offered.state, offered.is_available, offered.when_available) == (UnitState.REMOVED, False, None)


def test_a_property_that_is_gone_takes_its_units_with_it() -> None:
    found = read(roll(HOUSE, page(EntityKind.PROPERTY, 11, gone=(10,))))
    assert not found.property.is_active
    assert [one.state for one in found.units] == [UnitState.REMOVED]


def test_the_units_of_an_inactive_property_are_unavailable() -> None:
    """But one that is gone stays removed."""
    asleep = HOUSE.model_copy(update={"is_active": False})
    found = read(roll(asleep, page(EntityKind.UNIT, 11, unit(2)), page(EntityKind.UNIT, 12, gone=(2,))))
    assert not found.property.is_active
    assert [one.state for one in found.units] == [UnitState.UNAVAILABLE, UnitState.REMOVED]


@pytest.mark.parametrize("active", [True, False])
def test_an_excluded_property_is_offered_like_an_inactive_one(active: bool) -> None:
    """Its removed units stay removed."""
    more = page(EntityKind.UNIT, 11, unit(2)), page(EntityKind.UNIT, 12, gone=(2,))
    view = roll(HOUSE.model_copy(update={"is_active": active}), *more)
    excluded = read(view, excluded=True)
    assert excluded == read(roll(HOUSE.model_copy(update={"is_active": False}), *more))
    assert not excluded.property.is_active
    assert [one.state for one in excluded.units] == [UnitState.UNAVAILABLE, UnitState.REMOVED]


def test_the_days_to_make_a_unit_ready_are_added_to_its_move_out() -> None:
    leaving = lease(move_outs=(MoveOut(tenant_id=7, on=date(2026, 5, 31)),))
    view = roll(HOUSE, page(EntityKind.LEASE, 11, leaving))
    days = {ready: read(view, rules=LeasingRules(make_ready_days=ready)).units[0].available_on for ready in (0, 5)}
    assert days == {0: date(2026, 6, 1), 5: date(2026, 6, 6)}
    assert read(view).units[0].available_on == days[0]


def test_doubts_are_named_with_their_unit() -> None:
    view = roll(HOUSE, page(EntityKind.UNIT, 11, unit(2, is_occupied=True)))
    assert read(view).doubts == ((2, (Doubt.OCCUPANCY_FLAG,)),)


# --------------------------------------------------------------------------------------------------------- the digest

UNIT_STATES = OfferedProperty(id=10, name="Sunset Apartments", address="1 Main St, Calgary, AB", is_active=True)
UNIT = OfferedUnit(
    id=1,
    code="101",
    building="North",
    state=UnitState.AVAILABLE,
    status="notice_unrented",
    is_available=True,
    available_on=date(2026, 6, 1),
    when_available="June",
    base_rent=Decimal("1500.00"),
    size=850,
    bedrooms=Decimal("2.00"),
    bathrooms=Decimal("1.50"),
    dwelling_type="House",
    view="City",
    has_garage=True,
    pets_allowed=1,
)
OTHER: dict[str, Any] = {
    "state": UnitState.RENTED,
    "is_available": False,
    "available_on": date(2026, 6, 2),
    "base_rent": Decimal("1500.01"),
    "bedrooms": Decimal("3.00"),
    "bathrooms": Decimal("2.00"),
    "has_garage": False,
    "size": 851,
    "pets_allowed": 2,
    "id": 2,
}


OPTIONAL = {field.name for field in fields(OfferedUnit) if not field.required}


@pytest.mark.parametrize("name", [name for name in OfferedUnit.__struct_fields__ if name != "status"])
def test_whatever_a_receiver_gets_of_a_unit_changes_its_digest(name: str) -> None:
    """The value, and whether it is known at all."""
    others = [OTHER.get(name, "another")]
    if name in OPTIONAL:
        others.append(None)
    digests = {
        digest(UNIT_STATES, UNIT),
        *(digest(UNIT_STATES, UNIT.model_copy(update={name: other})) for other in others),
    }
    assert len(digests) == len(others) + 1
    assert {len(one) for one in digests} == {8}


@pytest.mark.parametrize(("name", "other"), [("id", 11), ("name", "S"), ("address", "2"), ("is_active", False)])
def test_a_change_of_the_property_changes_the_digest_of_each_unit(name: str, other: Any) -> None:
    assert digest(UNIT_STATES, UNIT) != digest(UNIT_STATES.model_copy(update={name: other}), UNIT)


def test_the_finer_status_does_not_change_the_digest() -> None:
    """Receivers get four states only."""
    finer = UNIT.model_copy(update={"status": "vacant_unrented_ready"})
    assert digest(UNIT_STATES, UNIT) == digest(UNIT_STATES, finer)


def test_a_unit_that_is_free_at_once_has_one_digest_on_every_day() -> None:
    """Else every vacant unit would be sent every morning."""
    view = roll()
    days = [DAY + timedelta(days) for days in (0, 1, 2, 30, 400)]
    found = [read(view, day=day) for day in days]
    assert [one.units[0].available_on for one in found] == days
    assert len({digest(one.property, one.units[0]) for one in found}) == 1


def test_a_unit_on_notice_has_one_digest_until_it_is_free() -> None:
    """The month and the date are those of the day on which it comes free."""
    leaving = lease(move_outs=(MoveOut(tenant_id=7, on=date(2026, 5, 31)),))
    view = roll(HOUSE, page(EntityKind.LEASE, 11, leaving))
    found = [read(view, day=date(2026, 3, 10) + timedelta(days)) for days in range(83)]
    assert {one.units[0].when_available for one in found} == {"June"}
    assert len({digest(one.property, one.units[0]) for one in found}) == 1


def test_some_units_of_a_property_are_offered_as_they_are_among_all() -> None:
    """One that is of another property is not."""
    view = roll(HOUSE, page(EntityKind.UNIT, 11, unit(2), unit(3), unit(4, property_id=11)))
    whole = read(view)

    assert read(view, units={3, 1, 4, 9}) == Offer(whole.property, (whole.units[0], whole.units[2]), mark=whole.mark)


def test_the_next_day_on_which_a_unit_changes_is_part_of_the_offer() -> None:
    """According to the rules of the connection; not of a unit, or a property, that is gone or left the scope."""
    on = date(2026, 3, 20)
    ends = lease(move_outs=(MoveOut(tenant_id=7, on=on),))
    view = roll(HOUSE, page(EntityKind.UNIT, 11, unit(2)), page(EntityKind.LEASE, 12, ends))

    assert read(view).changes == ((1, date(2026, 3, 21)),)
    assert read(view, day=on + timedelta(days=1), rules=LeasingRules(make_ready_days=5)).changes == (
        (1, date(2026, 3, 26)),
    )
    assert read(view, day=date(2030, 1, 1)).changes == ()
    assert read(view, excluded=True).changes == ()
    fold(view, page(EntityKind.UNIT, 20, gone=(1,)))
    assert read(view).changes == ()
