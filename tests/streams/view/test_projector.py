"""The projector follows the topics: nothing is left out or written twice, whatever fails meanwhile."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from connectors.ports import Connection
from schemas import topics
from schemas.codec import MAGIC
from streams.backends.memory import MemoryBackend, MemoryBroker
from streams.core.flows import ProducerRecord, Record
from streams.core.policy import Switches
from streams.topology import APP
from streams.view import tables
from streams.view.database import Database
from streams.view.projection import projections
from streams.view.projector import Projector
from tests.streams.view.parts import NOON, View, account, building, fetched, lease, record, unit


class QuickClock:
    """The time of the machine, on the day of the records; waits are short."""

    def __init__(self) -> None:
        self._shift = NOON - datetime.now(UTC)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._shift

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.02))

    def move(self, days: float) -> None:
        self._shift += timedelta(days=days)


class Sources:
    """One connection of one org, whose settings may change."""

    def __init__(self) -> None:
        self.off: set[int] = set()

    def connection(self, org: str, name: str) -> Connection | None:
        found = [one for one in self.connections() if (one.org, one.name) == (org, name)]
        return found[0] if found else None

    def connections(self, org: str | None = None) -> Sequence[Connection]:
        del org
        return [Connection("default", "buildium", "buildium", enabled=True, timezone="UTC")]

    def switches(self, org: str, name: str) -> Switches:
        del org, name
        return Switches(off=frozenset(self.off))


class Bench:
    """A broker in memory, and projectors over one database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = QuickClock()
        self.broker = MemoryBroker(self.clock, 2)
        self.sources = Sources()
        self.view = View(database)

    def produce(self, *records: Record, partition: int = 0) -> None:
        for one in records:
            self.broker.append(ProducerRecord(one.topic, one.key or b"", one.value, tuple(one.headers)), partition)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Projector]:
        projector = Projector(self.database, MemoryBackend(self.broker), projections(APP), self.sources, self.clock)
        task = asyncio.create_task(projector.run())
        try:
            yield projector
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.005)

    async def complete(self, projector: Projector) -> None:
        """Wait until everything that is on the topics now is in the view."""
        now = self.clock.now()
        await self.until(lambda: projector.as_of is not None and projector.as_of >= now)

    def count(self, table: sa.Table) -> int:
        with self.database.reading() as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)


@pytest.fixture
def bench(database: Database) -> Bench:
    return Bench(database)


async def test_everything_on_the_topics_is_in_the_view(bench: Bench) -> None:
    bench.produce(building(), account(), *(unit(number) for number in range(1, 2501)))
    bench.produce(*(fetched(number) for number in range(30)), partition=1)
    async with bench.running() as projector:
        await bench.complete(projector)
        assert bench.count(tables.UNITS) == 2500
        assert bench.count(tables.FETCHES) == 30
        assert projector.behind == 0
        bench.produce(unit(11, code="eleven"))
        await bench.complete(projector)
    codes = {row["unit_id"]: row["code"] for row in bench.view.rows(tables.UNITS, "unit_id", "code")}
    assert codes[11] == "eleven"


async def test_a_restart_goes_on_where_it_was(bench: Bench) -> None:
    bench.produce(*(fetched(number) for number in range(30)))
    async with bench.running() as projector:
        await bench.complete(projector)
    bench.produce(*(fetched(number) for number in range(7)))
    async with bench.running() as projector:
        await bench.complete(projector)
        assert projector.records == 7
    assert bench.count(tables.FETCHES) == 37


async def test_two_processes_write_every_record_once(bench: Bench) -> None:
    async with bench.running() as first, bench.running() as second:
        for round_ in range(20):
            bench.produce(*(fetched(number) for number in range(50)), partition=round_ % 2)
            await asyncio.sleep(0.01)
        await bench.complete(first)
        await bench.complete(second)
        assert first.records + second.records == 1000
    assert bench.count(tables.FETCHES) == 1000


async def test_a_view_that_is_dropped_meanwhile_is_built_again(bench: Bench) -> None:
    bench.produce(building(), account(), *(unit(number) for number in range(1, 500)))
    async with bench.running() as projector:
        await bench.complete(projector)
        before = bench.view.everything()
        await asyncio.to_thread(bench.database.drop)
        bench.produce(fetched(1))
        await bench.until(lambda: projector.problem is None and _has_tables(bench.database))
        await bench.complete(projector)
        after = bench.view.everything()
    assert len(after.pop("fetches")) == 1
    assert before.pop("fetches") == []
    assert after == before


async def test_an_outage_of_the_broker_is_shown_and_ends(bench: Bench) -> None:
    async with bench.running() as projector:
        await bench.complete(projector)
        bench.produce(fetched(1))
        await bench.complete(projector)
        before = projector.as_of
        bench.broker.go_away()
        await asyncio.sleep(0.1)
        held = projector.as_of
        await asyncio.sleep(0.1)
        assert projector.as_of == held
        assert before is not None
        bench.broker.come_back()
        bench.produce(fetched(2))
        await bench.complete(projector)
    assert bench.count(tables.FETCHES) == 2


async def test_a_record_that_is_none_is_left_out_and_the_next_one_goes_on(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.produce(record(topics.COMMANDS.name, b"no record"), record(unit(1).topic, b"?", b"default/buildium/u/12"))
    bench.produce(record(unit(1).topic, None, b"a\xff"), record(unit(1).topic, b"", b"\xff\xffowner"), fetched(1))
    with caplog.at_level(logging.WARNING, "streams.view"):
        async with bench.running() as projector:
            await bench.complete(projector)
    assert bench.count(tables.FETCHES) == 1
    assert sum("is left out of the view" in one.getMessage() for one in caplog.records) == 3


async def test_a_record_of_a_newer_release_stops_the_view_and_not_more(bench: Bench) -> None:
    """It can be read after an upgrade; skipping it would lose it."""
    bench.produce(fetched(1), record(topics.COMMANDS.name, MAGIC + b"newerone" + b"body"))
    async with bench.running() as projector:
        await bench.until(lambda: "newer release" in (projector.problem or ""))
        assert projector.as_of is None
    assert bench.count(tables.FETCHES) == 0


async def test_topics_that_lost_their_end_lead_to_a_rebuild(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.produce(*(fetched(number) for number in range(30)))
    async with bench.running() as projector:
        await bench.complete(projector)
    bench.broker = MemoryBroker(bench.clock, 2)
    bench.produce(fetched(77))
    async with bench.running() as projector:
        await bench.complete(projector)
    assert [row["entity"] for row in bench.view.rows(tables.FETCHES)] == [77]
    assert "it is rebuilt" in caplog.text


async def test_settings_and_dates_change_units_without_a_record(bench: Bench) -> None:
    starts = NOON.date() + timedelta(days=2)
    bench.produce(building(), building(2), account(), unit(11, leases=[lease(9, 11, starts=starts)]), unit(21, of=2))

    def states() -> dict[int, str]:
        return {row["unit_id"]: row["status"] for row in bench.view.rows(tables.UNITS, "unit_id", "status")}

    async with bench.running() as projector:
        await bench.complete(projector)
        first = states()
        bench.clock.move(days=3)
        await bench.until(lambda: states()[11] != first[11])
        assert states()[21] == first[21]
        bench.sources.off.add(2)
        await bench.until(lambda: states()[21] == "excluded")
    bench.sources.off.clear()
    async with bench.running():
        await bench.until(lambda: states()[21] == first[21])


def _has_tables(database: Database) -> bool:
    with database.reading() as connection:
        return bool(sa.inspect(connection).get_table_names())
