"""How an account is read whole, step by step."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.ports import Found, PageOf
from schemas.base import EntityKind
from schemas.codec import decode_as
from schemas.integrations import SyncProgress
from schemas.pms import SweepStep
from schemas.rent_roll import Page, SweepEnd, UnitSnapshot
from streams.core.rent_roll import STAGES
from streams.core.rent_roll.keys import stamp
from streams.core.sweep import (
    AGAIN,
    ITEMS_A_RECORD,
    PAGES_AT_ONCE,
    Admission,
    Read,
    Running,
    after,
    asked_sweep_id,
    begun,
    covers,
    following,
    is_asked,
    offsets,
    pages,
    progress,
    sequences,
    sweep_id,
    without,
)

NOW = datetime(2026, 3, 1, 12, 7, 30, tzinfo=UTC)
AT = NOW + timedelta(seconds=2)
FIRST = SweepStep(org="default", connection="buildium", sweep="s1", started_at=NOW, seq=5, stage=EntityKind.PROPERTY)


def step(**more: object) -> SweepStep:
    return FIRST.model_copy(update=more)


def found(number: int) -> Found:
    return Found(EntityKind.UNIT, number, UnitSnapshot(id=number, property_id=10, code=f"{number}"))


def brought(first: int, rows: int, total: int | None, seq: int = 100) -> tuple[Read, PageOf]:
    return Read(first, seq), PageOf(tuple(found(first + row) for row in range(rows)), rows, total)


def going_on(following: SweepStep | SweepEnd) -> SweepStep:
    assert isinstance(following, SweepStep)
    return following


@pytest.mark.parametrize(
    ("offset", "total", "size", "wants"),
    [
        (0, None, 100, (0,)),
        (300, None, 100, (300,)),
        (0, 0, 100, (0,)),
        (100, 250, 100, (100, 200)),
        (100, 200, 100, (100,)),
        (100, 201, 100, (100, 200)),
        (200, 200, 100, (200,)),
        (300, 200, 100, (300,)),
        (100, 5000, 100, tuple(range(100, 1100, 100))),
    ],
)
def test_a_step_makes_one_call_until_it_is_known_how_long_the_list_is(
    offset: int, total: int | None, size: int, wants: tuple[int, ...]
) -> None:
    """Then as many as a second's budget allows, and never none."""
    assert offsets(step(offset=offset, total=total), size) == wants
    assert len(wants) <= PAGES_AT_ONCE


@pytest.mark.parametrize(("size", "needs"), [(1, 1), (100, 1), (500, 1), (501, 2), (1000, 2), (1001, 3)])
def test_a_call_takes_a_sequence_for_each_record_that_it_may_fill(size: int, needs: int) -> None:
    assert sequences(size) == needs
    (_, page) = brought(0, size, size)
    assert len(pages(step(), [(Read(0, 100), page)], AT)) == needs


def test_a_long_page_is_split_into_records_in_the_order_of_their_sequences() -> None:
    """Numbered on from what the stage has written before."""
    made = pages(step(stage=EntityKind.UNIT, page=3), [brought(0, 1200, 2400, 100), brought(1200, 30, 2400, 103)], AT)
    assert [(page.seq, page.number, len(page.items)) for page in made] == [
        (100, 3, ITEMS_A_RECORD),
        (101, 4, ITEMS_A_RECORD),
        (102, 5, 200),
        (103, 6, 30),
    ]
    assert [item.id for page in made for item in page.items] == list(range(1230))
    assert {(page.org, page.connection, page.kind, page.sweep, page.fetched_at) for page in made} == {
        ("default", "buildium", EntityKind.UNIT, "s1", AT)
    }
    item = made[1].items[0]
    assert decode_as(UnitSnapshot, item.body).id == item.id == 500
    assert item.parent == 10


def test_an_empty_page_is_a_record_too() -> None:
    """The rent roll counts the pages of a sweep before it believes that something is missing."""
    (page,) = pages(step(), [brought(0, 0, 0)], AT)
    assert (page.items, page.number) == ((), 0)


def test_a_stage_goes_on_until_all_that_the_pms_counted_is_read() -> None:
    reads = [brought(100, 100, 450), brought(200, 100, 450)]
    following = going_on(after(step(offset=100, page=1, total=450, entities=100), reads, pages(step(), reads, AT), AT))
    assert following == step(offset=300, page=3, total=450, entities=300, page_rows=100)


