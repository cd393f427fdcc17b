"""The bodies of commands, and the answers about them; the OpenAPI document is generated from these classes."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, StrictInt, StrictStr, model_validator

from schemas.commands import (
    CommandAction,
    OwnerBody,
    Phone,
    PostalAddress,
    PropertyBody,
    SyncEntity,
    SyncOperation,
    SyncState,
    SyncStatus,
    UnitBody,
)
from streams.syncs.service import Receipt
from streams.web.api.models import ApiModel, ProblemField, RequestModel

HREF = "/api/buildium/sync?entityType={entity}&entityId={id}"
"""Where to ask what became of an entity."""

Line = Annotated[StrictStr, Field(min_length=1, max_length=100)]
Name = Annotated[StrictStr, Field(min_length=1, max_length=127)]
LongText = Annotated[StrictStr, Field(max_length=65_535)]
Number = Annotated[StrictInt, Field(ge=1, le=2**31 - 1)]
Amount = Annotated[Decimal, Field(ge=0, max_digits=14, decimal_places=2)]
PhoneNumber = Annotated[StrictStr, Field(min_length=10, max_length=20)]
EntityId = Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""An id of ours, or a number of Buildium's."""


class EntityType(StrEnum):
    """What is synced."""

    PROPERTY = "property"
    OWNER = "owner"

    @property
    def entity(self) -> SyncEntity:
        """Return it as records have it."""
        return SyncEntity(self.value)


class RentalSubType(StrEnum):
    """What kind of property it is, in Buildium's words."""

    CONDO_TOWNHOME = "CondoTownhome"
    MULTI_FAMILY = "MultiFamily"
    SINGLE_FAMILY = "SingleFamily"
    INDUSTRIAL = "Industrial"
    OFFICE = "Office"
    RETAIL = "Retail"
    SHOPPING_CENTER = "ShoppingCenter"
    STORAGE = "Storage"
    PARKING_SPACE = "ParkingSpace"


class PropertyStatus(StrEnum):
    """Whether a property is managed."""

    ACTIVE = "Active"
    INACTIVE = "Inactive"


# ------------------------------------------------------------------------------------------------------------- requests


class AddressInput(RequestModel):
    """A postal address."""

    address_line1: Line = Field(examples=["123 Test St"])
    address_line2: Line | None = None
    address_line3: Line | None = None
    city: Line | None = None
    state: Line | None = Field(None, description="In the United States and Canada one of its states or provinces.")
    postal_code: Line = Field(examples=["90210"])
    country: Line = Field(description="ISO code or name: `US`, `United States`, `Canada`.", examples=["US"])

    def address(self) -> PostalAddress:
        """Return the address as records have it."""
        return PostalAddress(
            line1=self.address_line1,
            line2=self.address_line2,
            line3=self.address_line3,
            city=self.city,
            state=self.state,
            postal_code=self.postal_code,
            country=self.country,
        )


class UnitInput(RequestModel):
    """A unit of a new property, at the property's address."""

    number: Annotated[StrictStr, Field(min_length=1, max_length=30)] = Field(examples=["101"])
    size: Number | None = None
    market_rent: Amount | None = None
    bedrooms: Annotated[StrictInt, Field(ge=0, le=99)] | None = Field(None, description="0 is a studio.")
    bathrooms: Annotated[Decimal, Field(ge=1, le=99, multiple_of=Decimal("0.5"))] | None = None
    description: LongText | None = None

    def unit(self) -> UnitBody:
        """Return the unit as records have it."""
        return UnitBody(
            number=self.number,
            size=self.size,
            market_rent=self.market_rent,
            bedrooms=None if self.bedrooms is None else Decimal(self.bedrooms),
            bathrooms=self.bathrooms,
            description=self.description,
        )


