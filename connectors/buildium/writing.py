"""Our records as Buildium's write messages, and Buildium's names of fields as ours; it knows nothing of HTTP.

A PUT replaces everything: "any field not included … will be set to either an empty string or null" (Buildium, API
Overview). So the message of a change begins with what Buildium has.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from connectors.buildium.mapping import BATHROOMS, BEDROOMS
from schemas.commands import OwnerBody, PostalAddress, PropertyBody, UnitBody

Message = Mapping[str, Any]

MOST_UNITS: Final = 100
"""Units that one property may be created with; further ones are created one by one (``RentalPropertyPostMessage``)."""

COUNTRIES: Final[Mapping[str, str]] = {
    "US": "UnitedStates",
    "USA": "UnitedStates",
    "CA": "Canada",
    "CAN": "Canada",
    "MX": "Mexico",
    "MEX": "Mexico",
    "GB": "UnitedKingdom",
    "GBR": "UnitedKingdom",
    "UK": "UnitedKingdom",
}
"""ISO codes of countries in Buildium's enumeration; any other country is named as there, spaces aside."""

_BEDROOMS: Final = {count: name for name, count in BEDROOMS.items()}
_BATHROOMS: Final = {count: name for name, count in reversed([*BATHROOMS.items()])}
"""The plain names win over those of "or more"."""

POINTERS: Final[Mapping[str, str]] = {
    "Name": "/name",
    "StructureDescription": "/structureDescription",
    "Address": "/addressLine1",
    "AddressLine1": "/addressLine1",
    "AddressLine2": "/addressLine2",
    "AddressLine3": "/addressLine3",
    "City": "/city",
    "State": "/state",
    "PostalCode": "/postalCode",
    "Country": "/country",
    "RentalSubType": "/rentalSubType",
    "RentalOwnerIds": "/ownerIds",
    "OperatingBankAccountId": "/operatingBankAccountId",
    "PropertyManagerId": "/propertyManagerId",
    "Reserve": "/reserve",
    "YearBuilt": "/yearBuilt",
    "FirstName": "/firstName",
    "LastName": "/lastName",
    "CompanyName": "/companyName",
    "IsCompany": "/companyName",
    "Email": "/email",
    "PhoneNumbers": "/phoneNumbers",
    "PropertyIds": "/propertyIds",
}
"""Members of our bodies, by the names in Buildium's messages."""

_UNIT_POINTERS: Final[Mapping[str, str]] = {
    "UnitNumber": "number",
    "UnitSize": "size",
    "MarketRent": "marketRent",
    "UnitBedrooms": "bedrooms",
    "UnitBathrooms": "bathrooms",
    "Description": "description",
}

_PHONES: Final[Mapping[str, str]] = {"Home": "Home", "Office": "Work", "Cell": "Mobile", "Fax": "Fax"}
"""Kinds of phone numbers as they are read, and as they are written."""


def country(name: str) -> str:
    """Return a country in Buildium's enumeration: ``US``, ``United States`` and ``UnitedStates`` are the same."""
    return COUNTRIES.get(name.strip().upper(), re.sub(r"[\s.'-]+", "", name))


def address(of: PostalAddress) -> Message:
    """Return ``SaveAddressMessage``."""
    return {
        "AddressLine1": of.line1,
        "AddressLine2": of.line2,
        "AddressLine3": of.line3,
        "City": of.city,
        "State": of.state,
        "PostalCode": of.postal_code,
        "Country": country(of.country),
    }


def unit(of: UnitBody, home: PostalAddress) -> Message:
    """Return ``RentalPropertyUnitPostMessage``."""
    return {
        "UnitNumber": of.number,
        "UnitSize": of.size,
        "MarketRent": _number(of.market_rent),
        "Address": address(of.address or home),
        "UnitBedrooms": None if of.bedrooms is None else _BEDROOMS.get(of.bedrooms, "NineBedPlus"),
        "UnitBathrooms": None if of.bathrooms is None else _BATHROOMS.get(of.bathrooms, "FivePlusBath"),
        "Description": of.description,
    }


def new_property(of: PropertyBody, bank_account: int, owners: tuple[int, ...]) -> Message:
    """Return ``RentalPropertyPostMessage`` with the first units."""
    return {
        "Name": of.name,
        "StructureDescription": of.structure,
        "Address": address(of.address),
        "RentalSubType": of.sub_type,
        "RentalOwnerIds": list(owners) or None,
        "OperatingBankAccountId": bank_account,
        "PropertyManagerId": of.manager,
        "Reserve": _number(of.reserve),
        "YearBuilt": of.year_built,
        "Units": [unit(one, of.address) for one in of.units[:MOST_UNITS]] or None,
    }


