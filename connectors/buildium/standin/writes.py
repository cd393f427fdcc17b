"""Writing to the stand-in: properties, units and owners, with the validation of Buildium's messages.

It follows the OpenAPI document and shares no code with ``writing.py``, so that the stand-in can reveal errors of that.
There is no idempotency key: the same request twice creates two entities.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

from connectors.buildium.standin.entities import Address, Owner
from connectors.buildium.standin.portfolio import PROPERTY, UNIT, Portfolio
from connectors.buildium.standin.queries import Refusal
from connectors.buildium.standin.rendering import owner_json

Body = Mapping[str, Any]

_ADDRESS: Final = ("AddressLine1", "PostalCode", "Country")
_PROPERTY: Final = ("Name", "Address", "RentalSubType", "OperatingBankAccountId")
_OWNER: Final = ("IsCompany", "Address", "PropertyIds")
_UNIT: Final = ("UnitNumber", "Address")

_SUB_TYPES: Final = re.compile(
    "CondoTownhome|MultiFamily|SingleFamily|Industrial|Office|Retail|ShoppingCenter|Storage|ParkingSpace"
)
_STATES: Final = {
    "UnitedStates": re.compile(
        "A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[AT]|W[AIVY]"
    ),
    "Canada": re.compile("AB|BC|MB|N[BLSTU]|ON|PE|QC|SK|YT"),
}
"""Abbreviations of the states of a country."""


class Invalid(Refusal):
    """A body that is answered with 422 and an error for each field."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__(422, "The request data is invalid.")
        self.errors = tuple({"Key": field, "Value": value} for field, value in errors.items())


@dataclass(frozen=True, slots=True)
class Written:
    """The answer to a write."""

    status: int
    body: bytes = b""


def write(portfolio: Portfolio, method: str, path: str, content_type: str, body: bytes) -> Written:
    """Make a write. Raise `Refusal`, or `Invalid` if fields are absent or wrong."""
    for verb, pattern, make in _ROUTES:
        if verb == method and (found := re.fullmatch(pattern, path)):
            content = {} if path.endswith("request") else _content(content_type, body)
            return make(portfolio, content, *(int(part) for part in found.groups()))
    raise Refusal(501, "This stand-in cannot make this write.")


def _content(content_type: str, body: bytes) -> Body:
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "The Content-Type header is missing or has an unsupported value.")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "The request body is not valid JSON.") from None
    if not isinstance(content, dict):
        raise Refusal(400, "The request body is not an object.")
    return content


# ----------------------------------------------------------------------------------------------------------- validation


def _absent(body: Body, required: tuple[str, ...], prefix: str = "") -> dict[str, str]:
    return {
        prefix + field: f"The {field} field is required."
        for field in required
        if body.get(field) is None or body.get(field) in ("", [])
    }


def _address_errors(body: Body, prefix: str = "Address.") -> dict[str, str]:
    address = body.get("Address")
    if not isinstance(address, dict):
        return {}
    errors = _absent(address, _ADDRESS, prefix)
    country, state = address.get("Country"), address.get("State")
    if country and not re.fullmatch(r"[A-Z][A-Za-z]{3,}", str(country)):
        errors[f"{prefix}Country"] = "The value is not a valid country."
    if country in _STATES and not _STATES[country].fullmatch(str(state or "").upper()):
        errors[f"{prefix}State"] = f"The value is not a valid state of {country}."
    for name in ("AddressLine1", "AddressLine2", "AddressLine3", "City", "State"):
        if len(str(address.get(name) or "")) > 100:
            errors[prefix + name] = "The value cannot exceed 100 characters."
    return errors


def _property_errors(portfolio: Portfolio, body: Body) -> dict[str, str]:
    errors = _absent(body, _PROPERTY) | _address_errors(body)
    if len(str(body.get("Name") or "")) > 127:
        errors["Name"] = "The value cannot exceed 127 characters."
    if (sub_type := body.get("RentalSubType")) and not _SUB_TYPES.fullmatch(str(sub_type)):
        errors["RentalSubType"] = "The value is not a valid rental sub type."
    if body.get("OperatingBankAccountId") not in {None, *portfolio.bank_accounts}:
        errors["OperatingBankAccountId"] = "The bank account does not exist."
    year = body.get("YearBuilt")
    if year is not None and not 1000 <= year <= portfolio.today().year:
        errors["YearBuilt"] = "The year is out of range."
    units = body.get("Units") or []
    if len(units) > 100:
        errors["Units"] = "No more than 100 units can be created."
    seen: set[str] = set()
    for at, unit in enumerate(units):
        errors |= _unit_errors(unit, seen, f"Units[{at}].")
        seen.add(str(unit.get("UnitNumber")))
    return errors


def _unit_errors(body: Body, taken: set[str], prefix: str = "") -> dict[str, str]:
    errors = _absent(body, _UNIT, prefix) | _address_errors(body, f"{prefix}Address.")
    number = str(body.get("UnitNumber") or "")
    if len(number) > 30:
        errors[f"{prefix}UnitNumber"] = "The value cannot exceed 30 characters."
    if number in taken:
        errors[f"{prefix}UnitNumber"] = "The unit number must be unique within the property."
    return errors


def _owner_errors(portfolio: Portfolio, body: Body) -> dict[str, str]:
    names = {True: ("CompanyName",), False: ("FirstName", "LastName")}.get(body.get("IsCompany"), ())  # type: ignore[arg-type]
    errors = _absent(body, (*_OWNER, *names)) | _address_errors(body)
    for number in body.get("PropertyIds") or []:
        if number not in portfolio.properties:
            errors["PropertyIds"] = f"Property {number} does not exist."
    for kind, number in (body.get("PhoneNumbers") or {}).items():
        if number is not None and not 10 <= len(str(number)) <= 20:
            errors[f"PhoneNumbers.{kind}"] = "The value must be between 10 and 20 characters."
    return errors


