"""Seeded schedules of changes and faults over the world in memory, and the laws that the history of each must keep.

A schedule is a list of steps that follows from its seed. After the last one everything is healed; then what the
stand-ins were asked, and what is on the topics, is checked. A schedule that breaks a law is shrunk: steps are left out
as long as what is left breaks a law, too.

    python -m tests.chaos.histories --seeds 1000 [--first 0]
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from connectors.rentsync.standin import Fault
from schemas import topics
from schemas.codec import decode_as
from schemas.delivery import Batch
from streams import topology
from streams.core.retry import history_of
from streams.view.queries import LetterFilter
from tests.world.memory import MemoryWorld
from tests.world.view import view_of
from tests.world.world import World, asking_rent, receiver_matches, residential

HEALED_WITHIN: Final = 3 * 3600.0
"""Seconds after the last step in which the receiver has to know everything."""

SWEEP_EVERY: Final = 120.0
"""Seconds. Sweeps, rungs and pauses are short here, because most of the cost of a schedule is time that passes."""

DELAYS: Final = ("1s", "2s", "5s", "10s")

SETTLED_AFTER: Final = SWEEP_EVERY + 20.0
"""Seconds after the last step that every history has: a full read of the account, and the last rung."""

ATTEMPTS: Final = 5

CALLS: Final = 10
"""Of Buildium in a second."""

TICK: Final = 0.002
"""Seconds: times of records are whole milliseconds."""

FIRST_RENT: Final = 10_000
"""Rents of a schedule count up from here, so that older ones and newer ones can be compared."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what happens, a number that decides the details, and how long it lasts."""

    name: str
    choice: int
    seconds: float


@dataclass(slots=True)
class History:
    """What happened beside what the stand-ins and the topics know."""

    world: World
    rent: int = FIRST_RENT
    released: list[float] = field(default_factory=list)
    """When something happened that may end a pause before its time."""
    leased: dict[int, datetime] = field(default_factory=dict)
    """When a lease was first signed for a unit; it does not end."""
    steady: bool = True
    """Whether all processes had the right time."""

    @property
    def now(self) -> float:
        return self.world.clock.monotonic()

    @property
    def memory(self) -> MemoryWorld:
        """The world, if it is one in memory."""
        assert isinstance(self.world, MemoryWorld)
        return self.world


Act = Callable[[History, random.Random], Awaitable[None]]


async def _change_rent(history: History, choose: random.Random) -> None:
    """Change a rent; its webhooks come twice, in any order, or not at all."""
    world = history.world
    history.rent += 1
    unit = choose.choice(sorted(world.portfolio.units))
    events = world.portfolio.set_rent(unit, history.rent)
    await world.send_webhooks(events, choose.choice([0, 1, 1, 1, 2, 3]), shuffled=choose.random() < 0.5)


async def _sign_lease(history: History, choose: random.Random) -> None:
    world = history.world
    unit = choose.choice(sorted(world.portfolio.units))
    history.leased.setdefault(unit, world.clock.now())
    await world.send_webhooks(world.portfolio.sign_lease(unit, world.portfolio.today()), choose.choice([0, 1, 1, 2]))


async def _remove_unit(history: History, choose: random.Random) -> None:
    world = history.world
    if len(world.portfolio.units) > 12:
        unit = choose.choice(sorted(world.portfolio.units))
        await world.send_webhooks(world.portfolio.remove_unit(unit), choose.choice([0, 1, 1]))


async def _pms_fails(history: History, choose: random.Random) -> None:
    status = choose.choice([429, 500, 502, 503, 503, 504, 401, 404, 400])
    history.world.buildium.fail(status, times=choose.choice([1, 2, 5, 40]))


async def _receiver_fails(history: History, choose: random.Random) -> None:
    status = choose.choice([302, 400, 401, 403, 404, 409, 422, 500, 503, 503])
    history.world.rentsync.answer_next(status, times=choose.choice([1, 2, 5, 40]))


async def _receiver_asks_for_a_pause(history: History, choose: random.Random) -> None:
    pause = choose.choice(["2", "15", "60", "200"])
    history.world.rentsync.answer_next(choose.choice([429, 503]), retry_after=pause)


async def _receiver_drops(history: History, choose: random.Random) -> None:
    history.world.rentsync.drop_next(choose.choice([1, 3]))


async def _receiver_lies(history: History, choose: random.Random) -> None:
    """It answers 200 and has not taken the batch."""
    body = choose.choice([b"<html>Sign in</html>", b'{"success": false}', b'{"errors": ["no"]}'])
    history.world.rentsync.plan(Fault(200, body=body), choose.choice([1, 2]))


async def _kill_worker(history: History, choose: random.Random) -> None:
    world = history.memory
    history.released.append(history.now)
    await world.kill_worker()
    await world.pass_time(choose.choice([0.0, 0.3, 5.0]))
    world.start_workers()


