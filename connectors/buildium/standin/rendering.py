"""The JSON of Buildium's entities (the messages of its OpenAPI document), with the fields that the connector ignores.

It follows the document and shares no code with ``mapping.py``, so that the stand-in can reveal errors of the mapping.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Final, Protocol

from connectors.buildium.standin.entities import (
    COMMERCIAL,
    LONG_AGO,
    Json,
    Lease,
    Listing,
    Occupant,
    Owner,
    Property,
    Tenant,
    Unit,
)
from schemas.base import EntityKind


class Account(Protocol):
    """The data of an account that the JSON of its entities needs."""

    @property
    def properties(self) -> Mapping[int, Property]: ...

    @property
    def units(self) -> Mapping[int, Unit]: ...

    @property
    def leases(self) -> Mapping[int, Lease]: ...

    @property
    def tenants(self) -> Mapping[int, Tenant]: ...

    @property
    def listings(self) -> Mapping[int, Listing]: ...

    @property
    def owners(self) -> Mapping[int, Owner]: ...

    @property
    def account(self) -> int: ...

    @property
    def details(self) -> Mapping[int, Json]: ...

    @property
    def units_of(self) -> Mapping[int, Sequence[int]]: ...

    @property
    def leases_of_tenant(self) -> Mapping[int, Sequence[int]]: ...

    def today(self) -> date: ...

    def lease_status(self, lease: Lease) -> str: ...

    def tenant_status(self, lease: Lease, occupant: Occupant, today: date) -> str: ...

    def move_out(self, lease: Lease, occupant: Occupant, today: date) -> date | None: ...

    def is_occupied(self, unit: int) -> bool: ...


def property_json(of: Account, number: int) -> Json:
    it = of.properties[number]
    return {
        "Id": it.id,
        "Name": it.name,
        "StructureDescription": None,
        "NumberUnits": len(of.units_of.get(it.id, ())),
        "IsActive": it.is_active,
        "OperatingBankAccountId": 10_407,
        "Reserve": 500.0,
        "Address": it.address.json(),
        "YearBuilt": it.year_built,
        "RentalType": "Commercial" if it.sub_type in COMMERCIAL else "Residential",
        "RentalSubType": it.sub_type,
        "RentalManager": {
            "Id": 77,
            "FirstName": "Morgan",
            "LastName": "Keane",
            "CompanyName": "",
            "IsCompany": False,
            "ProfilePhotoUrl": None,
            "Email": "morgan.keane@manager.example",
            "PhoneNumbers": [{"Number": "403-555-0100", "Type": "Office"}],
        },
        **of.details.get(it.id, {}),
    }


def unit_json(of: Account, number: int) -> Json:
    it = of.units[number]
    return {
        "Id": it.id,
        "PropertyId": it.property_id,
        "BuildingName": it.building,
        "UnitNumber": it.number,
        "Description": it.description,
        "MarketRent": None if it.market_rent is None else float(it.market_rent),
        "Address": of.properties[it.property_id].address.json(f"Unit {it.number}"),
        "UnitBedrooms": it.bedrooms,
        "UnitBathrooms": it.bathrooms,
        "UnitSize": it.size,
        "IsUnitListed": it.id in of.listings,
        "IsUnitOccupied": of.is_occupied(it.id),
    }


def lease_json(of: Account, number: int) -> Json:
    it, today = of.leases[number], of.today()
    unit = of.units[it.unit_id]
    statuses = [(occupant, of.tenant_status(it, occupant, today)) for occupant in it.occupants]
    current = [occupant for occupant, status in statuses if status == "Current"]
    return {
        "Id": it.id,
        "PropertyId": unit.property_id,
        "UnitId": it.unit_id,
        "UnitNumber": unit.number,
        "LeaseFromDate": it.starts_on.isoformat(),
        "LeaseToDate": _iso(it.ends_on),
        "LeaseType": it.type,
        "LeaseStatus": of.lease_status(it),
        "IsEvictionPending": it.eviction_pending,
        "TermType": "MonthToMonth" if it.type == "AtWill" else "Standard",
        "RenewalOfferStatus": it.renewal,
        "CurrentTenants": [tenant_json(of, occupant.tenant_id, with_leases=False) for occupant in current],
        "CurrentNumberOfOccupants": len(current),
        "AccountDetails": {
            "SecurityDeposit": None if it.rent is None else float(it.rent),
            "Rent": None if it.rent is None else float(it.rent),
        },
        "Cosigners": [],
        "AutomaticallyMoveOutTenants": it.automatic_move_out,
        "CreatedDateTime": _moment(it.created_at),
        "LastUpdatedDateTime": _moment(it.updated_at),
        "MoveOutData": [
            {
                "TenantId": occupant.tenant_id,
                "MoveOutDate": moves_out_on.isoformat(),
                "NoticeGivenDate": _iso(occupant.notice_given),
            }
            for occupant in it.occupants
            if (moves_out_on := of.move_out(it, occupant, today)) is not None
        ],
        "PaymentDueDay": 1,
        "Tenants": [
            {"Id": occupant.tenant_id, "Status": status, "MoveInDate": occupant.moves_in_on.isoformat()}
            for occupant, status in statuses
        ],
    }


def tenant_json(of: Account, number: int, *, with_leases: bool = True) -> Json:
    it = of.tenants[number]
    leases = of.leases_of_tenant.get(number, ()) if with_leases else ()
    return {
        "Id": it.id,
        "FirstName": it.first_name,
        "LastName": it.last_name,
        "Email": it.email,
        "AlternateEmail": None,
        "PhoneNumbers": [{"Number": it.phone, "Type": "Cell"}],
        "CreatedDateTime": _moment(LONG_AGO),
        "EmergencyContact": {"Name": "", "RelationshipDescription": "", "Phone": "", "Email": ""},
        "DateOfBirth": None,
        "SMSOptInStatus": "NotSet",
        "Address": None,
        "AlternateAddress": None,
        "MailingPreference": "PrimaryAddress",
        "Leases": [lease_json(of, lease) for lease in leases] if with_leases else None,
        "Comment": "",
        "TaxId": "",
    }


def listing_json(of: Account, number: int) -> Json:
    it = of.listings[number]
    unit = of.units[number]
    rental = of.properties[unit.property_id]
    contact = {
        "Id": 5,
        "Name": "Leasing office",
        "Email": "leasing@manager.example",
        "PhoneNumber": "403-555-0101",
        "Website": None,
    }
    return {
        "ListingDate": it.listed_on.isoformat(),
        "Rent": float(it.rent),
        "Deposit": float(it.rent),
        "LeaseTerms": "One year",
        "AvailableDate": it.available_on.isoformat(),
        "IsManagedExternally": it.is_managed_externally,
        "RentalApplicationUrl": None,
        "Contact": None if it.is_managed_externally else contact,
        "Property": {
            "Id": rental.id,
            "Name": rental.name,
            "Address": rental.address.json(),
            "NumberUnits": len(of.units_of.get(rental.id, ())),
            "StructureDescription": None,
            "YearBuilt": rental.year_built,
            "Features": list(rental.features),
            "IncludedInRent": ["Heat", "Water"],
            "Files": [],
        },
        "Unit": {
            "Id": unit.id,
            "UnitNumber": unit.number,
            "Address": rental.address.json(f"Unit {unit.number}"),
            "UnitBedrooms": unit.bedrooms,
            "UnitBathrooms": unit.bathrooms,
            "UnitSize": unit.size,
            "Description": unit.description,
            "MarketRent": None if unit.market_rent is None else float(unit.market_rent),
            "Features": sorted({*unit.features, *it.features}),
            "Files": [],
        },
    }


def owner_json(of: Account, number: int) -> Json:
    """Return an owner as ``RentalOwnerMessage``."""
    it = of.owners[number]
    return {
        "Id": it.id,
        "IsCompany": it.is_company,
        "IsActive": it.is_active,
        "FirstName": it.first_name,
        "LastName": it.last_name,
        "CompanyName": it.company_name,
        "PhoneNumbers": [{"Number": "403-555-0190", "Type": "Cell"}],
        "Email": it.email,
        "AlternateEmail": None,
        "Comment": "",
        "Address": None,
        "ManagementAgreementStartDate": None,
        "ManagementAgreementEndDate": None,
        "PropertyIds": list(it.property_ids),
        "TaxInformation": None,
    }


def account_json(of: Account) -> Json:
    """Return the account as ``AccountInfoMessage``."""
    return {
        "Id": of.account,
        "CompanyName": "Keane Property Management",
        "Url": "https://keane.managebuilding.example",
        "Contact": {"FirstName": "Morgan", "LastName": "Keane", "Address": None, "PhoneNumber": "403-555-0100"},
        "AccountingSettings": {
            "AccountingBookId": 1,
            "DefaultBankAccountId": 10_407,
            "DefaultAccountingBasis": "Accrual",
            "TrustAccountWarning": "Off",
            "FiscalYearEndMonth": 12,
            "FiscalYearEndDay": 31,
        },
    }


def _iso(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


@lru_cache(maxsize=1024)
def _moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


RENDER: Final[dict[EntityKind, Callable[[Account, int], Json]]] = {
    EntityKind.PROPERTY: property_json,
    EntityKind.UNIT: unit_json,
    EntityKind.LEASE: lease_json,
    EntityKind.TENANT: tenant_json,
    EntityKind.LISTING: listing_json,
}