def _check(errors: Mapping[str, str]) -> None:
    if errors:
        raise Invalid(errors)


# ----------------------------------------------------------------------------------------------------------- the writes


def _address(body: Body) -> Address:
    address = body["Address"]
    return Address(
        address["AddressLine1"],
        address.get("City") or "",
        address.get("State") or "",
        address["PostalCode"],
        address["Country"],
    )


def _create_property(portfolio: Portfolio, body: Body) -> Written:
    _check(_property_errors(portfolio, body))
    events = portfolio.add_property(
        body["Name"], _address(body), sub_type=body["RentalSubType"], year_built=body.get("YearBuilt")
    )
    number = max(portfolio.properties)
    portfolio.details[number] = {
        "StructureDescription": body.get("StructureDescription"),
        "OperatingBankAccountId": body["OperatingBankAccountId"],
        "Reserve": body.get("Reserve") or 0.0,
    }
    home = body["Address"]
    for unit in body.get("Units") or [{"UnitNumber": "1", "Address": home}]:
        events += _add_unit(portfolio, number, unit)
    for owner in body.get("RentalOwnerIds") or []:
        known = portfolio.owners.get(owner)
        if known is not None:
            portfolio.owners[owner] = replace(known, property_ids=(*known.property_ids, number))
    portfolio.announced += events
    return Written(201, portfolio.row(PROPERTY, number))


def _add_unit(portfolio: Portfolio, number: int, body: Body) -> Any:
    rent = body.get("MarketRent")
    return portfolio.add_unit(
        number,
        body["UnitNumber"],
        market_rent=None if rent is None else Decimal(str(rent)),
        bedrooms=body.get("UnitBedrooms"),
        bathrooms=body.get("UnitBathrooms"),
        size=body.get("UnitSize"),
        description=body.get("Description"),
    )


def _create_unit(portfolio: Portfolio, body: Body) -> Written:
    number = body.get("PropertyId")
    if not isinstance(number, int) or number not in portfolio.properties:
        raise Invalid({"PropertyId": "The property does not exist."})
    taken = {portfolio.units[unit].number for unit in portfolio.units_of.get(number, ())}
    _check(_unit_errors(body, taken))
    portfolio.announced += _add_unit(portfolio, number, body)
    return Written(201, portfolio.row(UNIT, max(portfolio.units)))


def _create_owner(portfolio: Portfolio, body: Body) -> Written:
    _check(_owner_errors(portfolio, body))
    number = max((*portfolio.owners, 500)) + 1
    portfolio.owners[number] = _owner(portfolio, number, body)
    return Written(201, json.dumps(owner_json(portfolio, number)).encode())


def _owner(portfolio: Portfolio, number: int, body: Body) -> Owner:
    return Owner(
        number,
        body.get("FirstName") or "",
        body.get("LastName") or "",
        (body.get("CompanyName") or "") if body["IsCompany"] else "",
        body.get("Email"),
        tuple(body["PropertyIds"]),
        updated_at=portfolio.clock.now(),
    )


def _put_property(portfolio: Portfolio, body: Body, number: int) -> Written:
    if number not in portfolio.properties:
        raise Refusal(404, "No property found with the id.")
    _check(_property_errors(portfolio, body))
    events = portfolio.rename_property(number, body["Name"])
    portfolio.move_property(number, _address(body))
    portfolio.properties[number].sub_type = body["RentalSubType"]
    portfolio.properties[number].year_built = body.get("YearBuilt")
    portfolio.details[number] = {
        "StructureDescription": body.get("StructureDescription") or "",
        "OperatingBankAccountId": body["OperatingBankAccountId"],
        "Reserve": body.get("Reserve") or 0.0,
    }
    portfolio.announced += events
    return Written(200, portfolio.row(PROPERTY, number))


def _put_owner(portfolio: Portfolio, body: Body, number: int) -> Written:
    if number not in portfolio.owners:
        raise Refusal(404, "No rental owner found with the id.")
    _check(_owner_errors(portfolio, body))
    portfolio.owners[number] = _owner(portfolio, number, body)
    return Written(200, json.dumps(owner_json(portfolio, number)).encode())


def _inactivate(portfolio: Portfolio, _body: Body, number: int) -> Written:
    if number not in portfolio.properties:
        raise Refusal(404, "No property found with the id.")
    portfolio.announced += portfolio.inactivate_property(number)
    return Written(204)


def _reactivate(portfolio: Portfolio, _body: Body, number: int) -> Written:
    if number not in portfolio.properties:
        raise Refusal(404, "No property found with the id.")
    portfolio.announced += portfolio.reactivate_property(number)
    return Written(204)


_ROUTES: Final[tuple[tuple[str, str, Callable[..., Written]], ...]] = (
    ("POST", r"/v1/rentals", _create_property),
    ("POST", r"/v1/rentals/units", _create_unit),
    ("POST", r"/v1/rentals/owners", _create_owner),
    ("PUT", r"/v1/rentals/(\d{1,10})", _put_property),
    ("PUT", r"/v1/rentals/owners/(\d{1,10})", _put_owner),
    ("POST", r"/v1/rentals/(\d{1,10})/inactivationrequest", _inactivate),
    ("POST", r"/v1/rentals/(\d{1,10})/reactivationrequest", _reactivate),
)