async def _second_worker(history: History, choose: random.Random) -> None:
    """A worker joins; later one is killed."""
    del choose
    world = history.memory
    history.released.append(history.now)
    if len(world.workers) < 2:
        world.start_workers()
    else:
        await world.kill_worker()


async def _restart_all(history: History, choose: random.Random) -> None:
    history.released.append(history.now)
    await history.memory.restart(after=choose.choice([0.0, 5.0]))


async def _sweep(history: History, choose: random.Random) -> None:
    del choose
    history.released.append(history.now)
    await history.memory.managed(history.memory.integrations.sweep("default", "buildium"))


async def _reconfigure(history: History, choose: random.Random) -> None:
    """Store the receiver, which the environment describes at first, with another user agent."""
    world = history.memory
    history.released.append(history.now)
    body = world.rentsync_of(world.sites["default"], userAgent=f"agent-{choose.randrange(9)}")
    await world.store("default", "rentsync", body)
    await world.enable("default", "rentsync")


async def _step_clock(history: History, choose: random.Random) -> None:
    """Have the next worker's clock be ahead, or behind."""
    history.memory.skew = timedelta(seconds=choose.choice([-3600, -5, 0, 5, 3600]))
    history.steady = history.steady and not history.memory.skew


async def _nothing(history: History, choose: random.Random) -> None:
    del history, choose


EVERYWHERE: Final[dict[str, tuple[int, Act]]] = {
    "change_rent": (10, _change_rent),
    "sign_lease": (3, _sign_lease),
    "remove_unit": (1, _remove_unit),
    "pms_fails": (3, _pms_fails),
    "receiver_fails": (3, _receiver_fails),
    "receiver_drops": (1, _receiver_drops),
    "receiver_lies": (1, _receiver_lies),
    "nothing": (1, _nothing),
}
"""What may happen in every world, and how often relative to the rest."""

STEPS: Final[dict[str, tuple[int, Act]]] = {
    **EVERYWHERE,
    "receiver_asks_for_a_pause": (1, _receiver_asks_for_a_pause),
    "kill_worker": (2, _kill_worker),
    "second_worker": (1, _second_worker),
    "restart_all": (1, _restart_all),
    "sweep": (1, _sweep),
    "reconfigure": (1, _reconfigure),
    "step_clock": (1, _step_clock),
}
"""What may happen in memory."""


PAUSES: Final = (0.0, 0.05, 0.5, 0.7, 3.0, 8.0, 20.0, 60.0)


def schedule(
    seed: int, steps: Mapping[str, tuple[int, Act]] = STEPS, pauses: Sequence[float] = PAUSES
) -> tuple[Step, ...]:
    """Return the schedule of a seed, made of these steps and of pauses in seconds."""
    choose = random.Random(seed)
    names, weights = list(steps), [weight for weight, _ in steps.values()]
    return tuple(
        Step(choose.choices(names, weights)[0], choose.getrandbits(32), choose.choice(pauses))
        for _ in range(choose.randint(4, 24))
    )


# ---------------------------------------------------------------------------------------------------------------- laws


def _broken(history: History) -> Iterator[str]:
    """Yield the laws that a history breaks, as sentences."""
    world = history.memory
    unknown = _unknown(world) | {world.rentsync.state[unit].project_id for unit in offered_though_leased(history)}
    if unknown and (lost := unknown - _given_up(world)):
        yield f"a true change of {sorted(lost)} is neither at the receiver nor in an open dead letter"
        yield from (f"unit {unit} is offered although it is leased" for unit in offered_though_leased(history))
    starts = sorted(began for began, _ in world.to_buildium.spans)
    if any(later - earlier < 1.0 - 1e-6 for earlier, later in zip(starts, starts[CALLS:], strict=False)):
        yield f"Buildium was called more than {CALLS} times in a second"
    yield from _early_calls(history, world)
    yield from broken_everywhere(history)


def broken_everywhere(history: History) -> Iterator[str]:
    """Yield the laws that a history breaks, of those that can be checked on a real cluster as well."""
    world = history.world
    rents: dict[int, list[float]] = {}
    for delivery in world.rentsync.accepted:
        for sent in delivery.units:
            rent = sent.get("base_rent")
            if rent is not None and rent >= FIRST_RENT:
                rents.setdefault(int(sent["unit_id"]), []).append(rent)
    for unit, found in rents.items():
        if any(later < earlier for earlier, later in pairwise(found)):
            yield f"unit {unit} went back to an older version: {found}"
    attempts = [decode_as(Batch, one.value).attempt for one in world.read(topics.BATCHES.name)]
    attempts += [history_of(one).attempt for one in world.read(topics.DEAD_LETTERS.name)]
    if max(attempts, default=0) > ATTEMPTS:
        yield f"there were {max(attempts)} attempts of one cause"
    yield from _early_attempts(history)
    yield from _forbidden_offers(history)


