"""Tests of one step of a replay: what it writes, when it waits, and what ends it."""

import asyncio
from typing import Any

from schemas import topics
from schemas.codec import encode
from schemas.replay import ReplayOrder, ReplayProgress, ReplayStep, ReplayWish
from streams.backends.memory import MemoryBackend, MemoryBroker, MovableClock, settle
from streams.backends.ports import BackendError, ConsumedRecord
from streams.core.flows import Disposition, Emit, ProducerRecord
from streams.core.replays import Chains
from streams.core.retry import Dead, Done, Held, Reason
from streams.flows.replay_records import MOST_WAITING, PATIENCE, ReplayRecords
from streams.replays.book import ReplayBook
from tests.streams.core.test_replays import FETCH, planned, progress
from tests.streams.replays.test_book import apply


class Broken(MemoryBackend):
    """Cannot be read."""

    async def read(self, *_: Any) -> Any:
        raise BackendError("no broker answers")


class Setup:
    """A replay of five webhooks, of which one cannot be read and one is gone."""

    def __init__(self, backend: type[MemoryBackend] = MemoryBackend) -> None:
        self.clock = MovableClock()
        broker = MemoryBroker(self.clock, 1)
        for value in (encode(FETCH), b"\x00poison", encode(FETCH), encode(FETCH)):
            broker.append(ProducerRecord(topics.WEBHOOKS.name, b"o", value))
        self.book = ReplayBook()
        self.plan = planned((0, 1, 2, 3, 9), rate=6).model_copy(update={"source": topics.WEBHOOKS.name})
        apply(self.book, self.plan)
        self.order(ReplayWish.RUN)
        self.waiting = 0
        self.flow = ReplayRecords(self.book, backend(broker), self.clock, Chains(), lambda: self.waiting)

    def order(self, wish: ReplayWish) -> None:
        apply(self.book, ReplayOrder(org="o", id="r1", wish=wish, at=self.clock.now(), by="ann"))

    @staticmethod
    def value(position: int = 0) -> bytes:
        return encode(ReplayStep(org="o", id="r1", progress=progress(position)))

    def begin(self, position: int = 0) -> "asyncio.Task[Done]":
        record = ConsumedRecord(topics.REPLAY_STEPS.name, 0, 0, 0, b"o", self.value(position), ())
        assert self.flow.key(record) == ("o", "replay r1")
        return asyncio.create_task(self.flow.perform([record]))

    async def step(self, position: int = 0) -> Done:
        """Make a step; its time passes."""
        task = self.begin(position)
        while not task.done():
            await self.clock.advance(0.1)
        return task.result()


def written(done: Done) -> list[str]:
    return [one.topic.name for one in done.effects]


def progress_of(done: Done) -> ReplayProgress:
    (found,) = [one.record for one in done.effects if isinstance(one.record, ReplayProgress)]
    return found


async def test_a_step_writes_its_records_then_the_progress_then_the_next_step() -> None:
    here = Setup()
    done = await here.step()
    webhook = topics.WEBHOOKS.name
    assert written(done) == [webhook, webhook, topics.REPLAY_STATES.name, topics.REPLAY_STEPS.name]
    found = progress_of(done)
    assert (found.position, found.replayed, found.unreadable, found.ended_at) == (3, 2, 1, None)


async def test_the_last_step_ends_the_replay_and_empties_its_plan() -> None:
    here = Setup()
    done = await here.step(3)
    assert written(done) == [topics.WEBHOOKS.name, topics.REPLAY_STATES.name, topics.REPLAY_STATES.name]
    found = progress_of(done)
    assert (found.position, found.replayed, found.gone) == (5, 1, 1)
    assert found.ended_at == found.at > found.began_at
    kept = done.effects[-1].record
    assert kept == here.plan.model_copy(update={"parts": ()})


async def test_a_step_behind_the_last_record_ends_the_replay() -> None:
    done = await Setup().step(5)
    assert progress_of(done).ended_at is not None


async def test_a_step_takes_the_time_of_its_rate() -> None:
    here = Setup()
    task = here.begin()
    await here.clock.advance(0.4)
    assert not task.done()
    await here.clock.advance(0.2)
    assert task.done()


async def test_a_step_is_made_once() -> None:
    here = Setup()
    await here.step()
    assert await here.step() == Done(ending=Disposition.DUPLICATE)
    assert progress_of(await here.step(3)).ended_at is not None


async def test_it_rests_while_replayed_records_wait_behind_live_ones() -> None:
    """And is written again after a while, so that it can be paused or get another owner."""
    here = Setup()
    here.waiting = MOST_WAITING + 1
    task = here.begin()
    await here.clock.advance(PATIENCE - 1)
    assert not task.done()
    here.waiting = MOST_WAITING
    await here.clock.advance(0.2)
    assert progress_of(await task).position == 3

    here.waiting = MOST_WAITING + 1
    done = await here.step(3)
    assert written(done) == [topics.REPLAY_STATES.name, topics.REPLAY_STEPS.name]
    assert progress_of(done).position == 3
    assert isinstance(done.effects[-1], Emit)
    here.waiting = 0
    assert progress_of(await here.step(3)).position == 5


async def test_a_person_stops_it_at_any_time() -> None:
    here = Setup()
    task = here.begin()
    await settle()
    here.order(ReplayWish.PAUSE)
    await here.clock.advance(1)
    assert await task == Done(ending=Disposition.IGNORED)
    assert await here.step() == Done(ending=Disposition.IGNORED)
    here.order(ReplayWish.RUN)
    assert progress_of(await here.step()).position == 3


async def test_without_a_broker_it_rests(caplog: Any) -> None:
    here = Setup(Broken)
    assert await here.step() == Done(ending=Disposition.IGNORED)
    assert "no broker answers" in caplog.text


async def test_a_step_that_cannot_be_written_pauses_its_replay() -> None:
    """It is a dead letter for people; when they go on with the replay, the same step is made again."""
    here = Setup()
    await here.step()
    record = ConsumedRecord(topics.REPLAY_STEPS.name, 0, 0, 0, b"o", here.value(), ())
    given_up = here.flow.unfinished(record, Dead(Reason.TOO_LARGE, "a record of 9 MiB"))
    assert isinstance(given_up, Dead)
    (order,) = (one.record for one in given_up.effects)
    assert isinstance(order, ReplayOrder)
    assert (order.wish, order.by) == (ReplayWish.PAUSE, "worker, too_large")
    assert progress_of(await here.step()).position == 3

    held = here.flow.unfinished(record, Held(Reason.BUG, "nothing succeeds"))
    assert held == Done(ending=Disposition.IGNORED)


async def test_a_step_of_an_unknown_replay_is_ignored() -> None:
    here = Setup()
    here.book.apply(topics.REPLAY_STATES.name, b"o/r1/plan", None)
    assert await here.step() == Done(ending=Disposition.IGNORED)
