"""When the full read of an account starts: in every slot of time, and when its connection is enabled."""

from datetime import timedelta
from typing import Any

from schemas import topics
from schemas.base import EntityKind
from schemas.integrations import Integration
from schemas.partitions import partition_for
from schemas.pms import STAGES, SweepStep
from schemas.rent_roll import Page, SweepEnd
from streams.core.rent_roll import seen_key
from streams.core.rent_roll.keys import stamp
from streams.flows.schedule_sweeps import LOOK, ScheduleSweeps
from streams.topology import RENT_ROLL
from tests.streams.core.rent_roll.rolls import PREFIX, building, end, fold, page
from tests.streams.core.views import MemoryView
from tests.streams.directory.records import AT
from tests.streams.flows.parts import CONNECTION, NOW, ORG, Site, account, emits_of, receiver, unwritten

PARTITIONS = 4
HOME = partition_for(ORG, PARTITIONS)
EVERY = 900.0
SLOT, NEXT = "20260301T120000Z", "20260301T121500Z"


class Desk:
    """The scan over a rent roll in memory."""

    def __init__(self, *integrations: Integration, share: float = 0.0) -> None:
        self.share = share
        self.site = Site(*integrations, receiver())
        self.roll = MemoryView()
        self.scan = self.scan_of_another_worker()

    def scan_of_another_worker(self) -> ScheduleSweeps:
        return ScheduleSweeps(self.site.directory, EVERY, PARTITIONS, self.site.clock, lambda _name: self.share)

    def look(self, partition: int = HOME) -> list[SweepStep]:
        steps = []
        for emit in emits_of(self.scan.step({RENT_ROLL: self.roll}, partition)):
            assert emit.topic is topics.SWEEPS
            assert isinstance(emit.record, SweepStep)
            steps.append(emit.record)
        return steps

    def sweeps(self) -> list[str]:
        return [one.sweep for one in self.look()]


def enabled(minutes: float = 0, **more: Any) -> Integration:
    """Return the connection as it is after it was enabled at a moment."""
    return account(enabled_at=NOW + timedelta(minutes=minutes), **more)


async def test_a_sweep_starts_in_every_slot() -> None:
    """Once, with its first step."""
    desk = Desk(account())
    first = desk.look()
    again = desk.look()
    await desk.site.clock.advance(EVERY - LOOK)
    late = desk.look()
    await desk.site.clock.advance(LOOK)

    assert first == [SweepStep(org=ORG, connection=CONNECTION, sweep=SLOT, started_at=NOW, stage=EntityKind.PROPERTY)]
    assert again == late == []
    assert desk.sweeps() == [NEXT]


async def test_the_slots_of_accounts_begin_at_different_times() -> None:
    """An account that was never swept does not wait for its slot."""
    desk = Desk(account(), share=0.5)
    first = desk.sweeps()
    await desk.site.clock.advance(EVERY / 2 - LOOK)
    early = desk.sweeps()
    await desk.site.clock.advance(LOOK)

    assert (first, early, desk.sweeps()) == (["20260301T115230Z"], [], ["20260301T120730Z"])


async def test_the_accounts_of_a_partition_are_looked_at_from_time_to_time_and_after_a_change() -> None:
    """There may be a thousand of them, and a scan is made every second."""
    desk = Desk(account())
    desk.look()
    await desk.site.clock.advance(EVERY - 1)
    assert desk.look() == []
    await desk.site.clock.advance(1)
    assert desk.look() == [], "the last look was a second ago"
    desk.site.put(account(version=2))
    assert desk.sweeps() == [NEXT]


async def test_a_connection_that_is_enabled_is_swept_at_once() -> None:
    """Although the sweep of this slot has been made: what happened while it was disabled was not followed."""
    desk = Desk(account())
    desk.look()
    desk.site.put(account(enabled=False, version=2))
    await desk.site.clock.advance(60)
    disabled = desk.sweeps()
    await desk.site.clock.advance(60)
    desk.site.put(enabled(2, version=3))
    (step,) = desk.look()
    again = desk.sweeps()
    await desk.site.clock.advance(EVERY - 120)

    assert disabled == []
    assert (step.sweep, step.started_at) == (stamp(NOW + timedelta(minutes=2)), NOW + timedelta(minutes=2))
    assert again == []
    assert desk.sweeps() == [NEXT]


