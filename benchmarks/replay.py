"""Replays: how long the plan of 100,000 dead letters takes, and what live changes notice of a replay.

The plan is compared with a bare read of the same rows. With ``--live`` a real cluster is started, and changes are sent
one by one without a replay and beside replays of the webhooks of all units; both are measured in turn.

    python -m benchmarks.replay [--letters 100000] [--postgres]
    python -m benchmarks.replay --live [--changes 200]
"""

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from benchmarks.latency import percentile
from schemas import topics
from schemas.base import Model
from schemas.codec import encode
from schemas.commands import Push, SyncEntity
from streams.backends.memory import MovableClock
from streams.core.flows import Record
from streams.local.embedded_kafka import EmbeddedKafka
from streams.replays.planner import ReplayRequest
from streams.view import tables
from streams.view.database import Database, parse_url
from streams.view.queries import LetterFilter, Queries
from tests.postgres import postgres
from tests.streams.replays.parts import memory_replays
from tests.streams.view.parts import NOON, View, delivery, fetched
from tests.streams.view.test_queries import batch, fetch, letter
from tests.world import listed_rent, receiver_matches
from tests.world.cluster import ClusterWorld, cluster

WRITTEN = 2000
"""Records of one transaction."""


def main() -> None:
    """Print one line for each filter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--letters", type=int, default=100_000)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--live", action="store_true")
    parser.add_argument("--changes", type=int, default=200)
    options = parser.parse_args()
    if options.live:
        asyncio.run(live(options.changes))
        return
    with tempfile.TemporaryDirectory() as folder, opened(options.postgres, Path(folder)) as database:
        fill(View(database), options.letters)
        bare = bare_read(database)
        replays = memory_replays(Queries(database), MovableClock())
        for name, wanted in (
            ("all that is open", LetterFilter(open=True)),
            ("one reason, open and closed", LetterFilter(reason="rejected")),
        ):
            began = time.perf_counter()
            plan = asyncio.run(replays.plan(ReplayRequest("default", wanted), "benchmark")).plan
            seconds = time.perf_counter() - began
            print(
                f"{name}: {plan.matched:,} matched, {plan.replayed:,} to be replayed, {plan.key_count:,} entities, "
                f"{len(encode(plan)) / 1024:,.0f} KiB: {seconds:.2f} s, {seconds / bare:.1f} x a bare read"
            )


@contextmanager
def opened(on_postgres: bool, folder: Path) -> Iterator[Database]:
    """Yield an empty database."""
    if on_postgres:
        with postgres() as url:
            database = _migrated(url)
            yield database
            database.close()
    else:
        yield _migrated(f"sqlite:///{folder}/view.db")


def _migrated(url: str) -> Database:
    database = Database(parse_url(url))
    database.migrate()
    return database


def fill(view: View, letters: int) -> None:
    """Write dead letters of deliveries, reads and commands; a third of them is closed."""
    kinds: tuple[Callable[[int], Model], ...] = (batch, fetch, push)
    rows: list[Record] = []
    for number in range(letters):
        kind = kinds[number % 3]
        origin = {batch: topics.BATCHES, fetch: topics.WEBHOOKS, push: topics.PUSHES}[kind]
        at = NOON + timedelta(milliseconds=number)
        rows.append(letter(number, kind(number), at, origin=origin.name, flow="f"))
        if number % 9 == 0:
            rows.append(delivery(number, acknowledged_at=at + timedelta(hours=1)))
        if number % 9 == 1:
            rows.append(fetched(number, at + timedelta(hours=1), offset=number))
        if len(rows) >= WRITTEN:
            view.write(*rows)
            rows.clear()
    view.write(*rows)
    view.writer.caught_up(NOON + timedelta(days=1))


def push(number: int) -> Push:
    """Return an operation."""
    return Push(
        org="default",
        connection="buildium",
        operation=f"op-{number}",
        entity=SyncEntity.PROPERTY,
        id=f"p-{number}",
        version=1,
        attempt=1,
        since=NOON,
    )


def bare_read(database: Database) -> float:
    """Return the seconds of a read of the same columns without their state."""
    one = tables.DEAD_LETTERS.c
    query = sa.select(one.partition, one.offset, one.origin, one.connection, one.receiver, one.entity, one.operation)
    began = time.perf_counter()
    with database.reading() as connection:
        connection.execute(query.where(one.org_id == "default")).all()
    return time.perf_counter() - began


# -------------------------------------------------------------------------------------------------------- live changes

ROUNDS = 4
"""Rounds without and with replays, in turn."""


PAUSE = 0.4
"""Seconds between two changes, which have about two calls each: Buildium allows ten a second."""


async def live(changes: int) -> None:
    """Print how long changes take to the receiver without a replay and beside one."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedKafka(Path(folder) / "kafka") as kafka:
        async with cluster(kafka.bootstrap_servers, "replay.", Path(folder)) as world:
            await world.start(2)
            await world.until(lambda: receiver_matches(world), within=300)
            for unit in sorted(world.portfolio.units):
                await world.send_webhooks(world.portfolio.set_rent(unit, 1000))
            await world.until(lambda: receiver_matches(world), within=300)
            await world.rest()
            alone: list[float] = []
            beside: list[float] = []
            counts: dict[str, int] = {}
            for number in range(ROUNDS):
                rent, count = 1100 + 1000 * number, changes // (ROUNDS // 2)
                if number % 2 == 0:
                    alone += await arrivals(world, count, rent)
                    continue
                replaying = asyncio.create_task(replay_again_and_again(world, counts))
                beside += await arrivals(world, count, rent)
                replaying.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await replaying
                await world.rest()
    for name, found in (("without a replay", alone), (f"beside replays of {sum(counts.values()):,} records", beside)):
        print(f"{name}: p50 {percentile(found, 50) * 1000:.0f} ms, p99 {percentile(found, 99) * 1000:.0f} ms")
    print(f"ratio of p99: {percentile(beside, 99) / percentile(alone, 99):.2f}")


async def replay_again_and_again(world: ClusterWorld, counts: dict[str, int]) -> None:
    """Replay the webhooks of the last hour until cancelled, one after the other; note how many records each had."""
    since = (world.clock.now() - timedelta(hours=1)).isoformat()
    while True:
        body = {"topic": topics.WEBHOOKS.name, "since": since}
        found = (await world.call_api("POST", "/api/replays", "default", body)).json()
        await world.call_api("POST", f"/api/replays/{found['id']}/approve", "default")
        while found["state"] != "done":
            await asyncio.sleep(0.2)
            found = (await world.call_api("GET", f"/api/replays/{found['id']}", "default")).json()
            counts[found["id"]] = found["report"]["replayed"]


async def arrivals(world: ClusterWorld, count: int, rent: int) -> list[float]:
    """Return the seconds from each change to its arrival at the receiver."""
    units = sorted(number for number, listed in world.rentsync.state.items() if listed.status_name == "Available")
    found = []
    for number in range(count):
        unit, wanted = units[number % len(units)], rent + number
        events = world.portfolio.set_rent(unit, wanted)
        began = time.perf_counter()
        await world.send_webhooks(events)
        while listed_rent(world, unit) != float(wanted):
            await asyncio.sleep(0.005)
        found.append(time.perf_counter() - began)
        await asyncio.sleep(PAUSE)
    return found


if __name__ == "__main__":
    main()