def test_the_next_offset_follows_from_the_rows_that_came() -> None:
    """The PMS may send fewer rows than it is asked for, at first or at any time: nothing is skipped."""
    first = going_on(after(step(), [brought(0, 500, 2500)], [], AT))
    assert offsets(first, 1000) == (500, 1000, 1500, 2000)
    short = [brought(500, 500, 2500), brought(1000, 300, 2500), brought(1500, 500, 2500), brought(2000, 500, 2500)]
    second = going_on(after(first, short, [], AT))
    assert (second.offset, second.entities) == (1300, 1300)
    assert offsets(second, 1000) == (1300, 1800, 2300)


def test_a_list_of_unknown_length_ends_with_an_empty_page() -> None:
    """One call at a time."""
    one = going_on(after(step(), [brought(0, 100, None)], [], AT))
    assert offsets(one, 100) == (100,)
    two = going_on(after(one, [brought(100, 40, None)], [], AT))
    following = going_on(after(two, [brought(140, 0, None)], [], AT))
    assert (two.offset, following.stage, following.torn, following.entities) == (140, EntityKind.UNIT, False, 140)


def test_a_count_beyond_all_bounds_costs_nothing() -> None:
    assert len(offsets(step(total=10**15), 1)) == PAGES_AT_ONCE


def test_a_list_that_shrinks_while_it_is_read_is_read_again() -> None:
    """A row that left the first page has moved another one into it, which no later page brings."""
    first = going_on(after(step(entities=7), [brought(0, 1000, 1500)], [], AT))
    again = going_on(after(first, [brought(1000, 499, 1499)], [], AT))
    assert again == step(entities=7, again=1)
    first = going_on(after(again, [brought(0, 1000, 1499)], [], AT))
    following = going_on(after(first, [brought(1000, 499, 1499)], [], AT))
    assert (following.stage, following.torn, following.again) == (EntityKind.UNIT, False, 0)
    assert following.entities == 7 + 1499


def test_a_list_that_grows_while_it_is_read_is_whole() -> None:
    """What is new has the highest ids."""
    first = going_on(after(step(), [brought(0, 100, 150)], [], AT))
    following = going_on(after(first, [brought(100, 51, 151)], [], AT))
    assert (following.stage, following.torn) == (EntityKind.UNIT, False)


def test_after_a_stage_comes_the_next_one() -> None:
    """From its beginning, with nothing known of its length."""
    reads = [brought(100, 50, 150)]
    following = going_on(after(step(offset=100, page=1, total=150, entities=100), reads, pages(step(), reads, AT), AT))
    assert following == step(stage=EntityKind.UNIT, entities=150, pages=(2,))


def test_after_the_last_stage_comes_the_end() -> None:
    """It has the number of pages of each stage, and a sequence older than all of them."""
    last = step(stage=STAGES[-1], offset=100, page=1, total=150, entities=400, pages=(1, 2, 3))
    reads = [brought(100, 50, 150)]
    assert after(last, reads, pages(last, reads, AT), AT) == SweepEnd(
        org="default",
        connection="buildium",
        sweep="s1",
        seq=5,
        started_at=NOW,
        ended_at=AT,
        pages=(1, 2, 3, 2),
        entities=450,
    )


@pytest.mark.parametrize(
    ("reads", "torn"),
    [
        ([brought(100, 50, 150)], False),
        ([brought(100, 50, 149)], True),
        ([brought(100, 0, 150)], True),
        ([brought(100, 100, 250), brought(200, 0, 250)], True),
        ([brought(100, 0, 100)], False),
        ([brought(100, 100, 300), brought(200, 50, 250)], True),
    ],
)
def test_a_stage_that_brought_another_number_than_was_counted_is_torn(
    reads: list[tuple[Read, PageOf]], torn: bool
) -> None:
    """If it was begun again before: it ends all the same, and the sweep stays torn to its end."""
    one = step(offset=100, page=1, total=reads[0][1].total, again=AGAIN)
    following = going_on(after(one, reads, pages(step(), reads, AT), AT))
    assert (following.stage, following.torn) == (EntityKind.UNIT, torn)
    rest: SweepStep | SweepEnd = following
    while isinstance(rest, SweepStep):
        rest = after(rest, [brought(0, 0, 0)], pages(rest, [brought(0, 0, 0)], AT), AT)
    assert rest.torn is torn


def whole(rng: random.Random, counts: dict[EntityKind, int], size: int, moves: int) -> tuple[list[Page], SweepEnd]:
    """Read an account that grows and shrinks ``moves`` times meanwhile."""
    record: SweepStep | SweepEnd = FIRST
    seq = 10
    written: list[Page] = []
    for _ in range(10_000):
        if isinstance(record, SweepEnd):
            return written, record
        reads = []
        for offset in offsets(record, size):
            if moves and rng.random() < 0.3:
                counts[record.stage] = max(0, counts[record.stage] + rng.randrange(-size, size))
                moves -= 1
            total = counts[record.stage]
            reads.append(brought(offset, max(0, min(size, total - offset)), total, seq))
            seq += sequences(size)
        made = pages(record, reads, AT)
        written += made
        record = after(record, reads, made, AT)
    raise AssertionError("a sweep that never ends")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=4, max_size=4), st.integers(1, 12))
