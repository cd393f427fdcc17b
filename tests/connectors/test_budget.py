"""Tests of the API budget of a connection: limits, priorities and cancellation."""

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
from connectors.ports import HASTE, Haste, Priority

COMMAND, WEBHOOK, SWEEP, REPLAY = Priority


class MovableClock:
    """A clock that the test advances; sleepers wake in the order of their times."""

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
class Callers:
    """Callers of one budget, and a record of their calls."""

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
async def callers() -> AsyncIterator[Callers]:
    callers = Callers()
    yield callers
    await callers.budget.aclose()
    for task in callers.tasks:
        task.cancel()
    await asyncio.gather(*callers.tasks, return_exceptions=True)


async def test_a_new_owner_begins_as_if_the_window_were_full(callers: Callers) -> None:
    """Its predecessor may have started ten calls at this moment, which arrive a little later."""
    begun = callers.clock.time
    callers.budget.taken_over()
    for _ in range(10):
        callers.call(WEBHOOK)
    await callers.clock.advance(callers.limits.window)
    assert callers.starts == []
    await callers.clock.advance(callers.limits.transit + 0.01)

    assert len(callers.starts) == 10
    assert min(time for time, _, _ in callers.starts) >= begun + callers.limits.window + callers.limits.transit


async def test_never_more_than_ten_in_flight(callers: Callers) -> None:
    for _ in range(25):
        callers.call(WEBHOOK, seconds=60)
    await callers.clock.advance(30)

    assert (callers.most, callers.budget.in_flight, callers.budget.waiting) == (10, 10, 15)
    await callers.clock.advance(120)
    assert len(callers.starts) == 25
    assert callers.most == 10


async def test_a_replay_leaves_half_of_the_budget_to_all_others(callers: Callers) -> None:
    """However many of its calls wait, a webhook starts at once; a lone replay is slower than it could be."""
    for _ in range(50):
        callers.call(REPLAY)
    for _ in range(8):
        await callers.clock.advance(0.4)
        began = callers.clock.time
        callers.call(WEBHOOK)
        callers.call(WEBHOOK)
        await asyncio.sleep(0)
        assert [time for time, priority, _ in callers.starts if priority is WEBHOOK][-2:] == [began, began]
    await callers.clock.advance(20)
    assert len(callers.starts) == 66
    assert callers.keeps_the_limits()


async def test_a_call_of_a_replay_that_others_wait_for_becomes_urgent(callers: Callers) -> None:
    """At once if that is known before it waits; the others of the replay stay where they are."""
    for _ in range(6):
        callers.call(REPLAY)
    await settle()
    assert len(callers.starts) == 5
    haste = Haste()
    token = HASTE.set(haste)
    urgent = callers.call(REPLAY)
    HASTE.reset(token)
    await settle()
    assert len(callers.starts) == 5
    haste.urge()
    await settle()
    assert [number for _, _, number in callers.starts][5:] == [callers.tasks.index(urgent)]

    token = HASTE.set(haste)
    callers.call(REPLAY)
    HASTE.reset(token)
    await settle()
    assert len(callers.starts) == 7
    assert callers.budget.waiting == 1


async def test_never_more_than_ten_starts_in_any_second(callers: Callers) -> None:
    for _ in range(35):
        callers.call(WEBHOOK, seconds=0.001)
    await callers.clock.advance(0.5)
    assert len(callers.starts) == 10
    assert callers.budget.used_ratio == 1.0

    await callers.clock.advance(10)
    assert [round(time - 100) for time, _, _ in callers.starts] == [0] * 10 + [1] * 10 + [2] * 10 + [3] * 5
    assert callers.keeps_the_limits()
    assert callers.budget.used_ratio == 0.0


@pytest.mark.parametrize(("seconds", "next_start"), [(0.0, 101.0), (0.1, 101.1), (0.15, 101.15), (0.8, 101.15)])
async def test_the_window_of_a_call_begins_when_it_must_have_arrived(
    callers: Callers, seconds: float, next_start: float
) -> None:
    for _ in range(11):
        callers.call(WEBHOOK, seconds)
    await callers.clock.advance(5)

    assert [time for time, _, _ in callers.starts] == [100.0] * 10 + [pytest.approx(next_start)]


@given(st.lists(st.tuples(st.floats(0, 0.15), st.floats(0, 2)), max_size=60), st.integers(0, 2))
@settings(max_examples=50, deadline=None)
def test_the_server_never_counts_eleven_calls_in_a_second(calls: list[tuple[float, float]], priority: int) -> None:
    """A call may arrive at any time between its start and the end of its transit time."""

    async def scenario() -> None:
        callers, arrivals = Callers(), list[float]()

        async def call(transit: float, work: float) -> None:
            async with callers.budget.slot(Priority(priority)):
                await callers.clock.sleep(transit)
                arrivals.append(callers.clock.time)
                await callers.clock.sleep(work)

        tasks = [asyncio.create_task(call(*one)) for one in calls]
        await callers.clock.advance(200)
        await asyncio.gather(*tasks)
        await callers.budget.aclose()

        assert all(later - earlier >= 1.0 - 1e-5 for earlier, later in zip(arrivals, arrivals[10:], strict=False))

    asyncio.run(scenario())