async def test_a_connection_that_is_disabled_or_held_is_not_swept() -> None:
    """A held one is swept as soon as its key is back."""
    desk = Desk(enabled(enabled=False), enabled(name="second", key="k9"))
    nothing = desk.sweeps()
    await desk.site.clock.advance(60)
    desk.site.put(enabled(name="second"))

    assert nothing == []
    assert desk.sweeps() == [SLOT]


async def test_a_connection_that_is_deleted_and_created_again_is_swept_at_once() -> None:
    desk = Desk(enabled())
    desk.look()
    desk.site.delete(CONNECTION)
    await desk.site.clock.advance(60)
    deleted = desk.sweeps()
    desk.site.put(enabled(1, created_at=AT + timedelta(minutes=1)))

    assert deleted == []
    assert desk.sweeps() == [stamp(NOW + timedelta(minutes=1))]


def test_a_sweep_that_the_rent_roll_shows_is_not_started_again() -> None:
    """Another worker began it, or has completed it."""
    desk = Desk(account())
    fold(desk.roll, page(EntityKind.PROPERTY, 2, building(), sweep=SLOT))
    begun = desk.sweeps()
    desk.roll, desk.scan = MemoryView(), desk.scan_of_another_worker()
    fold(desk.roll, *complete(SLOT))
    del desk.roll[seen_key(PREFIX, EntityKind.PROPERTY, 0)]

    assert begun == desk.sweeps() == []


def test_an_older_sweep_in_the_rent_roll_does_not_count() -> None:
    desk = Desk(account())
    fold(desk.roll, *complete("20260301T114500Z"))

    assert desk.sweeps() == [SLOT]


def complete(sweep: str) -> list[Page | SweepEnd]:
    """Return a complete sweep that brings nothing."""
    return [
        *(page(kind, 10 + at, sweep=sweep) for at, kind in enumerate(STAGES)),
        end(1, 1, 1, 1, sweep=sweep, seq=9),
    ]


def test_connections_of_other_partitions_are_left_to_their_owners() -> None:
    org = next(one for one in ("a", "b", "c", "d", "e") if partition_for(one, PARTITIONS) != HOME)
    desk = Desk(account(), account(org), account(name="second"))
    here = [(one.org, one.connection) for one in desk.look()]
    there = [(one.org, one.connection) for one in desk.look(partition_for(org, PARTITIONS))]

    assert here == [(ORG, CONNECTION), (ORG, "second")]
    assert there == [(org, CONNECTION)]


def test_a_clock_that_is_behind_the_one_that_enabled_does_not_name_a_sweep_of_the_future() -> None:
    """Else the slots until then were taken for done."""
    assert Desk(enabled(minutes=30)).sweeps() == [SLOT]


async def test_a_sweep_that_a_clock_ahead_has_named_does_not_keep_others_from_starting() -> None:
    """They are named after it, at the usual interval, so that they count as newer; also after a step of this clock."""
    desk = Desk(account())
    ahead = "20260301T181500Z"
    fold(desk.roll, page(EntityKind.PROPERTY, 100, building(10), sweep=ahead))
    found = [desk.sweeps(), desk.sweeps()]
    fold(desk.roll, page(EntityKind.PROPERTY, 200, building(10), sweep="20260301T181501Z"))
    for _ in range(2):
        await desk.site.clock.advance(EVERY)
        found += [desk.sweeps(), desk.sweeps()]

    assert found == [["20260301T181501Z"], [], ["20260301T181502Z"], [], ["20260301T181503Z"], []]
    await desk.site.clock.advance(7 * 3600)
    assert desk.sweeps() == ["20260301T193000Z"]


async def test_a_sweep_whose_first_step_was_not_written_starts_with_the_next_look() -> None:
    """Also one that is named after a sweep that is ahead of the time."""
    desk = Desk(account())
    assert len(unwritten(desk.scan.step({RENT_ROLL: desk.roll}, HOME))) == 1
    assert desk.sweeps() == [SLOT]

    fold(desk.roll, page(EntityKind.PROPERTY, 100, building(10), sweep="20260301T181500Z"))
    desk.scan = desk.scan_of_another_worker()
    assert len(unwritten(desk.scan.step({RENT_ROLL: desk.roll}, HOME))) == 1
    assert len(desk.sweeps()) == 1
