"""Tests of the mapping of Buildium's JSON: enums, invalid values and personal data."""

import json
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.buildium.mapping import day, money, read_list, read_one, snapshot, tenant_leases, text
from schemas.base import EntityKind
from schemas.rent_roll import (
    LeaseSnapshot,
    LeaseStatus,
    LeaseTenant,
    ListingSnapshot,
    MoveOut,
    PropertySnapshot,
    PropertyType,
    TenantStatus,
    UnitSnapshot,
)
from tests.connectors import SLOW_MACHINE

PROPERTY, UNIT, LEASE, LISTING = EntityKind.PROPERTY, EntityKind.UNIT, EntityKind.LEASE, EntityKind.LISTING

RENTAL = {
    "Id": 7,
    "Name": "  The Cedars ",
    "NumberUnits": 3,
    "IsActive": True,
    "Reserve": 100.5,
    "Address": {
        "AddressLine1": " 1 Main St ",
        "AddressLine2": "",
        "City": "Calgary",
        "State": "AB",
        "Country": "Canada",
    },
    "RentalType": "Residential",
    "RentalSubType": "MultiFamily",
    "RentalManager": {"Id": 1, "Email": "canary@manager.example"},
    "SomethingNew": {"x": [1]},
}
RENTAL_UNIT = {
    "Id": 70,
    "PropertyId": 7,
    "UnitNumber": " 007b ",
    "BuildingName": "",
    "MarketRent": 1850.1,
    "UnitBedrooms": "TwoBed",
    "UnitBathrooms": "OnePointFiveBath",
    "UnitSize": 812,
    "IsUnitListed": False,
    "IsUnitOccupied": True,
}
RENTAL_LEASE = {
    "Id": 700,
    "PropertyId": 7,
    "UnitId": 70,
    "LeaseFromDate": "2025-01-01",
    "LeaseToDate": "2025-12-31",
    "LeaseStatus": "Active",
    "IsEvictionPending": False,
    "RenewalOfferStatus": "Sent",
    "CurrentTenants": [{"Id": 2, "FirstName": "canary", "Email": "canary@tenant.example"}],
    "AccountDetails": {"Rent": 999.99},
    "AutomaticallyMoveOutTenants": True,
    "MoveOutData": [
        {"TenantId": 3, "MoveOutDate": "2025-12-01", "NoticeGivenDate": "2025-10-01"},
        {"TenantId": 2, "MoveOutDate": "2025-12-15", "NoticeGivenDate": None},
    ],
    "Tenants": [
        {"Id": 3, "Status": "Current", "MoveInDate": "2025-01-01"},
        {"Id": 2, "Status": "MovedOut", "MoveInDate": None},
    ],
}
RENTAL_LISTING = {
    "Rent": 1900.0,
    "AvailableDate": "2026-01-01",
    "Contact": {"Name": "canary"},
    "Property": {"Id": 7, "Features": ["Pool", "Elevator"]},
    "Unit": {"Id": 70, "Features": ["PetsAllowed", "Elevator"]},
}


def of(kind: EntityKind, row: dict[str, Any], **changes: Any) -> Any:
    found = read_one(kind, json.dumps(row | changes).encode())
    assert found is not None
    return snapshot(kind, found)


def test_a_property_is_mapped() -> None:
    assert of(PROPERTY, RENTAL) == PropertySnapshot(
        id=7,
        name="The Cedars",
        address_line1="1 Main St",
        city="Calgary",
        state="AB",
        postal_code=None,
        country="Canada",
        is_active=True,
        type=PropertyType.APARTMENT,
    )


def test_a_unit_is_mapped_with_case_and_leading_zeros_of_its_code() -> None:
    assert of(UNIT, RENTAL_UNIT) == UnitSnapshot(
        id=70,
        property_id=7,
        code="007b",
        building=None,
        market_rent=Decimal("1850.10"),
        bedrooms=Decimal(2),
        bathrooms=Decimal("1.5"),
        size=812,
        is_listed=False,
        is_occupied=True,
    )


