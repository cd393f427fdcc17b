"""Planning a replay of 100,000 dead letters: seconds, and the ratio to a bare read of the same rows.

python -m benchmarks.replay [--letters 100000] [--postgres]
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from schemas import topics
from schemas.base import Model
from schemas.codec import encode
from schemas.commands import Push, SyncEntity
from streams.backends.memory import MovableClock
from streams.core.flows import Record
from streams.replays.planner import ReplayRequest
from streams.view import tables
from streams.view.database import Database, parse_url
from streams.view.queries import LetterFilter, Queries
from tests.postgres import postgres
from tests.streams.replays.parts import memory_replays
from tests.streams.view.parts import NOON, View, delivery, fetched
from tests.streams.view.test_queries import batch, fetch, letter

WRITTEN = 2000
"""Records of one transaction."""


def main() -> None:
    """Print one line for each filter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--letters", type=int, default=100_000)
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
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


if __name__ == "__main__":
    main()
