"""The webhook events of Buildium: the entity to fetch after each one, or the reason why it is ignored.

There is no event for rental owners, none for a move-out that is changed or withdrawn, and none when a lease starts or
ends by its dates (Buildium, Webhook Events section). Sweeps find those changes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from schemas.base import EntityKind


@dataclass(frozen=True, slots=True)
class Reads:
    """An event after which an entity is fetched: its kind, and the field of the event that holds its id."""

    kind: EntityKind
    id_field: str


@dataclass(frozen=True, slots=True)
class Ignores:
    """An event that is recorded but causes no fetch, and the reason."""

    rule: str


_ALL: Final = ("Created", "Updated", "Deleted")
_APPLICANTS: Final = Ignores("applicants have no lease yet")
_ASSOCIATIONS: Final = Ignores("associations are not rentals")
_ACCOUNTING: Final = Ignores("accounting")
_WORK: Final = Ignores("tasks, calls and vendors")
_METERS: Final = Ignores("meter readings")
_SETUP: Final = Ignores("installation of the integration")

FAMILIES: Final[tuple[tuple[str, tuple[str, ...], Reads | Ignores], ...]] = (
    ("Rental", _ALL, Reads(EntityKind.PROPERTY, "PropertyId")),
    ("RentalUnit", _ALL, Reads(EntityKind.UNIT, "UnitId")),
    ("Lease", _ALL, Reads(EntityKind.LEASE, "LeaseId")),
    ("Lease.MoveOut", ("Created",), Reads(EntityKind.LEASE, "LeaseId")),
    ("LeaseTenant", _ALL, Reads(EntityKind.TENANT, "TenantId")),
    ("Listing", _ALL, Reads(EntityKind.LISTING, "UnitId")),
    ("Applicant", _ALL, _APPLICANTS),
    ("ApplicantApplication", ("Created", "Updated"), _APPLICANTS),
    ("Application.Transaction", ("Created", "Updated"), _APPLICANTS),
    ("Association", _ALL, _ASSOCIATIONS),
    ("Association.MeterReading", _ALL, _ASSOCIATIONS),
    ("AssociationBoardMember", _ALL, _ASSOCIATIONS),
    ("AssociationOwner", _ALL, _ASSOCIATIONS),
    ("AssociationTenant", _ALL, _ASSOCIATIONS),
    ("AssociationUnit", _ALL, _ASSOCIATIONS),
    ("OwnershipAccount", _ALL, _ASSOCIATIONS),
    ("OwnershipAccountTransaction", _ALL, _ASSOCIATIONS),
    ("BankAccount", _ALL, _ACCOUNTING),
    ("BankAccount.Transaction", _ALL, _ACCOUNTING),
    ("Bill", _ALL, _ACCOUNTING),
    ("Bill.Payment", _ALL, _ACCOUNTING),
    ("Budget", _ALL, _ACCOUNTING),
    ("GLAccount", _ALL, _ACCOUNTING),
    ("LeaseTransaction", _ALL, _ACCOUNTING),
    ("Rental.MeterReading", _ALL, _METERS),
    ("Installation", _ALL, _SETUP),
    ("PhoneLog", _ALL, _WORK),
    ("Task", _ALL, _WORK),
    ("Task.History", _ALL, _WORK),
    ("TaskCategory", _ALL, _WORK),
    ("Vendor", _ALL, _WORK),
    ("Vendor.Transaction", _ALL, _WORK),
    ("VendorCategory", _ALL, _WORK),
    ("WorkOrder", _ALL, _WORK),
)

UNKNOWN_EVENT: Final = Ignores("unknown event")


def _spread(families: Iterable[tuple[str, tuple[str, ...], Reads | Ignores]]) -> dict[str, Reads | Ignores]:
    return {f"{family}.{verb}": rule for family, verbs, rule in families for verb in verbs}


EVENTS: Final = _spread(FAMILIES)
"""Every event name that Buildium documents."""