def _unknown(world: World) -> set[int]:
    """Return the properties of which the receiver has something else than Buildium."""
    state, units = world.rentsync.state, residential(world)
    homes = {number: unit.property_id for number, unit in world.portfolio.units.items()}
    wrong = {homes[one] for one in units if one not in state or state[one].base_rent != asking_rent(world, one)}
    gone = {number for number, listed in state.items() if listed.status_name != "Removed"} - units
    return wrong | {state[number].project_id for number in gone}


def _given_up(world: MemoryWorld) -> set[int]:
    """Return the properties whose deliveries were given up, and are still owed."""
    letters = view_of(world.broker, world.tables).replayable("default", LetterFilter(open=True))
    return {letter.property_id for letter in letters if letter.property_id is not None}


def _early_calls(history: History, world: MemoryWorld) -> Iterator[str]:
    """Yield calls of the receiver in a pause that it had asked for and that nothing has ended."""
    answers = world.sites["default"].to_rentsync.answers
    for at, _, pause in answers:
        if pause is None:
            continue
        until = at + pause
        end = min((one for one in history.released if at <= one), default=until)
        early = [began for began, _, _ in answers if at < began < min(until - TICK, end)]
        if early:
            yield f"the receiver was called {early[0] - at:.1f} s after it had asked for {pause:.0f} s"


def _early_attempts(history: History) -> Iterator[str]:
    """Yield records that came back from a rung before they were due."""
    if not history.steady:
        return  # the time of a process that is behind is none of the broker's
    for topic in topology.flow("deliver_batches").reads + topology.flow("fetch_changes").reads + (topics.DUE,):
        for record in history.world.read(topic.name):
            due_at = history_of(record).due_at
            if due_at is not None and record.timestamp < due_at:
                yield f"{topic.name}-{record.partition}@{record.offset} came {due_at - record.timestamp} ms early"


def _forbidden_offers(history: History) -> Iterator[str]:
    """Yield units that were offered although a lease forbids it, once the receiver had known that."""
    taken: set[int] = set()
    for delivery in history.world.rentsync.accepted:
        for sent in delivery.units:
            unit = int(sent["unit_id"])
            if sent["is_available"] and unit in taken:
                yield f"unit {unit} was offered again after its lease was known"
            if not sent["is_available"] and delivery.at > history.leased.get(unit, delivery.at):
                taken.add(unit)


def offered_though_leased(history: History) -> set[int]:
    """Return the units that the receiver offers although they are leased."""
    state = history.world.rentsync.state
    return {unit for unit in history.leased if unit in state and state[unit].is_available}


async def broken_laws(steps: Sequence[Step]) -> list[str]:
    """Return the laws that a schedule breaks; none if all is well."""
    world = MemoryWorld(sweep_every=SWEEP_EVERY, delays=DELAYS)
    await world.start()
    try:
        await world.until(lambda: receiver_matches(world), within=600)
        async with world.beside():
            world.sites["default"].to_rentsync.answers.clear()
            history = History(world)
            for step in steps:
                _, act = STEPS[step.name]
                await act(history, random.Random(step.choice))
                await world.pass_time(step.seconds)
            await _heal(history)
        return list(_broken(history))
    except AssertionError as error:
        return [f"another org is affected: {error}"]
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]
    finally:
        await world.stop()


async def _heal(history: History) -> None:
    """End all faults, and let time pass until the receiver knows everything and nothing is in progress."""
    world = history.memory
    world.buildium.faults.clear()
    world.rentsync.recover()
    world.skew = timedelta()
    began = history.now
    while history.now - began < HEALED_WITHIN:
        await world.pass_time(5.0)
        if healed(history) and history.now - began > SETTLED_AFTER:
            return


def healed(history: History) -> bool:
    """Return whether the receiver knows everything."""
    return receiver_matches(history.world) and not offered_though_leased(history)


async def shrunk(steps: Sequence[Step]) -> tuple[tuple[Step, ...], list[str]]:
    """Return a schedule without the steps that it needs not to break a law, and the laws that it breaks."""
    found = await broken_laws(steps)
    size = max(len(steps) // 2, 1)
    while found and size:
        begin = 0
        while begin < len(steps):
            fewer = [*steps[:begin], *steps[begin + size :]]
            if still := await broken_laws(fewer):
                steps, found = fewer, still
            else:
                begin += size
        size //= 2
    return tuple(steps), found


def check(seed: int) -> str | None:
    """Return what a seed breaks, with its shrunk schedule; null if nothing."""
    steps = schedule(seed)
    if not asyncio.run(broken_laws(steps)):
        return None
    fewer, found = asyncio.run(shrunk(steps))
    lines = [f"seed {seed} breaks:", *(f"  {one}" for one in found), "with the steps:"]
    return "\n".join([*lines, *(f"  {one}" for one in fewer)])


def main() -> None:
    """Check seeds; print those that break a law."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    began, failures = time.monotonic(), 0
    for seed in range(options.first, options.first + options.seeds):
        if found := check(seed):
            failures += 1
            print(found, flush=True)
    minutes = (time.monotonic() - began) / 60
    print(f"{options.seeds} schedules, {failures} broke a law; {options.seeds / minutes:.0f} a minute")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