def test_a_lease_is_mapped_with_its_tenants_in_order_and_without_its_rent() -> None:
    assert of(LEASE, RENTAL_LEASE) == LeaseSnapshot(
        id=700,
        property_id=7,
        unit_id=70,
        starts_on=date(2025, 1, 1),
        ends_on=date(2025, 12, 31),
        status=LeaseStatus.ACTIVE,
        ends_by_itself=True,
        eviction_pending=False,
        renewal="Sent",
        tenants=(
            LeaseTenant(id=2, status=TenantStatus.MOVED_OUT),
            LeaseTenant(id=3, status=TenantStatus.CURRENT, move_in=date(2025, 1, 1)),
        ),
        move_outs=(
            MoveOut(tenant_id=2, on=date(2025, 12, 15)),
            MoveOut(tenant_id=3, on=date(2025, 12, 1), notice_given=date(2025, 10, 1)),
        ),
    )


def test_a_listing_is_mapped_with_the_features_of_unit_and_property() -> None:
    assert of(LISTING, RENTAL_LISTING) == ListingSnapshot(
        unit_id=70,
        property_id=7,
        rent=Decimal("1900.00"),
        available_on=date(2026, 1, 1),
        features=("Elevator", "PetsAllowed", "Pool"),
    )


def test_no_personal_data_is_read() -> None:
    for kind, row in ((PROPERTY, RENTAL), (LEASE, RENTAL_LEASE), (LISTING, RENTAL_LISTING)):
        assert "canary" in json.dumps(row)
        assert "canary" not in repr(of(kind, row))
        assert "canary" not in repr(read_one(kind, json.dumps(row).encode()))


@pytest.mark.parametrize(
    ("name", "bedrooms"),
    [
        ("NotSet", None), ("Studio", 0), ("OneBed", 1), ("TwoBed", 2), ("ThreeBed", 3), ("FourBed", 4), ("FiveBed", 5),
        ("SixBed", 6), ("SevenBed", 7), ("EightBed", 8), ("NineBedPlus", 9), ("TwelveBed", None), (None, None),
        (3, None),
    ],
)  # fmt: skip
def test_bedrooms(name: Any, bedrooms: int | None) -> None:
    found = of(UNIT, RENTAL_UNIT, UnitBedrooms=name)
    assert (found.bedrooms, found.bedrooms_or_more) == (bedrooms, name == "NineBedPlus")


@pytest.mark.parametrize(
    ("name", "bathrooms"),
    [
        ("NotSet", None), ("OneBath", "1"), ("OnePointFiveBath", "1.5"), ("TwoBath", "2"), ("TwoPointFiveBath", "2.5"),
        ("ThreeBath", "3"), ("ThreePointFiveBath", "3.5"), ("FourBath", "4"), ("FourPointFiveBath", "4.5"),
        ("FiveBath", "5"), ("FivePlusBath", "5"), ("SixBath", None), (None, None), ([], None),
    ],
)  # fmt: skip
def test_bathrooms(name: Any, bathrooms: str | None) -> None:
    found = of(UNIT, RENTAL_UNIT, UnitBathrooms=name)
    assert found.bathrooms == (Decimal(bathrooms) if bathrooms else None)
    assert found.bathrooms_or_more is (name == "FivePlusBath")


