"""What is fetched again, and why."""

from datetime import timedelta

import pytest

from schemas import topics
from schemas.base import EntityKind
from schemas.pms import FetchOrigin, FetchRequest
from schemas.rent_roll import ListingSnapshot
from streams.core.rent_roll.refetch import RefetchReason, refetch
from tests.streams.core.rent_roll.rolls import NOW, building, fold, lease, page, reasons, refetches, swept, unit


@pytest.mark.parametrize("reason", RefetchReason)
def test_a_refetch_is_a_request_on_the_topic_of_the_webhooks(reason: RefetchReason) -> None:
    emit = refetch(page(EntityKind.UNIT, 10), EntityKind.LEASE, 100, reason, NOW)
    assert emit.topic is topics.WEBHOOKS
    assert emit.record == FetchRequest(
        org="default",
        connection="buildium",
        origin=FetchOrigin.ROLL,
        event=reason.value,
        kind=EntityKind.LEASE,
        entity=100,
        received_at=NOW,
    )


def test_requests_for_one_entity_are_emitted_once_for_a_batch() -> None:
    one, same, other = (
        refetch(page(EntityKind.UNIT, seq), EntityKind.UNIT, entity, RefetchReason.OVERTAKEN, NOW)
        for seq, entity in ((10, 1), (11, 1), (12, 2))
    )
    assert one.once == same.once
    assert one.once != other.once


def test_a_request_carries_the_moment_of_the_reply_that_caused_it() -> None:
    (result,) = fold(swept(), page(EntityKind.UNIT, 10, unit(5, property_id=77)))
    requests = [emit.record for emit in result.emits if isinstance(emit.record, FetchRequest)]
    assert {request.received_at for request in requests} == {NOW + timedelta(microseconds=10)}


def test_a_unit_of_an_unknown_property_has_it_fetched() -> None:
    (result,) = fold(swept(), page(EntityKind.UNIT, 10, unit(5, property_id=77)))
    assert refetches(result) == {(EntityKind.PROPERTY, 77), (EntityKind.LISTING, 5)}
    assert reasons(result) == {RefetchReason.REFERENCED, RefetchReason.FIRST_SEEN}


def test_a_lease_or_listing_of_an_unknown_unit_has_it_fetched() -> None:
    listing = ListingSnapshot(unit_id=6, property_id=10)
    by_listing, by_lease = fold(
        swept(), page(EntityKind.LISTING, 10, listing), page(EntityKind.LEASE, 11, lease(unit_id=7), sweep="s2")
    )
    assert refetches(by_listing) == {(EntityKind.UNIT, 6)}
    assert refetches(by_lease) == {(EntityKind.UNIT, 7)}
    assert reasons(by_listing) == reasons(by_lease) == {RefetchReason.REFERENCED}


def test_a_changed_lease_has_its_unit_fetched_unless_a_sweep_brought_it() -> None:
    """A sweep reads all units anyway."""
    by_webhook, by_sweep = fold(
        swept(),
        page(EntityKind.LEASE, 10, lease()),
        page(EntityKind.LEASE, 11, lease(renewal="Offered"), sweep="s2"),
    )
    assert refetches(by_webhook) == {(EntityKind.UNIT, 1)}
    assert reasons(by_webhook) == {RefetchReason.LEASE_CHANGED}
    assert not refetches(by_sweep)


@pytest.mark.parametrize(
    ("kind", "same", "other", "entity"),
    [
        (EntityKind.PROPERTY, building(), building(name="Sunrise Apartments"), 10),
        (EntityKind.UNIT, unit(), unit(rent=1600), 1),
        (EntityKind.LEASE, lease(), lease(renewal="Offered"), 100),
        (EntityKind.LISTING, ListingSnapshot(unit_id=1), ListingSnapshot(unit_id=1, property_id=10), 1),
    ],
    ids=["property", "unit", "lease", "listing"],
)
def test_a_reply_older_than_a_sweep_is_fetched_again_if_it_differs(
    kind: EntityKind, same: object, other: object, entity: int
) -> None:
    """The sweep may have confirmed the row without writing it."""
    view = swept()
    fold(view, page(kind, 20, same), page(kind, 30, same, sweep="s2"))
    before = dict(view)

    equal, differs, gone, older = fold(
        view,
        page(kind, 25, same),
        page(kind, 26, other),
        page(kind, 27, gone=(entity,)),
        page(kind, 19, other),
    )

    assert not equal.emits
    assert refetches(differs) == refetches(gone) == {(kind, entity)}
    assert reasons(differs) == {RefetchReason.OVERTAKEN}
    assert not older.emits
    assert view == before


@pytest.mark.parametrize(
    ("kind", "snapshot", "entity"),
    [(EntityKind.PROPERTY, building(11), 11), (EntityKind.UNIT, unit(2), 2), (EntityKind.LEASE, lease(101), 101)],
    ids=["property", "unit", "lease"],
)
def test_an_unknown_entity_is_fetched_again_if_an_older_reply_brings_it(
    kind: EntityKind, snapshot: object, entity: int
) -> None:
    _, late = fold(swept(), page(kind, 30, sweep="s2"), page(kind, 25, snapshot))
    assert refetches(late) == {(kind, entity)}


@pytest.mark.parametrize(
    ("kind", "snapshot", "entity"),
    [(EntityKind.PROPERTY, building(11), 11), (EntityKind.UNIT, unit(2), 2), (EntityKind.LEASE, lease(101), 101)],
    ids=["property", "unit", "lease"],
)
def test_an_entity_that_is_gone_is_fetched_again_if_an_older_reply_brings_it(
    kind: EntityKind, snapshot: object, entity: int
) -> None:
    """Also as it was before it was gone: what differs is whether it exists."""
    view = swept()
    fold(view, page(kind, 40, snapshot), page(kind, 41, gone=(entity,)), page(kind, 50, sweep="s3"))
    back, still_gone = fold(view, page(kind, 45, snapshot), page(kind, 46, gone=(entity,)))
    assert refetches(back) == {(kind, entity)}
    assert not still_gone.emits
