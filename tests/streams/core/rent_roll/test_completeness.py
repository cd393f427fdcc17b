"""The end of a sweep: what it missed is fetched by its id, and removed if it does not exist."""

from collections.abc import Iterable
from datetime import timedelta

from schemas import topics
from schemas.base import EntityKind
from schemas.codec import decode_as
from schemas.delivery import DeliveryDue, DueReason
from schemas.integrations import SyncResult
from schemas.pms import RecheckStep
from schemas.rent_roll import AccountRow, LeaseStatus, ListingSnapshot
from streams.core.flows import Disposition, FoldResult
from streams.core.rent_roll import STAGES, account_key, scope
from tests.streams.core.rent_roll.rolls import (
    NOW,
    PREFIX,
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
    assert not asked(second)


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

    assert set(asked(last)) == {EntityKind.PROPERTY, EntityKind.UNIT, EntityKind.LEASE}
    assert [one.denied for one in results(last)] == [(EntityKind.LISTING,)]
    assert unit_row(view).listing is not None


def test_the_end_of_an_older_sweep_is_ignored() -> None:
    view = swept()
    before = dict(view)
    (older,) = fold(view, end(1, 1, 1, 1, sweep="s0", seq=0))
    assert older.verdict is Disposition.IGNORED
    assert view == before


def test_a_sweep_after_one_of_a_worker_whose_clock_is_ahead_counts() -> None:
    """Its time is earlier, but it was begun later."""
    view = swept()
    pages = [page(kind, 40 + at, sweep="s3") for at, kind in enumerate(STAGES)]
    ahead = end(1, 1, 1, 1, sweep="s2", seq=30)
    ahead = ahead.model_copy(update={"started_at": NOW + timedelta(hours=6), "ended_at": NOW + timedelta(hours=6)})
    fold(view, *(page(kind, 31 + at, sweep="s2") for at, kind in enumerate(STAGES)), ahead)
    *_, later = fold(view, *pages, end(1, 1, 1, 1, sweep="s3", seq=39))

    assert later.verdict is Disposition.APPLIED
    assert decode_as(AccountRow, view[account_key(PREFIX)]).sweep == "s3"


def test_what_a_complete_sweep_missed_is_fetched_and_not_removed() -> None:
    """Only a 404 removes."""
    view = swept()
    fold(view, page(EntityKind.LEASE, 6, lease()), page(EntityKind.LISTING, 6, ListingSnapshot(unit_id=1)))

    last = empty_sweep(view)

    assert asked(last) == {
        EntityKind.PROPERTY: (10,),
        EntityKind.UNIT: (1,),
        EntityKind.LEASE: (100,),
        EntityKind.LISTING: (1,),
    }
    assert guarded(last) == set()
    assert not unit_row(view).gone

    (gone,) = fold(view, page(EntityKind.UNIT, 20, gone=(1,)))
    assert unit_row(view).gone
    assert dues(gone) == {10}


def test_what_was_fetched_since_the_sweep_began_is_not_missed() -> None:
    view = swept()
    fold(view, page(EntityKind.UNIT, 10, unit(2)))
    assert not asked(second_sweep(view, 1))


def test_what_is_gone_or_past_is_not_missed() -> None:
    view = swept()
    fold(
        view,
        page(EntityKind.UNIT, 6, unit(2)),
        page(EntityKind.UNIT, 7, gone=(2,)),
        page(EntityKind.LEASE, 8, lease(100), lease(101)),
    )
    fold(view, page(EntityKind.LEASE, 9, lease(100).model_copy(update={"status": LeaseStatus.PAST}), gone=(101,)))
    assert not asked(second_sweep(view, 1))


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
    assert not asked(torn)


# ------------------------------------------------------------------------------------------------- many are missing


def account_of(view: MemoryView) -> AccountRow:
    return decode_as(AccountRow, view[account_key(scope("default", "buildium"))])


def of_forty_units() -> MemoryView:
    view = swept()
    fold(view, page(EntityKind.UNIT, 6, *(unit(number) for number in range(1, 41))))
    sweep(view, 1, *range(1, 41))
    return view


def sweep(view: MemoryView, number: int, *units: int, leases: Iterable[int] = (), confirms: bool = False) -> FoldResult:
    """Fold a later sweep, which brings the property and these units and leases."""
    first, name = number * 100, f"later{number}"
    last = end(1, 1, 1, 1, sweep=name, seq=first)
    *_, result = fold(
        view,
        page(EntityKind.PROPERTY, first + 1, building(), sweep=name),
        page(EntityKind.UNIT, first + 2, *(unit(one) for one in units), sweep=name),
        page(EntityKind.LEASE, first + 3, *(lease(one) for one in leases), sweep=name),
        page(EntityKind.LISTING, first + 4, sweep=name),
        last.model_copy(update={"confirms_removals": confirms}),
    )
    return result


def answer(view: MemoryView, seq: int, *found: int, gone: Iterable[int] = ()) -> FoldResult:
    """Fold the answers to what a guarded sweep asked for."""
    answered = page(EntityKind.UNIT, seq, *(unit(one) for one in found), gone=tuple(gone))
    (result,) = fold(view, answered.model_copy(update={"guarded": True}))
    return result


def removed(view: MemoryView) -> set[int]:
    return {number for number in range(1, 41) if unit_row(view, number).gone}


def test_what_many_answers_call_gone_waits_for_a_person() -> None:
    """It is asked for, since that is harmless; a PMS that shows an empty account must not empty the market."""
    view = of_forty_units()
    first = sweep(view, 2)
    gone = answer(view, 210, gone=range(1, 41))
    second = sweep(view, 3)
    third = sweep(view, 4)

    assert (asked(first)[EntityKind.UNIT], guarded(first)) == (tuple(range(1, 41)), {EntityKind.UNIT})
    assert (dues(gone), removed(view)) == (set(), set())
    assert (first.counts, second.counts, third.counts) == ({}, {"held_back": 40}, {})
    assert account_of(view).held_back == 40
    assert EntityKind.UNIT not in asked(second)
    assert [one.held_removals for one in results(second)] == [40]


def test_a_person_confirms_that_many_are_gone() -> None:
    """What was not asked for yet is asked for, and a 404 removes it then."""
    view = of_forty_units()
    sweep(view, 2)
    answer(view, 210, gone=range(1, 31))
    confirmed = sweep(view, 3, confirms=True)

    assert removed(view) == set(range(1, 31))
    assert dues(confirmed) == {10}
    assert asked(confirmed)[EntityKind.UNIT] == tuple(range(31, 41))
    assert guarded(confirmed) == set()
    fold(view, page(EntityKind.UNIT, 310, gone=tuple(range(31, 41))))
    assert removed(view) == set(range(1, 41))
    assert account_of(view).held_back == 0


def test_few_of_many_missing_ones_are_removed_once_the_others_have_answered() -> None:
    """The lists do not show thirty units, but only two of them are gone."""
    view = of_forty_units()
    shown = range(31, 41)
    sweep(view, 2, *shown)
    answer(view, 210, *range(3, 31), gone=(1, 2))
    before = removed(view)
    second = sweep(view, 3, *shown)

    assert (before, removed(view)) == (set(), {1, 2})
    assert dues(second) == {10}
    assert (asked(second)[EntityKind.UNIT], guarded(second)) == (tuple(range(3, 31)), set())
    again = sweep(view, 4, *shown)
    assert (removed(view), dues(again)) == ({1, 2}, set())


def test_the_end_of_a_sweep_that_is_folded_again_repeats_what_it_removed() -> None:
    view = of_forty_units()
    sweep(view, 2)
    answer(view, 210, gone=range(1, 41))
    last = end(1, 1, 1, 1, sweep="later3", seq=300).model_copy(update={"confirms_removals": True})
    sweep(view, 3, confirms=True)
    (again,) = fold(view, last)

    assert dues(again) == {10}
    assert removed(view) == set(range(1, 41))


def test_what_comes_back_is_not_removed() -> None:
    """By a sweep that shows it, or by an answer that is newer than the one that it is gone."""
    view = of_forty_units()
    sweep(view, 2)
    answer(view, 210, gone=range(1, 41))
    fold(view, page(EntityKind.UNIT, 220, unit(1, rent=1600)))
    sweep(view, 3, *range(2, 30))
    sweep(view, 4, *range(2, 30), confirms=True)

    assert removed(view) == set(range(30, 41))


def test_an_answer_that_is_older_than_the_next_sweep_removes_nothing_either() -> None:
    view = of_forty_units()
    sweep(view, 2)
    sweep(view, 3)
    late = answer(view, 210, gone=range(1, 41))

    assert (removed(view), refetches(late)) == (set(), set())
    assert sweep(view, 4).counts == {"held_back": 40}


def test_units_are_held_with_their_property() -> None:
    """To remove a property removes its units: twelve of them, although only one property is missing."""
    view = swept()
    fold(view, page(EntityKind.UNIT, 6, *(unit(number) for number in range(1, 13))))
    sweep(view, 1, *range(1, 13))
    pages = [page(stage, 210 + at, sweep="s2") for at, stage in enumerate(STAGES)]
    assert guarded(fold(view, *pages, end(1, 1, 1, 1, sweep="s2", seq=200))[-1]) == {
        EntityKind.PROPERTY,
        EntityKind.UNIT,
    }


def test_ended_leases_are_asked_for_and_end_however_many_they_are() -> None:
    """They still exist, as past ones: nothing is removed, so nothing is held."""
    view = swept()
    fold(view, page(EntityKind.LEASE, 6, *(lease(number) for number in range(100, 140))))
    sweep(view, 1, 1, leases=range(100, 140))
    last = sweep(view, 2, 1)
    past = [lease(number, status=LeaseStatus.PAST) for number in range(100, 140)]
    fold(view, page(EntityKind.LEASE, 210, *past).model_copy(update={"guarded": True}))

    assert asked(last)[EntityKind.LEASE] == tuple(range(100, 140))
    assert unit_row(view).leases == ()
    assert not asked(sweep(view, 3, 1))


def asked(result: FoldResult) -> dict[EntityKind, tuple[int, ...]]:
    """Return what is asked for by id, by kind."""
    return {one.kind: one.ids for one in _steps(result)}


def guarded(result: FoldResult) -> set[EntityKind]:
    """Return the kinds of which a 404 removes nothing yet."""
    return {one.kind for one in _steps(result) if one.guarded}


def _steps(result: FoldResult) -> list[RecheckStep]:
    found = [emit for emit in result.emits if isinstance(emit.record, RecheckStep)]
    assert all(emit.topic is topics.RECHECKS for emit in found)
    return [emit.record for emit in found if isinstance(emit.record, RecheckStep)]