def changed_property(of: PropertyBody, has: Message) -> Message:
    """Return ``RentalPropertyPutMessage``: what Buildium has (``RentalMessage``), with what the command names."""
    manager = has.get("RentalManager")
    before = {
        "StructureDescription": has.get("StructureDescription"),
        "OperatingBankAccountId": has.get("OperatingBankAccountId"),
        "PropertyManagerId": manager.get("Id") if isinstance(manager, Mapping) else None,
        "Reserve": has.get("Reserve"),
        "YearBuilt": has.get("YearBuilt"),
    }
    named = {
        "StructureDescription": of.structure,
        "OperatingBankAccountId": of.bank_account,
        "PropertyManagerId": of.manager,
        "Reserve": _number(of.reserve),
        "YearBuilt": of.year_built,
    }
    merged = {name: before[name] if value is None else value for name, value in named.items()}
    return {"Name": of.name, "Address": address(of.address), "RentalSubType": of.sub_type, **merged}


def is_property(of: PropertyBody, has: Message) -> bool:
    """Return whether what Buildium has is what would be created: the same name at the same address."""
    there = has.get("Address")
    return (
        isinstance(there, Mapping)
        and _same(of.name, has.get("Name"))
        and _same(of.address.line1, there.get("AddressLine1"))
        and _same(of.address.postal_code, there.get("PostalCode"))
    )


def new_owner(of: OwnerBody, properties: tuple[int, ...]) -> Message:
    """Return ``RentalOwnerPostMessage``."""
    phones = {one.kind.capitalize(): one.number for one in of.phones}
    return {
        "IsCompany": of.company_name is not None,
        "FirstName": of.first_name,
        "LastName": of.last_name,
        "CompanyName": of.company_name,
        "Email": of.email,
        "PhoneNumbers": phones or None,
        "Address": address(of.address),
        "PropertyIds": list(properties),
    }


def changed_owner(of: OwnerBody, has: Message, properties: tuple[int, ...]) -> Message:
    """Return ``RentalOwnerPutMessage``: what Buildium has (``RentalOwnerMessage``), with what the command names."""
    numbers = has.get("PhoneNumbers")
    phones = {
        _PHONES[one["Type"]]: one.get("Number")
        for one in (numbers if isinstance(numbers, list) else [])
        if isinstance(one, Mapping) and one.get("Type") in _PHONES
    }
    kept = ("AlternateEmail", "Comment", "ManagementAgreementStartDate", "ManagementAgreementEndDate")
    new = new_owner(of, properties)
    return {
        **{name: has.get(name) for name in kept},
        **new,
        "Email": has.get("Email") if of.email is None else of.email,
        "PhoneNumbers": {**phones, **(new["PhoneNumbers"] or {})} or None,
    }


def is_owner(of: OwnerBody, has: Message) -> bool:
    """Return whether what Buildium has is what would be created: the same name and the same e-mail address."""
    names = (
        _same(of.company_name, has.get("CompanyName"))
        if of.company_name is not None
        else _same(of.first_name, has.get("FirstName")) and _same(of.last_name, has.get("LastName"))
    )
    return names and _same(of.email, has.get("Email"))


def pointer(key: str) -> str:
    """Return the JSON pointer of ours for the key of an error (``Units[0].UnitNumber``); empty if there is none."""
    unit_at = re.fullmatch(r"Units\[(\d+)\]\.(?:Address\.)?(\w+)", key)
    if unit_at:
        member = _UNIT_POINTERS.get(unit_at[2]) or POINTERS.get(unit_at[2], "/").lstrip("/")
        return f"/units/{unit_at[1]}/{member}" if member else f"/units/{unit_at[1]}"
    parts = re.sub(r"\[\d+\]", "", key).split(".")
    if parts[0] == "PhoneNumbers" and len(parts) > 1:
        return f"/phoneNumbers/{parts[1].lower()}"
    return next((POINTERS[part] for part in reversed(parts) if part in POINTERS), "")


def _same(ours: str | None, theirs: object) -> bool:
    return " ".join((ours or "").split()).casefold() == " ".join(str(theirs or "").split()).casefold()


def _number(amount: Decimal | None) -> float | None:
    return None if amount is None else float(amount)
