"""The end of a sweep: what it missed is fetched by its id and never removed."""

from datetime import timedelta

from schemas import topics
from schemas.base import EntityKind
from schemas.delivery import DeliveryDue, DueReason
from schemas.integrations import SyncResult
from schemas.pms import FetchOrigin, FetchRequest
from schemas.rent_roll import LeaseStatus, ListingSnapshot
from streams.core.flows import Disposition, FoldResult
from streams.core.rent_roll import STAGES, account_key, scope
from tests.streams.core.rent_roll.rolls import (
    NOW,
    building,
    dues,
    end,
    fold,
    lease,
    page,
    refetches,
    swept,
    unit,
    unit_row,
)
from tests.streams.core.views import MemoryView


def test_nothing_is_due_before_the_first_sweep_is_complete() -> None:
    """A unit whose lease was not read yet looks vacant."""
    view = MemoryView()
    results = fold(
        view, page(EntityKind.PROPERTY, 2, building(), sweep="s1"), page(EntityKind.UNIT, 3, unit(), sweep="s1")
    )
    assert not any(dues(one) for one in results)

    *_, last = fold(
        view, page(EntityKind.LEASE, 4, sweep="s1"), page(EntityKind.LISTING, 5, sweep="s1"), end(1, 1, 1, 1)
    )

    assert dues(last) == {10}
    assert {emit.record.reason for emit in last.emits if isinstance(emit.record, DeliveryDue)} == {DueReason.SWEPT}


def second_sweep(view: MemoryView, *units: int, leases: tuple[int, ...] = ()) -> FoldResult:
    """Fold a second sweep, which brings the property and these units and leases."""
    *_, last = fold(
        view,
        page(EntityKind.PROPERTY, 11, building(), sweep="s2"),
        page(EntityKind.UNIT, 12, *(unit(number) for number in units), sweep="s2"),
        page(EntityKind.LEASE, 13, *(lease(number) for number in leases), sweep="s2"),
        page(EntityKind.LISTING, 14, sweep="s2"),
        end(1, 1, 1, 1, sweep="s2", seq=9),
    )
    return last


def empty_sweep(view: MemoryView, *, torn: bool = False) -> FoldResult:
    """Fold a second sweep that brings nothing."""
    *_, last = fold(
        view,
        *(page(stage, 10 + at, sweep="s2") for at, stage in enumerate(STAGES)),
        end(1, 1, 1, 1, sweep="s2", seq=9, torn=torn),
    )
    return last


def test_the_end_of_the_first_sweep_repeats_what_it_emitted_and_a_later_one_marks_nothing() -> None:
    view = swept()
    (again,) = fold(view, end(1, 1, 1, 1))
    assert dues(again) == {10}
    second = second_sweep(view, 1)
    assert second.verdict is Disposition.APPLIED
    assert not dues(second)
    assert not refetches(second)


def results(result: FoldResult) -> list[SyncResult]:
    """Return the results that a record emitted for people."""
    found = [emit for emit in result.emits if isinstance(emit.record, SyncResult)]
    assert all(emit.topic is topics.INTEGRATION_STATUS for emit in found)
    return [emit.record for emit in found if isinstance(emit.record, SyncResult)]


def test_a_complete_sweep_has_a_result_and_an_ignored_one_has_none() -> None:
    """It names the first complete sweep too; a record that is consumed again repeats it."""
    view = swept()
    (first,), (second,) = results(fold(view, end(1, 1, 1, 1))[0]), results(second_sweep(view, 1))
    at = NOW + timedelta(microseconds=9)

    assert second == SyncResult(
        org="default",
        name="buildium",
        sweep="s2",
        started_at=at,
        ended_at=at,
        entities=0,
        first_sweep="s1",
    )
    assert (first.sweep, first.first_sweep) == ("s1", "s1")
    assert results(fold(view, end(1, 1, 1, 1))[0]) == []
    assert results(fold(view, end(1, 1, 1, 2, sweep="s3", seq=30))[0]) == []


