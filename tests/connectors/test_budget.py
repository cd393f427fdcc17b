"""The API budget of a connection: its limits, who goes first, and that nobody's leaving tears it."""

import asyncio
import heapq
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.budget import Budget, Limits
from connectors.ports import Priority

COMMAND, WEBHOOK, SWEEP = Priority


class MovableClock:
    """Time that moves only when a test says so; who sleeps wakes in order."""

    def __init__(self) -> None:
        self.time = 100.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._number = count()

    def now(self) -> datetime:
        return datetime(2025, 11, 22, tzinfo=UTC) + timedelta(seconds=self.time)

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        until = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.time + seconds, next(self._number), until))
        await until

    async def advance(self, seconds: float) -> None:
        until = self.time + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            self.time, _, sleeper = heapq.heappop(self._sleepers)
            if not sleeper.done():
                sleeper.set_result(None)
            await settle()
        self.time = until


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@dataclass
class World:
    """Callers of one budget, and what the outside saw of them."""

    clock: MovableClock = field(default_factory=MovableClock)
    limits: Limits = field(default_factory=Limits)
    starts: list[tuple[float, Priority, int]] = field(default_factory=list)
    running: int = 0
    most: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.budget = Budget(self.clock, self.limits)

    def call(self, priority: Priority, seconds: float = 0.0) -> asyncio.Task[None]:
        task = asyncio.create_task(self._call(priority, seconds, len(self.tasks)))
        self.tasks.append(task)
        return task

    async def _call(self, priority: Priority, seconds: float, number: int) -> None:
        async with self.budget.slot(priority):
            self.starts.append((self.clock.time, priority, number))
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await self.clock.sleep(seconds)
            finally:
                self.running -= 1

    def started(self) -> list[Priority]:
        return [priority for _, priority, _ in self.starts]

    def keeps_the_limits(self) -> bool:
        times = [time for time, _, _ in self.starts]
        window = self.limits.window - 1e-5
        dense = any(times[i + self.limits.starts] - times[i] < window for i in range(len(times) - self.limits.starts))
        return self.most <= self.limits.in_flight and not dense


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.budget.aclose()
    for task in world.tasks:
        task.cancel()
    await asyncio.gather(*world.tasks, return_exceptions=True)


async def test_never_more_than_ten_in_flight(world: World) -> None:
    for _ in range(25):
        world.call(WEBHOOK, seconds=60)
    await world.clock.advance(30)

    assert (world.most, world.budget.in_flight, world.budget.waiting) == (10, 10, 15)
    await world.clock.advance(120)
    assert len(world.starts) == 25
    assert world.most == 10


async def test_never_more_than_ten_starts_in_any_second(world: World) -> None:
    for _ in range(35):
        world.call(WEBHOOK, seconds=0.001)
    await world.clock.advance(0.5)
    assert len(world.starts) == 10
    assert world.budget.used_ratio == 1.0

    await world.clock.advance(10)
    assert [round(time - 100) for time, _, _ in world.starts] == [0] * 10 + [1] * 10 + [2] * 10 + [3] * 5
    assert world.keeps_the_limits()
    assert world.budget.used_ratio == 0.0


@pytest.mark.parametrize(("seconds", "next_start"), [(0.0, 101.0), (0.1, 101.1), (0.15, 101.15), (0.8, 101.15)])
async def test_a_calls_second_begins_when_it_must_have_arrived(world: World, seconds: float, next_start: float) -> None:
    for _ in range(11):
        world.call(WEBHOOK, seconds)
    await world.clock.advance(5)

    assert [time for time, _, _ in world.starts] == [100.0] * 10 + [pytest.approx(next_start)]


@given(st.lists(st.tuples(st.floats(0, 0.15), st.floats(0, 2)), max_size=60), st.integers(0, 2))
@settings(max_examples=50, deadline=None)
def test_the_other_side_never_sees_eleven_in_a_second(calls: list[tuple[float, float]], priority: int) -> None:
    """Wherever between its start and its end a call arrives, as long as it takes no longer than the transit."""

    async def story() -> None:
        world, arrivals = World(), list[float]()

        async def call(transit: float, work: float) -> None:
            async with world.budget.slot(Priority(priority)):
                await world.clock.sleep(transit)
                arrivals.append(world.clock.time)
                await world.clock.sleep(work)

        tasks = [asyncio.create_task(call(*one)) for one in calls]
        await world.clock.advance(200)
        await asyncio.gather(*tasks)
        await world.budget.aclose()

        assert all(later - earlier >= 1.0 - 1e-5 for earlier, later in zip(arrivals, arrivals[10:], strict=False))

    asyncio.run(story())


