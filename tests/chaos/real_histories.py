"""Schedules of `histories` on a real cluster: two workers and a web role as processes, which are killed and frozen.

The laws are those that need no clock that can be moved; and the receiver has to know everything in the end.

    python -m tests.chaos.real_histories --seeds 20 [--first 0]
"""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from streams.local.embedded_kafka import EmbeddedKafka
from tests.chaos.histories import EVERYWHERE, Act, History, broken_everywhere, healed, schedule
from tests.stories.conftest import next_door
from tests.world import start_sweep
from tests.world.cluster import ClusterWorld, cluster

PAUSES: Final = (0.0, 0.0, 0.05, 0.5, 2.0)
HEALED_WITHIN: Final = 300.0
"""Seconds after the last step in which the receiver has to know everything."""

SWEEP_EVERY: Final = 15.0
"""Seconds between the sweeps meanwhile: they bring back what was given up."""

FROZEN: Final = (1.0, 14.0)
"""Seconds for which a worker is frozen: less and more than a session."""


def _cluster(history: History) -> ClusterWorld:
    assert isinstance(history.world, ClusterWorld)
    return history.world


async def _kill_worker(history: History, choose: random.Random) -> None:
    world = _cluster(history)
    await world.kill(choose.choice(world.workers))
    await asyncio.sleep(choose.choice([0.0, 1.0, 12.0]))
    world.start_worker()


async def _stop_worker(history: History, choose: random.Random) -> None:
    world = _cluster(history)
    await world.stop(choose.choice(world.workers))
    world.start_worker()


async def _freeze_worker(history: History, choose: random.Random) -> None:
    worker = choose.choice(_cluster(history).workers)
    worker.signal(signal.SIGSTOP)
    await asyncio.sleep(choose.choice(FROZEN))
    worker.signal(signal.SIGCONT)


async def _sweep(history: History, choose: random.Random) -> None:
    del choose
    await start_sweep(history.world)


STEPS: Final[Mapping[str, tuple[int, Act]]] = {
    **EVERYWHERE,
    "kill_worker": (4, _kill_worker),
    "stop_worker": (1, _stop_worker),
    "freeze_worker": (2, _freeze_worker),
    "sweep": (1, _sweep),
}
"""What may happen on a real cluster."""


async def broken_laws(history: History, seed: int) -> list[str]:
    """Return the laws that a schedule breaks; none if all is well. The history goes on from one to the next."""
    world = _cluster(history)
    await world.reset()
    for step in schedule(seed, STEPS, PAUSES):
        _, act = STEPS[step.name]
        await act(history, random.Random(step.choice))
        await asyncio.sleep(step.seconds)
    world.buildium.faults.clear()
    world.rentsync.recover()
    await world.webhooks_settled()
    began = asked = -SWEEP_EVERY + time.monotonic()
    while time.monotonic() - began < HEALED_WITHIN:
        if time.monotonic() - asked >= SWEEP_EVERY:
            asked = time.monotonic()
            await start_sweep(world)
        await asyncio.sleep(1.0)
        world.check()
        if healed(history):
            await world.rest()
            return list(broken_everywhere(history)) + list(_unknown(history))
    return [f"the receiver does not know everything {HEALED_WITHIN:.0f} s after the last fault"]


def _unknown(history: History) -> Iterator[str]:
    if not healed(history):
        yield "the receiver knew everything, and then something else"


async def check(kafka: str, folder: Path, seeds: range) -> tuple[list[str], int]:
    """Run seeds one after the other; return what they break, and how many workers were killed."""
    async with cluster(kafka, f"history{seeds.start}.", folder) as world:
        await world.reset()
        async with next_door(world):
            history, found = History(world), list[str]()
            for seed in seeds:
                found += [f"seed {seed}: {one}" for one in await broken_laws(history, seed)]
                print(f"seed {seed}: {found[-1] if found else 'kept the laws'}", flush=True)
                if found:
                    break
        killed = sum(process.code == -signal.SIGKILL for process in world.ended)
    return found, killed


def main() -> None:
    """Check seeds; print those that break a law."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="histories-")))
        kafka = stack.enter_context(EmbeddedKafka(folder))
        (folder / "world").mkdir()
        seeds = range(options.first, options.first + options.seeds)
        found, killed = asyncio.run(check(kafka.bootstrap_servers, folder / "world", seeds))
    print(f"{killed} workers were killed", *found, sep="\n")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
