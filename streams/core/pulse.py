"""How an account is followed without webhooks: what was updated since the last pulse, and the listings if they are few.

A PMS filters by the time of the last update, by its own clock and to the second. Each pulse therefore begins a little
before the end of the one before it. Not everything has such a time: a unit's occupancy does not, and
neither do listings, whose list is read whole where it is short. Sweeps remain the truth.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from connectors.ports import Found, PageOf
from schemas.base import EntityKind
from schemas.pms import PulseStep
from schemas.rent_roll import AccountRow, Page
from streams.core.rent_roll import item_of
from streams.core.sweep import ITEMS_A_RECORD

CHANGING: Final = (EntityKind.PROPERTY, EntityKind.UNIT, EntityKind.LEASE)
"""Kinds of entities with the time of their last update, parents first."""

OVERLAP: Final = timedelta(minutes=1)
"""How far a pulse reaches back into the one before it: the PMS may show an update later than its time."""
SKEW: Final = timedelta(minutes=10)
"""How far a pulse reaches back before a time of the local clock, which may be ahead of that of the PMS."""
MAX_PAGES: Final = 10
"""Pages of one kind that a pulse reads; a sweep brings what was changed in greater numbers."""


def since(account: AccountRow) -> datetime:
    """Return from which time on, by the clock of the PMS, the next pulse of an account has to ask."""
    swept = account.started_at - SKEW
    return swept if account.pulsed_until is None else max(account.pulsed_until - OVERLAP, swept)


@dataclass(frozen=True, slots=True)
class Listings:
    """The listings of an account as a pulse saw them: the body of each, by unit."""

    bodies: Mapping[int, bytes]


def listings_of(page: PageOf) -> Listings | None:
    """Return the listings of an account; null if the page is not the whole list."""
    if page.total is None or page.rows < page.total:
        return None
    items = (item_of(found.snapshot) for found in page.items)
    return Listings({item.id: item.body for item in items if item.body is not None})


def changed_listings(page: PageOf, before: Listings | None) -> tuple[Found, ...]:
    """Return the listings that are new or not as they were before; all if nothing is known of before."""
    if before is None:
        return page.items
    return tuple(found for found in page.items if before.bodies.get(found.id) != item_of(found.snapshot).body)


def unlisted(now: Listings, before: Listings | None) -> tuple[int, ...]:
    """Return the units whose listing has disappeared."""
    return () if before is None else tuple(sorted(before.bodies.keys() - now.bodies.keys()))


def pages(step: PulseStep, kind: EntityKind, found: Sequence[Found], seq: int, at: datetime) -> Iterator[Page]:
    """Yield the records of what one call brought; ``seq`` is the first of its sequences."""
    for part in range(0, len(found), ITEMS_A_RECORD):
        yield Page(
            org=step.org,
            connection=step.connection,
            kind=kind,
            seq=seq + part // ITEMS_A_RECORD,
            fetched_at=at,
            items=tuple(item_of(one.snapshot) for one in found[part : part + ITEMS_A_RECORD]),
        )
