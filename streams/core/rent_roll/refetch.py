"""What the rent roll fetches again, and why: what it cannot decide from the replies that it has.

A refetch is a `FetchRequest` on the topic of the webhooks, so requests for one entity cost one call.
"""

from datetime import datetime
from enum import StrEnum

from schemas import topics
from schemas.base import EntityKind
from schemas.pms import FetchOrigin, FetchRequest, PulseStep
from schemas.rent_roll import Page
from streams.core.flows import Emit


class RefetchReason(StrEnum):
    """Why an entity is fetched again; the value is that of `FetchRequest.event`."""

    OVERTAKEN = "overtaken by a sweep"
    """A reply differs from its row and is older than the newest sweep: either of them may be the later state."""
    REFERENCED = "referenced before it was fetched"
    """A unit of an unknown property, or a lease or listing of an unknown unit."""
    LEASE_CHANGED = "a lease of this unit changed"
    """The PMS derives the unit's occupancy from its leases and sends no webhook for it."""
    FIRST_SEEN = "first seen"
    """A unit is not offered before its listing and the leases of its property were read."""
    NOT_ON_PAGE = "missing among those of its property"
    """All entities of a kind were read of a property, and this one was not among them: only a 404 removes it."""
    UNLISTED = "missing in the list of listings"
    """A pulse did not find the listing of this unit any more."""


def refetch(
    record: Page | PulseStep,
    kind: EntityKind,
    entity: int,
    reason: RefetchReason,
    at: datetime,
    *,
    also: tuple[EntityKind, ...] = (),
) -> Emit:
    """Return the request to fetch an entity of the record's connection; one batch emits one for each entity.

    ``also``: kinds of a property's entities that are read in full as well.
    """
    request = FetchRequest(
        org=record.org,
        connection=record.connection,
        origin=FetchOrigin.ROLL,
        event=reason.value,
        kind=kind,
        entity=entity,
        received_at=at,
        also=also,
    )
    return Emit(topics.WEBHOOKS, record.org, request, once=("refetch", record.connection, kind, entity, also))