async def test_commands_go_before_webhooks_and_webhooks_before_sweeps(callers: Callers) -> None:
    for _ in range(10):
        callers.call(WEBHOOK)
    await settle()
    for priority in (SWEEP, WEBHOOK, COMMAND, SWEEP, WEBHOOK, COMMAND):
        callers.call(priority)
    await callers.clock.advance(5)

    assert [number for _, _, number in callers.starts[10:]] == [12, 15, 11, 14, 10, 13]


async def test_a_sweep_leaves_slots_for_a_webhook(callers: Callers) -> None:
    for _ in range(30):
        callers.call(SWEEP, seconds=60)
    await callers.clock.advance(5)
    assert callers.budget.in_flight == 8

    callers.call(WEBHOOK, seconds=60)
    callers.call(COMMAND, seconds=60)
    await settle()
    assert callers.started()[-2:] == [WEBHOOK, COMMAND]


async def test_a_sweep_of_quick_calls_leaves_a_start_in_every_second(callers: Callers) -> None:
    for _ in range(30):
        callers.call(SWEEP)
    await callers.clock.advance(0.3)
    callers.call(WEBHOOK)
    await settle()

    assert callers.started() == [SWEEP] * 9 + [WEBHOOK]
    await callers.clock.advance(10)
    assert len(callers.starts) == 31
    assert callers.keeps_the_limits()


async def test_a_429_pauses_every_priority(callers: Callers) -> None:
    callers.budget.slow_down(3)
    callers.budget.slow_down(1)
    for priority in Priority:
        callers.call(priority)
    await callers.clock.advance(2.9)
    assert callers.starts == []

    await callers.clock.advance(0.2)
    assert [time for time, _, _ in callers.starts] == [103.0] * len(Priority)


async def test_a_pause_applies_to_calls_that_already_wait(callers: Callers) -> None:
    for _ in range(12):
        callers.call(WEBHOOK)
    await settle()
    callers.budget.slow_down(7)
    await callers.clock.advance(6.9)
    assert len(callers.starts) == 10

    await callers.clock.advance(0.2)
    assert len(callers.starts) == 12


async def test_a_cancelled_waiting_call_frees_no_slot_and_blocks_none(callers: Callers) -> None:
    held = [callers.call(WEBHOOK, seconds=60) for _ in range(10)]
    impatient, patient = callers.call(WEBHOOK, seconds=60), callers.call(WEBHOOK, seconds=60)
    await callers.clock.advance(5)
    impatient.cancel()
    held[0].cancel()
    await settle()

    assert not patient.done()
    assert (callers.budget.in_flight, callers.budget.waiting) == (10, 0)


async def test_a_call_cancelled_at_its_admission_releases_its_slot(callers: Callers) -> None:
    held = [callers.call(WEBHOOK, seconds=60) for _ in range(10)]
    await callers.clock.advance(5)
    waiting = callers.call(WEBHOOK, seconds=60)
    await settle()
    held[0].cancel()
    await asyncio.sleep(0)  # the slot is given to `waiting`, which has not run yet
    waiting.cancel()
    await settle()
    assert callers.budget.in_flight == 9

    callers.call(WEBHOOK, seconds=60)
    await settle()
    assert callers.budget.in_flight == 10


async def test_a_call_that_raises_releases_its_slot(callers: Callers) -> None:
    with pytest.raises(ZeroDivisionError):
        async with callers.budget.slot(WEBHOOK):
            raise ZeroDivisionError

    assert callers.budget.in_flight == 0


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
def test_limits_hold_and_every_call_is_admitted_for_any_sequence_of_actions(actions: list[Action]) -> None:
    async def scenario() -> None:
        callers = Callers()
        for what, number, seconds in actions:
            if what == "call":
                callers.call(Priority(number), seconds)
            elif what == "cancel" and number < len(callers.tasks):
                callers.tasks[number].cancel()
            elif what == "slow":
                callers.budget.slow_down(seconds)
            else:
                await callers.clock.advance(seconds)
            if random.Random(number).random() < 0.5:
                await asyncio.sleep(0)
        await callers.clock.advance(300)

        assert all(task.done() for task in callers.tasks)
        assert (callers.budget.in_flight, callers.budget.waiting) == (0, 0)
        assert callers.keeps_the_limits()
        await callers.budget.aclose()

    asyncio.run(scenario())