@pytest.mark.parametrize(
    ("kind", "sub", "expected"),
    [
        ("Residential", "MultiFamily", PropertyType.APARTMENT),
        ("Residential", "CondoTownhome", PropertyType.CONDO_OR_TOWNHOME),
        ("Residential", "SingleFamily", PropertyType.HOUSE),
        ("Commercial", "Industrial", PropertyType.COMMERCIAL),
        ("Commercial", "Office", PropertyType.COMMERCIAL),
        ("Commercial", "Retail", PropertyType.COMMERCIAL),
        ("Commercial", "ShoppingCenter", PropertyType.COMMERCIAL),
        ("Commercial", "Storage", PropertyType.COMMERCIAL),
        ("Commercial", "ParkingSpace", PropertyType.COMMERCIAL),
        ("Commercial", "Marina", PropertyType.COMMERCIAL),
        ("Residential", "Houseboat", PropertyType.UNKNOWN),
        ("None", None, PropertyType.UNKNOWN),
        (None, 4, PropertyType.UNKNOWN),
    ],
)
def test_property_types(kind: Any, sub: Any, expected: PropertyType) -> None:
    assert of(PROPERTY, RENTAL, RentalType=kind, RentalSubType=sub).type is expected


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("Active", LeaseStatus.ACTIVE), ("Future", LeaseStatus.FUTURE), ("Past", LeaseStatus.PAST),
        ("Suspended", LeaseStatus.UNKNOWN), (None, LeaseStatus.UNKNOWN), (1, LeaseStatus.UNKNOWN),
    ],
)  # fmt: skip
def test_lease_statuses(name: Any, status: LeaseStatus) -> None:
    assert of(LEASE, RENTAL_LEASE, LeaseStatus=name).status is status


@pytest.mark.parametrize(
    ("name", "status"),
    [("Current", TenantStatus.CURRENT), ("Future", TenantStatus.FUTURE), ("MovedOut", TenantStatus.MOVED_OUT),
     ("Evicted", TenantStatus.UNKNOWN), (None, TenantStatus.UNKNOWN)],
)  # fmt: skip
def test_tenant_statuses(name: Any, status: TenantStatus) -> None:
    assert of(LEASE, RENTAL_LEASE, Tenants=[{"Id": 1, "Status": name}]).tenants == (LeaseTenant(id=1, status=status),)


@pytest.mark.parametrize(
    ("value", "amount"),
    [
        (1850.1, "1850.10"), (0.1 + 0.2, "0.30"), (1850, "1850.00"), (0, "0.00"), (1234.565, "1234.57"),
        (-5.5, "-5.50"),
        (99999999999.99, "99999999999.99"), (1e12, None), (float("nan"), None), (float("inf"), None), (None, None),
        ("1850.10", None), (True, None), ([], None), (10**400, None), (1e-9, "0.00"),
        (999999999999.99, "999999999999.99"), (999999999999.999, None), (-999999999999.999, None),
    ],
)  # fmt: skip
def test_money_is_rounded_to_cents(value: Any, amount: str | None) -> None:
    found = money(value)

    assert found == (Decimal(amount) if amount else None)
    assert found is None or str(found) == amount


@pytest.mark.parametrize(
    ("value", "implausible"),
    [(1500, False), (0, False), (-1, False), (None, False), (999999999999.999, True), (float("nan"), True), ("", True)],
)
def test_a_rent_that_is_no_amount_is_marked(value: Any, implausible: bool) -> None:
    """And does not spoil the page that it is on."""
    assert of(UNIT, RENTAL_UNIT, MarketRent=value).implausible_rent is implausible
    assert of(LISTING, RENTAL_LISTING, Rent=value).implausible_rent is implausible


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2025-01-31", date(2025, 1, 31)), ("2025-01-31T00:00:00", date(2025, 1, 31)),
        ("2025-01-31T07:00:00Z", date(2025, 1, 31)),
        ("0001-01-01", None), ("2025-02-30", None), ("31/01/2025", None), ("", None), (None, None), (20250131, None),
        ("2025-01-31 nonsense", None),
    ],
)  # fmt: skip
def test_days(value: Any, expected: date | None) -> None:
    assert day(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(" a B ", "a B"), ("007", "007"), ("", None), ("  ", None), (None, None), (7, None), ("é", "é"), ("a\x00b", "ab")],
)
def test_texts(value: Any, expected: str | None) -> None:
    assert text(value) == expected


