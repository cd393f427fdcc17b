"""What a batch carries and how it is named."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.delivery import Acknowledged, BatchMode, DeliveryRow, ReceiverRow, UnitState
from streams.core.delivery.cut import Content, batch_id, count_cut, cut, owes_snapshot, sync_id, units_to_send
from streams.core.offer import Offer, digest
from tests.streams.core.delivery.offers import NOW, offer_of, offered

OFFER = offer_of(offered(1), offered(2, state=UnitState.RENTED), offered(3, state=UnitState.REMOVED))


def digests(offer: Offer) -> dict[int, bytes]:
    return {unit.id: digest(offer.property, unit) for unit in offer.units}


def content(offer: Offer, row: DeliveryRow | None = None, known: dict[int, bytes] | None = None) -> Content:
    found = cut(offer, row or DeliveryRow(), known)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("known", "unconfirmed", "units", "mode"),
    [
        (None, set(), {1, 2}, BatchMode.SNAPSHOT),
        (None, {3}, {1, 2, 3}, BatchMode.SNAPSHOT),
        ({}, set(), {1, 2}, BatchMode.DELTA),
        ({}, {3}, {1, 2, 3}, BatchMode.DELTA),
        (digests(OFFER), set(), set(), BatchMode.DELTA),
        (digests(OFFER), {2}, {2}, BatchMode.DELTA),
        (digests(OFFER) | {1: b"another"}, set(), {1}, BatchMode.DELTA),
        (digests(OFFER) | {3: b"another"}, set(), {3}, BatchMode.DELTA),
        (digests(OFFER), {9}, set(), BatchMode.DELTA),
    ],
)
def test_the_units_of_a_batch_are_those_that_the_receiver_does_not_know(
    known: dict[int, bytes] | None, unconfirmed: set[int], units: set[int], mode: BatchMode
) -> None:
    """A removed unit is among them only if it was sent before; one that is not offered here never is."""
    found, found_mode = units_to_send(OFFER, known, unconfirmed)
    assert ({unit.id for unit in found}, found_mode) == (units, mode)


def test_a_scheduled_snapshot_carries_what_the_receiver_knows_already() -> None:
    """Not a unit that was removed before it was ever sent."""
    found, mode = units_to_send(OFFER, digests(OFFER) | {3: b"x"}, set(), everything=True)
    assert ({unit.id for unit in found}, mode) == ({1, 2, 3}, BatchMode.SNAPSHOT)
    found, _ = units_to_send(OFFER, {1: b"x"}, set(), everything=True)
    assert {unit.id for unit in found} == {1, 2}


@pytest.mark.parametrize(
    ("due", "acknowledged", "owed"), [(None, None, False), (0, None, True), (1, 0, True), (1, 1, False), (0, 1, False)]
)
def test_a_snapshot_is_owed_until_one_of_that_moment_is_acknowledged(
    due: int | None, acknowledged: int | None, owed: bool
) -> None:
    at = [None if one is None else NOW + timedelta(days=one) for one in (due, acknowledged)]

    assert owes_snapshot(DeliveryRow(snapshot_due=at[0], snapshot_at=at[1])) is owed


def test_content_says_what_the_receiver_knows_once_it_acknowledges() -> None:
    found = content(OFFER)
    assert found.property == OFFER.property
    assert found.sent == tuple(
        Acknowledged(unit_id=unit.id, digest=digest(OFFER.property, unit)) for unit in OFFER.units[:2]
    )
    assert cut(OFFER, DeliveryRow(), {one.unit_id: one.digest for one in found.sent}) is None


def test_an_inactive_property_is_sent_only_to_a_receiver_that_may_have_it() -> None:
    asleep = offer_of(offered(1, state=UnitState.UNAVAILABLE), active=False)
    sent = content(OFFER).sent
    assert cut(asleep, DeliveryRow(), None) is None
    assert content(asleep, DeliveryRow(sent=sent)).mode is BatchMode.SNAPSHOT
    assert content(asleep, known=digests(OFFER)).mode is BatchMode.DELTA


def test_a_property_without_units_is_not_sent() -> None:
    """Before its first snapshot, and after one."""
    assert cut(offer_of(), DeliveryRow(), None) is None
    assert cut(offer_of(), DeliveryRow(), {}) is None


@pytest.mark.parametrize(
    "other",
    [
        offer_of(offered(1, rent=1600), offered(2)),
        offer_of(offered(1), offered(2), offered(3)),
        offer_of(offered(1), offered(2), name="Sunrise Apartments"),
        offer_of(offered(1), offered(2, status="notice_unrented")),
        offer_of(offered(1), offered(2, available_on=date(2026, 3, 2))),
    ],
)
def test_other_content_has_another_digest(other: Offer) -> None:
    """Also where it differs in fields that cause no batch."""
    first = content(offer_of(offered(1), offered(2)))
    assert content(offer_of(offered(1), offered(2))).digest == first.digest
    assert content(other).digest != first.digest


def test_a_batch_id_names_property_delivery_moment_and_content() -> None:
    ids = {
        batch_id(key, version, at, content)
        for key in (b"o/s/c/p/1", b"o/s/c/p/2")
        for version in (1, 2)
        for at in (NOW, NOW + timedelta(seconds=1))
        for content in (b"one", b"two")
    }
    assert len(ids) == 16
    assert batch_id(b"o/s/c/p/1", 1, NOW, b"one") == batch_id(b"o/s/c/p/1", 1, NOW, b"one")


# ------------------------------------------------------------------------------------------------------- the sync id


def names(*moments: datetime) -> list[str]:
    row, found = ReceiverRow(), []
    for now in moments:
        row = count_cut(row, now)
        found.append(sync_id(row))
    return found


def test_a_sync_id_is_the_second_of_the_cut_in_utc() -> None:
    at = datetime.fromisoformat("2026-03-01T23:59:59.999-07:00")
    assert names(at) == ["sync-2026-03-02-06-59-59"]


def test_further_cuts_of_a_second_are_numbered() -> None:
    second = timedelta(seconds=1)
    assert names(NOW, NOW, NOW + second / 2, NOW + second, NOW + second) == [
        "sync-2026-03-01-12-30-15",
        "sync-2026-03-01-12-30-15-2",
        "sync-2026-03-01-12-30-15-3",
        "sync-2026-03-01-12-30-16",
        "sync-2026-03-01-12-30-16-2",
    ]


def test_a_clock_that_steps_back_repeats_no_sync_id() -> None:
    second = timedelta(seconds=1)
    assert names(NOW, NOW - 60 * second, NOW, NOW + second) == [
        "sync-2026-03-01-12-30-15",
        "sync-2026-03-01-12-30-15-2",
        "sync-2026-03-01-12-30-15-3",
        "sync-2026-03-01-12-30-16",
    ]


@given(st.lists(st.datetimes(datetime(2026, 1, 1), datetime(2026, 1, 1, 0, 0, 3), timezones=st.just(UTC))))  # noqa: DTZ001 -- hypothesis adds the zone
def test_no_two_cuts_of_a_receiver_share_a_sync_id(moments: list[datetime]) -> None:
    """However the clock moves."""
    found = names(*moments)
    assert len(set(found)) == len(found)
