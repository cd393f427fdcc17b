"""Tests of the runner of a redeliver in memory: due times, order, kills and rebalances."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.backends.memory import MemoryBackend, settle
from streams.backends.ports import BackendError
from streams.core.flows import ProducerRecord
from streams.core.retry import Parked, Reason, ladder, milliseconds, park
from streams.runners.intake import Bounds
from streams.runners.redeliver import Redeliver, Wait
from tests.streams.runners.stage import Runner, Stage, stage

(RUNG,) = ladder("1m")
LINGER = Wait("lingering", 0.5, "due")
ORIGINS = ("webhooks", "due")


def redelivering(
    world: Stage, waits: Sequence[Wait] = (Wait.on(RUNG),), **more: Any
) -> Callable[[MemoryBackend], Runner]:
    return lambda backend: Redeliver("redeliver", "g", waits, ORIGINS, backend, world.clock, **more)


def wait_for(world: Stage, *payloads: str, origin: str = "webhooks", partition: int = 0) -> None:
    """Park records like a call."""
    for one in payloads:
        original = world.broker.append(ProducerRecord(origin, b"org", one.encode(), (("trace", b"x"),)), partition)
        due = milliseconds(world.clock.now() + timedelta(seconds=RUNG.seconds))
        parked = Parked(RUNG, due, 1, Reason.UNAVAILABLE, "down")
        world.broker.append(park(original, parked, "f", world.clock.now()), partition)


async def test_a_record_returns_when_it_is_due_and_not_earlier() -> None:
    async with stage(3) as world:
        wait_for(world, "1", partition=2)
        await world.start(redelivering(world))
        await world.clock.advance(59.999)
        assert world.texts("webhooks") == ["1"]
        assert world.broker.committed("g", "retry.1m", 2) is None
        await world.clock.advance(0.001)
        back = world.broker.read("webhooks", 2)[1]

        assert (back.key, back.value) == (b"org", b"1")
        assert dict(back.headers)["trace"] == b"x"
        assert dict(back.headers)["rent-attempt"] == b"1"
        assert world.broker.committed("g", "retry.1m", 2) == 1
        assert world.broker.lag("g") == 0


async def test_a_topic_with_a_target_forwards_every_record_to_it() -> None:
    async with stage() as world:
        await world.start(redelivering(world, [LINGER]))
        world.produce("lingering", "a")
        await world.clock.advance(0.3)
        world.produce("lingering", "b")
        await world.clock.advance(0.2)
        assert world.texts("due") == ["a"]
        await world.clock.advance(0.3)

        assert world.texts("due") == ["a", "b"]
        assert [record.timestamp for record in world.broker.read("due")] == [
            record.timestamp + 500 for record in world.broker.read("lingering")
        ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 40), st.booleans()), max_size=12), st.integers(1, 4))
def test_every_record_is_forwarded_when_due_and_in_order_despite_kills(
    steps: list[tuple[int, float, bool]], held: int
) -> None:
    async def scenario() -> None:
        bounds = Bounds(hold_records=held, fetch_records=2)
        async with stage(2) as world:
            process = await world.start(redelivering(world, bounds=bounds))
            for number, (partition, pause, dies) in enumerate(steps):
                wait_for(world, str(number), partition=partition)
                await world.clock.advance(pause)
                if dies:
                    await process.kill()
                    process = await world.start(redelivering(world, bounds=bounds))
            await world.clock.advance(61)

            for partition in (0, 1):
                parked = world.broker.read("retry.1m", partition)
                back = [one for one in world.broker.read("webhooks", partition) if len(one.headers) > 1]
                assert [(one.value, one.timestamp) for one in back] == [
                    (one.value, one.timestamp + 60_000) for one in parked
                ]
            assert world.broker.lag("g") == 0

    asyncio.run(scenario())


async def test_a_kill_before_the_commit_duplicates_a_record_and_loses_none() -> None:
    async with stage() as world:
        wait_for(world, "1")
        process = await world.start(redelivering(world))
        world.broker.commit = lambda *_: None  # type: ignore[method-assign]
        await world.clock.advance(60)
        del world.broker.commit
        await process.kill()
        await world.start(redelivering(world))

        assert world.texts("webhooks") == ["1", "1", "1"]
        assert world.broker.lag("g") == 0


@pytest.mark.parametrize("origin", [None, b"\xff", b"another"])
async def test_a_record_without_a_valid_origin_is_a_dead_letter(origin: bytes | None) -> None:
    async with stage() as world:
        await world.start(redelivering(world))
        headers = (("rent-attempt", b"3"), *((("rent-origin", origin),) if origin else ()))
        world.produce("retry.1m", "lost", headers=headers)
        await world.clock.advance(60)
        (dead,) = world.broker.read("dead-letters")

        assert dead.value == b"lost"
        assert dict(dead.headers)["rent-reason"] == b"no_origin"
        assert dict(dead.headers)["rent-origin"] == b"retry.1m"
        assert dict(dead.headers)["rent-attempt"] == b"3"
        assert world.broker.lag("g") == 0


async def test_a_due_time_far_beyond_the_delay_is_ignored() -> None:
    async with stage() as world:
        await world.start(redelivering(world))
        far = milliseconds(world.clock.now() + timedelta(days=900))
        world.produce("retry.1m", "odd", headers=(("rent-origin", b"due"), ("rent-due-at", b"%d" % far)))
        wait_for(world, "1")
        await world.clock.advance(60)

        assert world.texts("due") == ["odd"]
        assert world.texts("webhooks") == ["1", "1"]


async def test_partitions_and_topics_do_not_block_each_other() -> None:
    async with stage(2) as world:
        await world.start(redelivering(world, [Wait.on(RUNG), LINGER]))
        wait_for(world, "1", partition=0)
        world.produce("lingering", "a", partition=0)
        await world.clock.advance(30)
        wait_for(world, "2", partition=1)
        await world.clock.advance(30)

        assert world.texts("due") == ["a"]
        assert world.texts("webhooks") == ["1", "1", "2"]


async def test_a_large_backlog_is_forwarded_with_bounded_memory() -> None:
    async with stage() as world:
        wait_for(world, *(str(number) for number in range(300)))
        process = await world.start(redelivering(world, bounds=Bounds(hold_records=10, fetch_records=10)))
        assert isinstance(process.runner, Redeliver)
        assert [len(queue.records) for queue in process.runner._queues.values()] == [10]
        assert not process.runner.settled
        await world.clock.advance(61)

        assert world.texts("webhooks")[300:] == [str(number) for number in range(300)]
        assert process.runner.settled


async def test_a_record_that_cannot_be_written_stops_the_process_without_a_commit() -> None:
    async with stage() as world:
        wait_for(world, "1")
        world.broker.refuses = lambda _: BackendError("full")
        process = await world.start(redelivering(world))
        await world.clock.advance(60)

        assert isinstance(await process.ended(), BackendError)
        assert world.broker.committed("g", "retry.1m", 0) is None


async def test_a_stop_waits_for_records_being_forwarded_only() -> None:
    async with stage() as world:
        wait_for(world, "1")
        process = await world.start(redelivering(world))
        await world.clock.advance(30)
        wait_for(world, "2")
        world.broker.go_away()
        await world.clock.advance(30)
        stopping = asyncio.create_task(process.runner.stop())
        await settle()
        world.broker.come_back()
        await settle()

        assert stopping.done()
        assert await process.ended() is None
        assert world.texts("webhooks") == ["1", "2", "1"]
        assert world.broker.committed("g", "retry.1m", 0) == 1


async def test_reassigned_partitions_are_served_by_their_new_owner() -> None:
    async with stage(2) as world:
        await world.start(redelivering(world))
        wait_for(world, "0", partition=0)
        wait_for(world, "1", partition=1)
        await world.clock.advance(30)
        other = await world.start(redelivering(world))
        await world.clock.advance(30)
        await other.kill()

        assert world.texts("webhooks") == ["0", "0", "1", "1"]
        assert world.broker.lag("g") == 0


@pytest.mark.parametrize("ahead", [timedelta(hours=6), timedelta(days=365)])
async def test_a_record_of_a_process_whose_clock_is_ahead_waits_no_longer_than_the_delay(ahead: timedelta) -> None:
    """It would block its partition for as long as the clock is wrong."""
    async with stage() as world:
        original = world.broker.append(ProducerRecord("webhooks", b"org", b"1"), 0)
        wrong = world.clock.now() + ahead
        parked = Parked(RUNG, milliseconds(wrong) + 60_000, 1, Reason.UNAVAILABLE, "down")
        world.broker.append(park(original, parked, "f", wrong), 0)
        wait_for(world, "2")
        await world.start(redelivering(world))
        await world.clock.advance(59.9)
        assert world.texts("webhooks") == ["1", "2"]
        await world.clock.advance(0.2)

        assert world.texts("webhooks") == ["1", "2", "1", "2"]


async def test_a_clock_that_steps_back_while_a_record_waits_does_not_prolong_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with stage() as world:
        wait_for(world, "1")
        await world.start(redelivering(world))
        await world.clock.advance(30)
        now = world.clock.now
        monkeypatch.setattr(world.clock, "now", lambda: now() - timedelta(hours=6))
        await world.clock.advance(40)

        assert world.texts("webhooks") == ["1", "1"]