async def test_commands_go_first_then_notices_then_sweeps_each_in_order(world: World) -> None:
    for _ in range(10):
        world.call(WEBHOOK)
    await settle()
    for priority in (SWEEP, WEBHOOK, COMMAND, SWEEP, WEBHOOK, COMMAND):
        world.call(priority)
    await world.clock.advance(5)

    assert [number for _, _, number in world.starts[10:]] == [12, 15, 11, 14, 10, 13]


async def test_a_sweep_leaves_room_for_a_notice(world: World) -> None:
    for _ in range(30):
        world.call(SWEEP, seconds=60)
    await world.clock.advance(5)
    assert world.budget.in_flight == 8

    world.call(WEBHOOK, seconds=60)
    world.call(COMMAND, seconds=60)
    await settle()
    assert world.started()[-2:] == [WEBHOOK, COMMAND]


async def test_a_sweep_of_quick_calls_leaves_a_start_in_every_second(world: World) -> None:
    for _ in range(30):
        world.call(SWEEP)
    await world.clock.advance(0.3)
    world.call(WEBHOOK)
    await settle()

    assert world.started() == [SWEEP] * 9 + [WEBHOOK]
    await world.clock.advance(10)
    assert len(world.starts) == 31
    assert world.keeps_the_limits()


async def test_a_429_pauses_everyone(world: World) -> None:
    world.budget.slow_down(3)
    world.budget.slow_down(1)
    for priority in Priority:
        world.call(priority)
    await world.clock.advance(2.9)
    assert world.starts == []

    await world.clock.advance(0.2)
    assert [time for time, _, _ in world.starts] == [103.0] * 3


async def test_a_pause_that_comes_while_others_wait_holds_them_too(world: World) -> None:
    for _ in range(12):
        world.call(WEBHOOK)
    await settle()
    world.budget.slow_down(7)
    await world.clock.advance(6.9)
    assert len(world.starts) == 10

    await world.clock.advance(0.2)
    assert len(world.starts) == 12


async def test_who_leaves_the_queue_takes_nobodys_place(world: World) -> None:
    held = [world.call(WEBHOOK, seconds=60) for _ in range(10)]
    impatient, patient = world.call(WEBHOOK, seconds=60), world.call(WEBHOOK, seconds=60)
    await world.clock.advance(5)
    impatient.cancel()
    held[0].cancel()
    await settle()

    assert not patient.done()
    assert (world.budget.in_flight, world.budget.waiting) == (10, 0)


async def test_who_is_cancelled_in_the_moment_of_admission_gives_the_room_back(world: World) -> None:
    held = [world.call(WEBHOOK, seconds=60) for _ in range(10)]
    await world.clock.advance(5)
    waiting = world.call(WEBHOOK, seconds=60)
    await settle()
    held[0].cancel()
    await asyncio.sleep(0)  # the room is given to `waiting`, which has not run yet
    waiting.cancel()
    await settle()
    assert world.budget.in_flight == 9

    world.call(WEBHOOK, seconds=60)
    await settle()
    assert world.budget.in_flight == 10


async def test_a_call_that_raises_gives_the_room_back(world: World) -> None:
    with pytest.raises(ZeroDivisionError):
        async with world.budget.slot(WEBHOOK):
            raise ZeroDivisionError

    assert world.budget.in_flight == 0


Action = tuple[str, int, float]
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(0, 2), st.floats(0, 3)),
        st.tuples(st.just("cancel"), st.integers(0, 60), st.just(0.0)),
        st.tuples(st.just("wait"), st.just(0), st.floats(0, 1.5)),
        st.tuples(st.just("slow"), st.just(0), st.floats(0, 2)),
    ),
    max_size=60,
)


@given(ACTIONS)
@settings(max_examples=100, deadline=None)
def test_whatever_comes_the_limits_hold_and_everyone_is_served(actions: list[Action]) -> None:
    async def story() -> None:
        world = World()
        for what, number, seconds in actions:
            if what == "call":
                world.call(Priority(number), seconds)
            elif what == "cancel" and number < len(world.tasks):
                world.tasks[number].cancel()
            elif what == "slow":
                world.budget.slow_down(seconds)
            else:
                await world.clock.advance(seconds)
            if random.Random(number).random() < 0.5:
                await asyncio.sleep(0)
        await world.clock.advance(300)

        assert all(task.done() for task in world.tasks)
        assert (world.budget.in_flight, world.budget.waiting) == (0, 0)
        assert world.keeps_the_limits()
        await world.budget.aclose()

    asyncio.run(story())