class PropertyInput(AddressInput):
    """A property as it is to be in Buildium."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "Test Property",
                    "addressLine1": "123 Test St",
                    "city": "Test City",
                    "state": "CA",
                    "postalCode": "90210",
                    "country": "US",
                    "rentalSubType": "Office",
                    "status": "Active",
                }
            ]
        }
    )

    name: Name = Field(examples=["Test Property"])
    rental_sub_type: RentalSubType
    status: PropertyStatus = PropertyStatus.ACTIVE
    structure_description: LongText | None = None
    year_built: Annotated[StrictInt, Field(ge=1000, le=9999)] | None = None
    reserve: Amount | None = None
    operating_bank_account_id: Number | None = Field(
        None, description="By default that of the connection, else the account's only one."
    )
    property_manager_id: Number | None = None
    owner_ids: Annotated[tuple[EntityId, ...], Field(max_length=100)] = Field(
        (), description="Owners that are in Buildium already: ids of ours, or Buildium's."
    )
    units: Annotated[tuple[UnitInput, ...], Field(max_length=2000)] = Field(
        (), description="Without any, Buildium makes one."
    )

    @model_validator(mode="after")
    def _numbers_differ(self) -> Self:
        numbers = [one.number.strip().casefold() for one in self.units]
        if len(set(numbers)) < len(numbers):
            raise ValueError("the numbers of the units must differ")
        return self

    def body(self) -> PropertyBody:
        """Return the property as records have it."""
        return PropertyBody(
            name=self.name,
            address=self.address(),
            sub_type=self.rental_sub_type.value,
            is_active=self.status is PropertyStatus.ACTIVE,
            structure=self.structure_description,
            year_built=self.year_built,
            reserve=self.reserve,
            bank_account=self.operating_bank_account_id,
            manager=self.property_manager_id,
            owners=self.owner_ids,
            units=tuple(one.unit() for one in self.units),
        )


class PhonesInput(RequestModel):
    """Phone numbers by kind."""

    home: PhoneNumber | None = None
    work: PhoneNumber | None = None
    mobile: PhoneNumber | None = Field(None, examples=["(403) 555-0123"])
    fax: PhoneNumber | None = None

    def phones(self) -> tuple[Phone, ...]:
        """Return the numbers as records have them."""
        numbers = {"home": self.home, "work": self.work, "mobile": self.mobile, "fax": self.fax}
        return tuple(Phone(kind=kind, number=number) for kind, number in numbers.items() if number is not None)


class OwnerInput(AddressInput):
    """An owner as it is to be in Buildium: a person (`firstName`, `lastName`) or a company (`companyName`)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "firstName": "Ada",
                    "lastName": "Lee",
                    "email": "ada.lee@owner.example",
                    "addressLine1": "123 Test St",
                    "city": "Test City",
                    "state": "CA",
                    "postalCode": "90210",
                    "country": "US",
                    "propertyIds": ["1001"],
                }
            ],
            "anyOf": [
                {
                    "title": "A person",
                    "required": ["firstName", "lastName"],
                    "properties": {
                        "firstName": {"type": "string"},
                        "lastName": {"type": "string"},
                        "companyName": {"type": "null"},
                    },
                },
                {
                    "title": "A company",
                    "required": ["companyName"],
                    "properties": {
                        "companyName": {"type": "string"},
                        "firstName": {"type": "null"},
                        "lastName": {"type": "null"},
                    },
                },
            ],
        }
    )

    first_name: Name | None = None
    last_name: Name | None = None
    company_name: Name | None = None
    email: Annotated[StrictStr, Field(max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")] | None = None
    phone_numbers: PhonesInput | None = None
    property_ids: Annotated[tuple[EntityId, ...], Field(min_length=1, max_length=1000)] = Field(
        description="Ids of ours, or Buildium's. The owner waits for a property that is still on its way."
    )

    @model_validator(mode="after")
    def _person_or_company(self) -> Self:
        person, company = (self.first_name, self.last_name), self.company_name
        if (company is None) is (None in person) or (company is not None and person != (None, None)):
            raise ValueError("an owner has firstName and lastName, or companyName")
        return self

    def body(self) -> OwnerBody:
        """Return the owner as records have it."""
        return OwnerBody(
            first_name=self.first_name,
            last_name=self.last_name,
            company_name=self.company_name,
            email=self.email,
            phones=() if self.phone_numbers is None else self.phone_numbers.phones(),
            address=self.address(),
            properties=self.property_ids,
        )


class RetryInput(RequestModel):
    """What is to be tried again: everything of a kind that failed, or one entity."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"entityType": "property"}]})

    entity_type: EntityType
    entity_id: EntityId | None = None


# -------------------------------------------------------------------------------------------------------------- answers


class PendingSync(ApiModel):
    """A sync that has begun."""

    status: SyncStatus
    operation_id: str
    href: str = Field(json_schema_extra={"format": "uri-reference"}, description="Where to ask what became of it.")


class AcceptedCommand(ApiModel):
    """The command is durable."""

    id: str = Field(description="Our id of the property or the owner.")
    entity_type: EntityType
    sync: PendingSync

    @classmethod
    def of(cls, receipt: Receipt) -> Self:
        """Return a receipt as it is shown."""
        href = HREF.format(entity=receipt.entity, id=receipt.id)
        sync = PendingSync(status=SyncStatus.PENDING, operation_id=receipt.operation, href=href)
        return cls(id=receipt.id, entity_type=EntityType(receipt.entity.value), sync=sync)


class SyncError(ApiModel):
    """Why the last attempt did not succeed."""

    code: str = Field(examples=["rejected"])
    message: str
    fields: tuple[ProblemField, ...]


class Operation(ApiModel):
    """One operation of an entity."""

    id: str
    action: CommandAction
    status: SyncStatus
    at: datetime
    attempts: int
    ended_at: datetime | None
    detail: str | None

    @classmethod
    def of(cls, one: SyncOperation) -> Self:
        """Return an operation as it is shown."""
        return cls(
            id=one.id,
            action=one.action,
            status=one.status,
            at=one.at,
            attempts=one.attempts,
            ended_at=one.ended_at,
            detail=one.detail,
        )


class Sync(ApiModel):
    """Whether Buildium has an entity, and if not, why."""

    entity_type: EntityType
    entity_id: str
    name: str
    connection: str
    buildium_id: int | None
    status: SyncStatus
    detail: str | None = Field(description="What it waits for; null if it does not wait.")
    last_synced_at: datetime | None
    attempts: int
    next_attempt_at: datetime | None
    error: SyncError | None
    operations: tuple[Operation, ...] = Field(description="The last ones, newest first.")

    @classmethod
    def of(cls, state: SyncState) -> Self:
        """Return a state as it is shown."""
        fields = tuple(ProblemField(pointer=one.pointer, detail=one.detail) for one in state.fields)
        error = None if state.code is None else SyncError(code=state.code, message=state.detail or "", fields=fields)
        return cls(
            entity_type=EntityType(state.entity.value),
            entity_id=state.id,
            name=state.name,
            connection=state.connection,
            buildium_id=state.pms_id,
            status=state.status,
            detail=state.detail if state.code is None else None,
            last_synced_at=state.synced_at,
            attempts=state.attempts,
            next_attempt_at=state.next_attempt_at,
            error=error,
            operations=tuple(Operation.of(one) for one in state.operations),
        )


class FailedSyncs(ApiModel):
    """Entities whose sync failed, newest first."""

    items: tuple[Sync, ...]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")


class Retried(ApiModel):
    """What is tried again."""

    retried: int
    operations: tuple[Operation, ...]
