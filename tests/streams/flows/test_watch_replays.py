"""Tests of the scan that begins replays, and goes on with those whose step is lost."""

from datetime import timedelta

from schemas import topics
from schemas.partitions import partition_for
from schemas.replay import ReplayOrder, ReplayStep, ReplayWish
from streams.backends.memory import MovableClock
from streams.flows.watch_replays import LOST_AFTER, WatchReplays
from streams.replays.book import ReplayBook
from tests.streams.core.test_replays import planned, progress
from tests.streams.flows.parts import emits_of, unwritten
from tests.streams.replays.test_book import apply


class Setup:
    """A worker that owns all partitions, and one replay."""

    def __init__(self) -> None:
        self.clock = MovableClock()
        self.book = ReplayBook()
        apply(self.book, planned(tuple(range(30))))
        self.scan = WatchReplays(self.book, 1, self.clock)

    def order(self, wish: ReplayWish) -> None:
        apply(self.book, ReplayOrder(org="o", id="r1", wish=wish, at=self.clock.now(), by="ann"))

    def moved(self, position: int) -> None:
        apply(self.book, progress(position, replayed=position).model_copy(update={"at": self.clock.now()}))

    async def look(self, after: float = 0) -> list[int]:
        """Return the positions of the steps that are emitted."""
        await self.clock.advance(after)
        found = emits_of(self.scan.step({}, 0))
        assert all(one.topic is topics.REPLAY_STEPS for one in found)
        return [one.record.progress.position for one in found if isinstance(one.record, ReplayStep)]


async def test_a_plan_begins_once_it_is_approved() -> None:
    here = Setup()
    assert await here.look() == []
    here.order(ReplayWish.RUN)
    assert await here.look(1) == [0]
    assert await here.look(1) == [], "it is on its way"


async def test_a_step_that_is_lost_is_emitted_again() -> None:
    here = Setup()
    here.order(ReplayWish.RUN)
    assert await here.look(1) == [0]
    here.moved(10)
    assert await here.look(LOST_AFTER.total_seconds() - 1) == []
    assert await here.look(2) == [10]
    assert await here.look(30) == []
    assert await here.look(31) == [10]


async def test_a_paused_replay_goes_on_where_it_was_and_an_ended_one_does_not() -> None:
    here = Setup()
    here.order(ReplayWish.RUN)
    assert await here.look(1) == [0]
    here.moved(10)
    here.order(ReplayWish.PAUSE)
    assert await here.look(600) == []
    here.order(ReplayWish.RUN)
    assert await here.look(1) == [10]
    here.order(ReplayWish.CANCEL)
    assert await here.look(600) == []


async def test_it_looks_at_the_orgs_of_its_partition() -> None:
    here = Setup()
    here.order(ReplayWish.RUN)
    here.scan = WatchReplays(here.book, 4, here.clock)
    await here.clock.advance(timedelta(seconds=1).total_seconds())
    own = partition_for("o", 4)
    for number in range(4):
        assert bool(emits_of(here.scan.step({}, number))) is (number == own)


async def test_a_step_that_was_not_written_is_emitted_with_the_next_look() -> None:
    here = Setup()
    here.order(ReplayWish.RUN)
    await here.clock.advance(1)
    assert len(unwritten(here.scan.step({}, 0))) == 1
    assert await here.look(1) == [0]
