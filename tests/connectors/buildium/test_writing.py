"""Tests of the mapping to Buildium's write messages."""

from decimal import Decimal
from typing import Any

import pytest

from connectors.buildium.writing import (
    changed_owner,
    changed_property,
    country,
    is_owner,
    is_property,
    new_owner,
    new_property,
    pointer,
    unit,
)
from schemas.commands import OwnerBody, Phone, PostalAddress, PropertyBody, UnitBody

HOME = PostalAddress(line1="1 Main St", city="Calgary", state="AB", postal_code="T2P 0A1", country="CA")
PROPERTY = PropertyBody(name="House", address=HOME, sub_type="MultiFamily")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("US", "UnitedStates"),
        ("us", "UnitedStates"),
        ("USA", "UnitedStates"),
        ("United States", "UnitedStates"),
        ("UnitedStates", "UnitedStates"),
        ("CA", "Canada"),
        ("Canada", "Canada"),
        ("GB", "UnitedKingdom"),
        ("New Zealand", "NewZealand"),
    ],
)
def test_a_country_is_named_as_in_the_enumeration(given: str, name: str) -> None:
    assert country(given) == name


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("Name", "/name"),
        ("Address.PostalCode", "/postalCode"),
        ("PhoneNumbers.Mobile", "/phoneNumbers/mobile"),
        ("PhoneNumbers", "/phoneNumbers"),
        ("Address.Line9", "/addressLine1"),
        ("RentalOwnerIds[3]", "/ownerIds"),
        ("Units[2].UnitNumber", "/units/2/number"),
        ("Units[2].Address.State", "/units/2/state"),
        ("Units[0].Unheard", "/units/0"),
        ("Unheard", ""),
        ("", ""),
    ],
)
def test_an_error_is_given_the_name_of_our_member(key: str, found: str) -> None:
    assert pointer(key) == found


@pytest.mark.parametrize(
    ("bedrooms", "bathrooms", "names"),
    [
        (0, "1", ("Studio", "OneBath")),
        (3, "2.5", ("ThreeBed", "TwoPointFiveBath")),
        (9, "5", ("NineBedPlus", "FiveBath")),
        (12, "5.5", ("NineBedPlus", "FivePlusBath")),
    ],
)
def test_rooms_are_named(bedrooms: int, bathrooms: str, names: tuple[str, str]) -> None:
    message = unit(UnitBody(number="1", bedrooms=Decimal(bedrooms), bathrooms=Decimal(bathrooms)), HOME)
    assert (message["UnitBedrooms"], message["UnitBathrooms"]) == names


def test_a_unit_has_the_address_of_its_property_or_its_own() -> None:
    own = PostalAddress(line1="2 Side St", postal_code="X", country="CA")
    assert unit(UnitBody(number="1"), HOME)["Address"]["AddressLine1"] == "1 Main St"
    assert unit(UnitBody(number="1", address=own), HOME)["Address"]["AddressLine1"] == "2 Side St"


def test_a_new_property_has_its_first_hundred_units() -> None:
    many = PropertyBody(
        name="Tower", address=HOME, sub_type="MultiFamily", units=tuple(UnitBody(number=str(at)) for at in range(130))
    )
    assert [one["UnitNumber"] for one in new_property(many, 7, ())["Units"]] == [str(at) for at in range(100)]
    assert new_property(PROPERTY, 7, (501,))["RentalOwnerIds"] == [501]
    assert new_property(PROPERTY, 7, ())["Units"] is None


def test_a_change_of_a_property_keeps_what_is_not_named() -> None:
    has: dict[str, Any] = {
        "Name": "Old",
        "StructureDescription": "brick",
        "OperatingBankAccountId": 7,
        "Reserve": 500.0,
        "YearBuilt": 1990,
        "RentalManager": {"Id": 77},
    }
    message = changed_property(PROPERTY, has)
    assert {name: message[name] for name in ("StructureDescription", "OperatingBankAccountId", "YearBuilt")} == {
        "StructureDescription": "brick",
        "OperatingBankAccountId": 7,
        "YearBuilt": 1990,
    }
    assert (message["Name"], message["PropertyManagerId"], message["Reserve"]) == ("House", 77, 500.0)
    assert changed_property(PROPERTY, {**has, "RentalManager": None})["PropertyManagerId"] is None


def test_a_change_of_an_owner_keeps_its_other_phone_numbers() -> None:
    has = {
        "Email": "ada@example.com",
        "Comment": "calls on Mondays",
        "PhoneNumbers": [
            {"Number": "403-555-0001", "Type": "Office"},
            {"Number": "403-555-0002", "Type": "Cell"},
            {"Number": "403-555-0003", "Type": "Other"},
        ],
    }
    owner = OwnerBody(
        first_name="Ada", last_name="Lee", phones=(Phone(kind="mobile", number="403-555-9999"),), address=HOME
    )
    message = changed_owner(owner, has, (1,))
    assert message["PhoneNumbers"] == {"Work": "403-555-0001", "Mobile": "403-555-9999"}
    assert (message["Email"], message["Comment"], message["IsCompany"]) == (
        "ada@example.com", "calls on Mondays", False,
    )  # fmt: skip
    assert new_owner(owner, (1,))["Email"] is None


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"Name": " house "}, True),
        ({"Name": "Other"}, False),
        ({"Address": {"AddressLine1": "1 main st", "PostalCode": "t2p 0a1"}}, True),
        ({"Address": {"AddressLine1": "2 Main St", "PostalCode": "T2P 0A1"}}, False),
        ({"Address": None}, False),
    ],
)
def test_a_property_is_recognized_by_its_name_and_address(change: dict[str, Any], same: bool) -> None:
    has = {"Name": "House", "Address": {"AddressLine1": "1 Main St", "PostalCode": "T2P 0A1"}} | change
    assert is_property(PROPERTY, has) is same


def test_an_owner_is_recognized_by_name_and_email() -> None:
    person = OwnerBody(first_name="Ada", last_name="Lee", email="a@example.com", address=HOME)
    company = OwnerBody(company_name="Lee Ltd.", address=HOME)
    assert is_owner(person, {"FirstName": "Ada", "LastName": "Lee", "Email": "A@example.com"})
    assert not is_owner(person, {"FirstName": "Ada", "LastName": "Lee", "Email": None})
    assert is_owner(company, {"CompanyName": "Lee Ltd.", "Email": None})
    assert not is_owner(company, {"CompanyName": "Other", "Email": None})