def test_null_in_every_optional_field_is_accepted() -> None:
    assert of(PROPERTY, dict.fromkeys(RENTAL) | {"Id": 7}) == PropertySnapshot(id=7, name="")
    assert of(UNIT, dict.fromkeys(RENTAL_UNIT) | {"Id": 70, "PropertyId": 7}) == UnitSnapshot(
        id=70, property_id=7, code=""
    )
    ids = {"Id": 700, "PropertyId": 7, "UnitId": 70}
    assert of(LEASE, dict.fromkeys(RENTAL_LEASE) | ids) == LeaseSnapshot(
        id=700, property_id=7, unit_id=70, status=LeaseStatus.UNKNOWN
    )
    assert of(LISTING, dict.fromkeys(RENTAL_LISTING) | {"Unit": {"Id": 70}}) == ListingSnapshot(unit_id=70)


def test_a_renewal_that_is_not_set_is_none_and_an_inactive_property_is_inactive() -> None:
    assert of(LEASE, RENTAL_LEASE, RenewalOfferStatus="NotSet").renewal is None
    assert of(PROPERTY, RENTAL, IsActive=False).is_active is False


@pytest.mark.parametrize("bad", [None, 0, -1, "7", 7.0, True, 2**63])
def test_a_row_without_valid_ids_is_left_out(bad: Any) -> None:
    for kind, row, fields in (
        (PROPERTY, RENTAL, ["Id"]),
        (UNIT, RENTAL_UNIT, ["Id", "PropertyId"]),
        (LEASE, RENTAL_LEASE, ["Id", "PropertyId", "UnitId"]),
    ):
        for field in fields:
            assert of(kind, row, **{field: bad}) is None
    assert of(LISTING, RENTAL_LISTING, Unit={"Id": bad}) is None


def test_a_list_with_rows_that_are_not_objects_is_read() -> None:
    rows = read_list(UNIT, json.dumps([RENTAL_UNIT, None, 7, RENTAL_UNIT | {"Id": 71}]).encode())

    assert rows is not None
    assert [found.id for row in rows if (found := snapshot(UNIT, row))] == [70, 71]  # type: ignore[union-attr]


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"7", b"\xff", b"[1", b"[" * 100_000])
def test_a_body_that_is_not_a_list_is_null(body: bytes) -> None:
    assert read_list(UNIT, body) is None


def test_the_leases_of_a_tenant_are_complete_or_have_to_be_fetched() -> None:
    past = RENTAL_LEASE | {"Id": 701, "LeaseStatus": "Past", "Tenants": None, "MoveOutData": None}
    thin = RENTAL_LEASE | {"Id": 702, "MoveOutData": None}
    whole, incomplete = tenant_leases({"Id": 2, "Leases": [RENTAL_LEASE, past, thin, {"Id": 703}, None]})

    assert [lease.id for lease in whole] == [700, 701]
    assert incomplete == [702]
    assert tenant_leases({"Id": 2, "Leases": None}) == ([], [])


def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(sorted({*RENTAL_LEASE, *RENTAL_LISTING, *RENTAL_UNIT})), inner
    )


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12), grown, max_leaves=6
)


@SLOW_MACHINE
@given(
    st.sampled_from([(PROPERTY, RENTAL), (UNIT, RENTAL_UNIT), (LEASE, RENTAL_LEASE), (LISTING, RENTAL_LISTING)]),
    st.data(),
)
def test_no_value_in_any_field_raises(of_kind: tuple[EntityKind, dict[str, Any]], data: st.DataObject) -> None:
    kind, row = of_kind
    changed = {name: data.draw(ANYTHING) if data.draw(st.booleans()) else value for name, value in row.items()}
    body = json.dumps([changed]).encode()
    rows = read_list(kind, body)

    assert rows is not None
    snapshot(kind, rows[0])


@SLOW_MACHINE
@given(st.binary())
def test_no_bytes_raise(body: bytes) -> None:
    for kind in (PROPERTY, UNIT, LEASE, LISTING):
        read_list(kind, body)
        read_one(kind, body)