def test_an_account_at_rest_is_read_once_and_whole(counts: list[int], size: int) -> None:
    """Every entity in exactly one page, the pages numbered without a gap, their sequences in order."""
    by_stage = dict(zip(STAGES, counts, strict=True))
    written, end = whole(random.Random(0), dict(by_stage), size, moves=0)
    assert not end.torn
    assert end.entities == sum(counts)
    for stage, number in zip(STAGES, end.pages, strict=True):
        of_stage = [page for page in written if page.kind is stage]
        assert [page.number for page in of_stage] == list(range(number))
        assert [item.id for page in of_stage for item in page.items] == list(range(by_stage[stage]))
    assert [page.seq for page in written] == sorted({page.seq for page in written})


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 20))
def test_a_sweep_of_a_moving_account_ends(seed: int, size: int, moves: int) -> None:
    """With the number of pages that it wrote, so that the rent roll finds each of them."""
    rng = random.Random(seed)
    written, end = whole(rng, {stage: rng.randrange(60) for stage in STAGES}, size, moves)
    for stage, number in zip(STAGES, end.pages, strict=True):
        numbers = [page.number for page in written if page.kind is stage]
        last_begun = len(numbers) - numbers[::-1].index(0) - 1
        assert numbers[last_begun:] == list(range(number))
        assert numbers.count(0) <= AGAIN + 1


@pytest.mark.parametrize(
    ("now", "every", "name"),
    [
        (NOW, 900.0, "20260301T120000Z"),
        (NOW, 60.0, "20260301T120700Z"),
        (NOW, 3600.0, "20260301T120000Z"),
        (datetime.fromisoformat("2026-03-01T05:07:30-07:00"), 900.0, "20260301T120000Z"),
    ],
)
def test_a_sweep_is_named_by_its_slot_of_time(now: datetime, every: float, name: str) -> None:
    """Every worker names it alike, whatever its zone."""
    assert sweep_id(now, every) == name


def test_the_names_of_sweeps_are_in_the_order_of_time() -> None:
    names = [sweep_id(NOW + timedelta(minutes=minutes), 900.0) for minutes in range(0, 3 * 24 * 60, 15)]
    assert names == sorted(set(names))


def test_a_sweep_may_start_at_any_second_and_its_name_fits_between_those_of_the_slots() -> None:
    """An enabled connection is swept at once: its sweep is newer than the slot's, and older than the next slot's."""
    assert stamp(NOW) == stamp(NOW.astimezone(timezone(timedelta(hours=-7)))) == "20260301T120730Z"
    assert sweep_id(NOW, 900.0) < stamp(NOW) < sweep_id(NOW + timedelta(minutes=15), 900.0)


def test_a_kind_that_may_not_be_read_is_left_out_and_the_sweep_continues() -> None:
    """With the pages that were written of it before, so that the rent roll finds each of them."""
    unread = step(stage=EntityKind.LEASE, page=2, offset=200, total=450, pages=(1, 1), entities=300)
    following = going_on(without(unread, AT))
    assert following == step(stage=EntityKind.LISTING, pages=(1, 1, 2), entities=300, denied=(EntityKind.LEASE,))
    end = without(following, AT)
    assert isinstance(end, SweepEnd)
    assert (end.pages, end.denied) == ((1, 1, 2, 0), (EntityKind.LEASE, EntityKind.LISTING))
    assert not end.torn


def test_what_was_left_out_stays_named_to_the_end() -> None:
    rest: SweepStep | SweepEnd = without(step(), AT)
    while isinstance(rest, SweepStep):
        rest = after(rest, [brought(0, 0, 0)], pages(rest, [brought(0, 0, 0)], AT), AT)
    assert (rest.denied, rest.pages) == ((EntityKind.PROPERTY,), (0, 1, 1, 1))


@pytest.mark.parametrize("failed", [None, "Buildium answered 500"])
def test_progress_shows_the_stage_and_how_much_of_it_is_read(failed: str | None) -> None:
    one = step(stage=EntityKind.LISTING, offset=200, total=450, page=2, denied=(EntityKind.LEASE,))
    assert progress(one, AT, failed) == SyncProgress(
        org="default",
        name="buildium",
        sweep="s1",
        started_at=NOW,
        at=AT,
        stage=EntityKind.LISTING,
        number=4,
        stages=4,
        read=200,
        total=450,
        failed=failed,
        denied=(EntityKind.LEASE,),
    )


