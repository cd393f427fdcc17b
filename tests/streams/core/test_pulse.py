"""From when on a pulse asks, and what it makes of the listings."""

from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from connectors.ports import Found, PageOf
from schemas.base import EntityKind
from schemas.pms import PulseStep
from schemas.rent_roll import AccountRow, ListingSnapshot
from streams.core.pulse import OVERLAP, SKEW, Listings, changed_listings, listings_of, pages, since, unlisted
from streams.core.sweep import ITEMS_A_RECORD
from tests.streams.core.delivery.offers import NOW


def account(started_at: datetime = NOW, pulsed_until: datetime | None = None) -> AccountRow:
    return AccountRow(
        sweep="s", first_sweep="s", started_at=started_at, completed_at=started_at, pulsed_until=pulsed_until
    )


def listed(*units: int, rent: int = 1000) -> tuple[Found, ...]:
    return tuple(Found(EntityKind.LISTING, unit, ListingSnapshot(unit_id=unit, rent=Decimal(rent))) for unit in units)


def known(*units: int) -> Listings:
    found = listings_of(PageOf(listed(*units), len(units), len(units)))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("pulsed_until", "expected"),
    [
        (None, NOW - SKEW),
        (NOW + timedelta(minutes=5), NOW + timedelta(minutes=5) - OVERLAP),
        (NOW - timedelta(hours=5), NOW - SKEW),
    ],
)
def test_a_pulse_begins_before_the_end_of_the_last_one_or_of_the_last_sweep(
    pulsed_until: datetime | None, expected: datetime
) -> None:
    """A complete sweep has read everything that was updated before it began."""
    assert since(account(pulsed_until=pulsed_until)) == expected


def test_only_the_whole_list_shows_what_is_not_listed() -> None:
    assert listings_of(PageOf(listed(1, 2), 2, 3)) is None
    assert unlisted(known(2, 3), known(1, 2)) == (1,)
    assert unlisted(known(), known(2, 1)) == (1, 2)


def test_nothing_is_unlisted_if_nothing_was_known() -> None:
    assert unlisted(known(1), None) == ()


def test_only_listings_that_differ_are_changed() -> None:
    page = PageOf((*listed(1, 3), *listed(2, rent=1100)), 3, 3)

    assert [one.id for one in changed_listings(page, known(1, 2))] == [3, 2]
    assert changed_listings(page, None) == page.items


def test_a_long_page_becomes_several_records_with_sequences_of_their_own() -> None:
    step = PulseStep(org="o", connection="c", since=NOW, started_at=NOW)
    found = listed(*range(ITEMS_A_RECORD + 1))
    made = list(pages(step, EntityKind.LISTING, found, 70, NOW))

    assert [(one.seq, len(one.items)) for one in made] == [(70, ITEMS_A_RECORD), (71, 1)]
    assert [item.id for one in made for item in one.items] == [one.id for one in found]
    assert {(one.sweep, one.fetched_at) for one in made} == {(None, NOW)}