def test_nothing_is_fetched_of_a_kind_that_the_credentials_may_not_read() -> None:
    """That nothing was read proves nothing; the other kinds are looked at all the same, and the result names it."""
    view = swept()
    fold(view, page(EntityKind.LEASE, 6, lease()), page(EntityKind.LISTING, 6, ListingSnapshot(unit_id=1)))
    *_, last = fold(
        view,
        *(page(stage, 10 + at, sweep="s2") for at, stage in enumerate(STAGES[:3])),
        end(1, 1, 1, 0, sweep="s2", seq=9, denied=(EntityKind.LISTING,)),
    )

    assert {kind for kind, _ in refetches(last)} == {EntityKind.PROPERTY, EntityKind.UNIT, EntityKind.LEASE}
    assert [one.denied for one in results(last)] == [(EntityKind.LISTING,)]
    assert unit_row(view).listing is not None


def test_the_end_of_an_older_sweep_is_ignored() -> None:
    view = swept()
    before = dict(view)
    (older,) = fold(view, end(1, 1, 1, 1, sweep="s0", seq=0))
    assert older.verdict is Disposition.IGNORED
    assert view == before


def test_what_a_complete_sweep_missed_is_fetched_and_not_removed() -> None:
    """Only a 404 removes."""
    view = swept()
    fold(view, page(EntityKind.LEASE, 6, lease()), page(EntityKind.LISTING, 6, ListingSnapshot(unit_id=1)))

    last = empty_sweep(view)

    assert refetches(last) == {
        (EntityKind.PROPERTY, 10),
        (EntityKind.UNIT, 1),
        (EntityKind.LEASE, 100),
        (EntityKind.LISTING, 1),
    }
    assert {emit.record.origin for emit in last.emits if isinstance(emit.record, FetchRequest)} == {FetchOrigin.SWEEP}
    assert not unit_row(view).gone

    (gone,) = fold(view, page(EntityKind.UNIT, 20, gone=(1,)))
    assert unit_row(view).gone
    assert dues(gone) == {10}


def test_what_was_fetched_since_the_sweep_began_is_not_missed() -> None:
    view = swept()
    fold(view, page(EntityKind.UNIT, 10, unit(2)))
    assert not refetches(second_sweep(view, 1))


def test_what_is_gone_or_past_is_not_missed() -> None:
    view = swept()
    fold(
        view,
        page(EntityKind.UNIT, 6, unit(2)),
        page(EntityKind.UNIT, 7, gone=(2,)),
        page(EntityKind.LEASE, 8, lease(100), lease(101)),
    )
    fold(view, page(EntityKind.LEASE, 9, lease(100).model_copy(update={"status": LeaseStatus.PAST}), gone=(101,)))
    assert not refetches(second_sweep(view, 1))


def test_a_sweep_with_a_missing_page_is_ignored() -> None:
    view = swept()
    first_three = [page(stage, 10 + at, sweep="s2") for at, stage in enumerate(STAGES[:3])]
    *_, last = fold(view, *first_three, end(1, 1, 1, 1, sweep="s2", seq=9))
    assert (last.verdict, last.counts) == (Disposition.IGNORED, {"incomplete": 1})


def test_a_first_sweep_that_is_torn_offers_nothing() -> None:
    """It may have missed the lease of a vacant unit. The next whole sweep is the first one."""
    view = MemoryView()
    pages = [page(kind, 2 + number, sweep="s1") for number, kind in enumerate(STAGES)]
    torn = fold(view, *pages, end(1, 1, 1, 1, torn=True))[-1]
    row = view.get(account_key(scope("default", "buildium")))

    assert (torn.verdict, torn.counts) == (Disposition.IGNORED, {"incomplete": 1})
    assert not torn.emits
    assert row is None


def test_what_a_torn_sweep_missed_is_not_fetched() -> None:
    """The account changed while it was read: an entity may have moved from a later page to an earlier one."""
    torn = empty_sweep(swept(), torn=True)
    assert torn.verdict is Disposition.APPLIED
    assert not refetches(torn)


def test_a_mass_removal_is_held_back() -> None:
    """A PMS that answers with an empty list must not empty the market."""
    view = swept()
    fold(view, page(EntityKind.UNIT, 6, *(unit(number) for number in range(1, 41))))
    last = second_sweep(view)
    assert last.counts == {"held_back": 40}
    assert not refetches(last)


def test_many_ended_leases_are_not_held_back_while_some_remain() -> None:
    """Leases end in great numbers on ordinary days; only an empty list of them is suspicious."""

    def missed(*remaining: int) -> FoldResult:
        view = swept()
        fold(view, page(EntityKind.LEASE, 6, *(lease(number) for number in range(100, 140))))
        return second_sweep(view, 1, leases=remaining)

    assert missed().counts == {"held_back": 40}
    assert len(refetches(missed(100))) == 39