SECOND = timedelta(seconds=1)
YES, BUSY, REPEATED = Admission.YES, Admission.BUSY, Admission.REPEATED


def test_a_second_sweep_waits_while_the_first_is_under_way() -> None:
    """Until it ends or makes no step for a while; its own steps continue."""
    running = Running(timedelta(minutes=2))
    assert running.admits(step(), NOW) is YES
    assert running.admits(step(offset=100), NOW + 100 * SECOND) is YES
    assert running.admits(step(sweep="s2"), NOW + 219 * SECOND) is BUSY
    assert running.admits(step(sweep="s2", connection="other"), NOW + 219 * SECOND) is YES
    assert running.admits(step(sweep="s2", org="other"), NOW + 219 * SECOND) is YES
    assert running.admits(step(sweep="s2"), NOW + 220 * SECOND) is YES


@pytest.mark.parametrize("end", ["completed", "ended"])
def test_a_sweep_that_ended_makes_room_for_the_next(end: str) -> None:
    running = Running()
    assert running.admits(step(), NOW) is YES
    running.ended("default", "another")
    running.completed(step(connection="another"))
    assert running.admits(step(sweep="s2"), NOW) is BUSY
    if end == "ended":
        running.ended("default", "buildium")
    else:
        running.completed(step())
    assert running.admits(step(sweep="s2"), NOW) is YES


def test_a_step_in_the_middle_is_never_refused() -> None:
    """A new owner of the partition knows of no sweep, and one that went on is not cut off."""
    running = Running()
    assert running.admits(step(stage=EntityKind.UNIT), NOW) is YES
    assert running.admits(step(sweep="s2"), NOW) is BUSY
    assert running.admits(step(sweep="s2", offset=100), NOW) is YES
    assert running.admits(step(sweep="s3", stage=EntityKind.LEASE), NOW) is YES


def test_a_step_that_was_made_is_not_made_again() -> None:
    """Neither are those before it. One that failed is, and so is a stage that is begun again."""
    running = Running()
    first, second = step(stage=EntityKind.UNIT), step(stage=EntityKind.UNIT, offset=100)
    for one in (step(), first):
        running.admits(one, NOW)
        running.made(one)

    assert [running.admits(one, NOW) for one in (step(), first, second, second)] == [REPEATED, REPEATED, YES, YES]
    running.made(second)
    again = step(stage=EntityKind.UNIT, again=1)
    assert [running.admits(one, NOW) for one in (second, again)] == [REPEATED, YES]
    running.completed(again)
    assert running.admits(step(stage=EntityKind.LEASE), NOW) is REPEATED


def test_what_was_made_is_forgotten_with_the_ownership_or_a_failure() -> None:
    """It may have led to nothing: its successor was not written, or is a dead letter that is replayed."""
    running = Running()
    for org in ("default", "other"):
        running.admits(step(org=org), NOW)
        running.made(step(org=org))
    running.forget(lambda org: org == "other")
    assert [running.admits(step(org=org), NOW) for org in ("default", "other")] == [REPEATED, YES]
    running.ended("default", "buildium")
    assert running.admits(step(), NOW) is YES


def test_a_sweep_that_waited_is_named_by_when_it_begins() -> None:
    """Its results come after those of the sweep that it waited for. Its further steps keep the name."""
    asked = step(sweep=asked_sweep_id(NOW)).model_copy(update={"asked": True, "started_at": NOW, "seq": 0})
    later = NOW + timedelta(minutes=1)
    first = begun(asked, later)

    assert first.started_at == later
    assert first.sweep.startswith(sweep_id(later, 1.0))
    assert is_asked(first.sweep)
    assert first.sweep > sweep_id(later, 1.0) > asked.sweep
    assert begun(first.model_copy(update={"seq": 7}), later + timedelta(minutes=1)).sweep == first.sweep
    assert begun(asked, NOW) == asked
    scheduled = step(sweep="s1", seq=0)
    assert begun(scheduled, later) == scheduled
    assert not is_asked(sweep_id(NOW, 900.0))


def test_two_requests_of_one_second_are_two_sweeps() -> None:
    """The second one may confirm removals. They stay two when they begin at the same moment."""
    first, second = asked_sweep_id(NOW), asked_sweep_id(NOW + timedelta(microseconds=1))
    later = NOW + timedelta(minutes=1)
    begins = [
        begun(step(sweep=sweep).model_copy(update={"asked": True, "started_at": NOW, "seq": 0}), later).sweep
        for sweep in (first, second)
    ]

    assert first < second
    assert begins[0] < begins[1]
    assert covers(begins[1], first)
    assert covers(begins[1], second)
    assert not covers(begins[0], second)
    assert not covers(sweep_id(later, 1.0), first)
    assert following(first) == following(sweep_id(NOW, 1.0))
