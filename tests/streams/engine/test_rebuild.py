"""Rows that cannot be read are rebuilt from their changelog, and the worker goes on."""

import asyncio
import gc
import logging
import random
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiokafka
import pytest

from streams.backends.ports import NotOwner
from streams.core.flows import ProducerRecord, RecordBatch, RowsDamaged, Step, View
from streams.core.observer import NullObserver
from streams.engine import Engine, EngineSettings
from streams.engine.rebuild import AGAIN_AFTER, Rebuilds
from streams.engine.stores import RocksMemory, RocksStore
from tests.chaos.kafka import drained, make_topics, wait_until

KEYS = 20_000
PAD = 100
COUNT = struct.Struct("<Q")


def settings_of(folder: Path, bootstrap: str = "x", name: str = "app") -> EngineSettings:
    return EngineSettings(
        bootstrap_servers=bootstrap,
        app_id=name,
        worker="w1",
        data_dir=folder,
        partitions=1,
        session_timeout=6.0,
    )


def store_of(settings: EngineSettings) -> RocksStore:
    return RocksStore(settings.state_dir / "tables", "counts", RocksMemory(settings), 3600)


def spoil(settings: EngineSettings) -> None:
    """Overwrite a part of the files of a closed partition, as a disk does that fails."""
    store = store_of(settings)
    store.open(0)
    store._dbs[0].flush()
    store.close(0)
    largest = max(store.path(0).glob("*.sst"), key=lambda file: file.stat().st_size)
    with largest.open("r+b") as file:
        file.seek(largest.stat().st_size // 2)
        file.write(b"rotten block" * 400)


@dataclass
class Counter:
    """An engine with a fold that counts events by key, and a scan that reads all of its rows."""

    settings: EngineSettings
    scanned: set[int] = field(default_factory=set)
    """How many rows each pass of the scan found."""

    def engine(self) -> Engine:
        engine = Engine(self.settings, NullObserver())
        counts = engine.table("counts")
        engine.fold("count", [f"{self.settings.app_id}-in"], counts, self.step)
        engine.scan("look", 0.5, self.look, reads=[counts], on_assigned=True)
        return engine

    @staticmethod
    def step(batch: RecordBatch, views: Mapping[str, View]) -> Step:
        rows: dict[bytes, bytes | None] = {}
        for record in batch.records:
            assert record.key is not None
            before = rows.get(record.key) or views["counts"].get(record.key)
            count = COUNT.unpack(before[:8])[0] if before else 0
            rows[record.key] = COUNT.pack(count + 1) + random.Random(record.key).randbytes(PAD)
        return Step(rows)

    def look(self, views: Mapping[str, View], _partition: int) -> Iterable[ProducerRecord]:
        self.scanned.add(sum(1 for _ in views["counts"].scan(b"k")))
        return ()


@pytest.mark.broker
async def test_a_worker_rebuilds_damaged_rows_and_goes_on(
    kafka: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No event is lost or counted twice, and the process that found the damage is the one that ends it."""
    name = f"rebuild-{time.time_ns()}"
    settings = settings_of(tmp_path, kafka, name)
    await make_topics(kafka, 1, [f"{name}-in"], [f"{name}-counts-changelog"])
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=20)
    await producer.start()

    async def events() -> None:
        await asyncio.gather(*[await producer.send(f"{name}-in", b"", key=b"k%06d" % n) for n in range(KEYS)])

    async def live(counter: Counter, until: Any) -> dict[bytes, bytes]:
        engine = counter.engine()
        running = asyncio.create_task(engine.run(signals=False))
        try:
            await wait_until(lambda: engine.ready or running.done(), 40)
            await wait_until(until, 60)
            assert not running.done(), running
            return dict(engine.views(0)["counts"].scan(b"k"))
        finally:
            engine.stop()
            await asyncio.wait_for(running, 30)

    async def all_processed() -> bool:
        return await drained(kafka, name, [f"{name}-in"], 1)

    try:
        await events()
        await live(Counter(settings), all_processed)
        spoil(settings)
        await events()
        with caplog.at_level(logging.WARNING, "streams.engine"):
            counter = Counter(settings)

            async def is_repaired() -> bool:
                return KEYS in counter.scanned and await all_processed()

            rows = await live(counter, is_repaired)
        assert {COUNT.unpack(row[:8])[0] for row in rows.values()} == {2}
        assert len(rows) == KEYS
        assert counter.scanned == {KEYS}
        assert caplog.text.count("they are rebuilt from the changelog") == 1
        assert "are rebuilt from" in caplog.text
        gc.collect()  # in this process a view of the damaged rows may wait in a cycle
        store = store_of(settings)
        store.open(0)
        assert len(list(store.view(0).scan(b"k"))) == KEYS
        store.close(0)
    finally:
        await producer.stop()


# --------------------------------------------------------------------------------------------------- without a broker


class Output:
    """Owns everything, or nothing."""

    def __init__(self) -> None:
        self.is_owner = True

    async def owned(self) -> None:
        if not self.is_owner:
            raise NotOwner("given away")


class Rebuilder(Rebuilds):
    """Reads the changelog from a list."""

    def __init__(self, store: RocksStore, output: Output, clock: Any = time.monotonic) -> None:
        self.rows: list[tuple[bytes, bytes | None]] = [(b"a", b"1"), (b"b", b"2"), (b"b", None)]
        self.reads = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        given: Any = output
        super().__init__(settings_of(Path("/x")), {"counts": store}, {"counts": "changelog"}, given, clock)

    async def _read(self, changelog: str, partition: int, fresh: Any) -> int:
        self.reads += 1
        await self.gate.wait()
        await self._output.owned()
        if self.error is not None:
            raise self.error
        fresh.write(self.rows, 41)
        return len(self.rows)


def fault() -> RowsDamaged:
    return RowsDamaged("a block is damaged", "counts", 0)


@pytest.fixture
def store(tmp_path: Path) -> RocksStore:
    made = store_of(settings_of(tmp_path))
    made.open(0)
    made.write(0, [(b"old", b"row")], 7)
    return made


async def test_fresh_rows_take_the_place_of_damaged_ones_also_after_a_restart(
    store: RocksStore, tmp_path: Path
) -> None:
    assert await Rebuilder(store, Output()).repair(fault())
    assert (list(store.view(0).scan(b"")), store.offset(0)) == ([(b"a", b"1")], 41)
    store.write(0, [(b"c", b"3")], 42)
    store.close(0)
    again = store_of(settings_of(tmp_path))
    again.open(0)
    assert (list(again.view(0).scan(b"")), again.offset(0)) == ([(b"a", b"1"), (b"c", b"3")], 42)
    again.close(0)


async def test_rows_that_were_not_written_to_their_end_are_not_used(store: RocksStore, tmp_path: Path) -> None:
    """A process that ends during a rebuild leaves the damaged rows, which are marked."""
    store.begin_rewrite(0).write([(b"half", b"1")], 3)
    store.close(0)
    gc.collect()  # as the end of the process closes the half of them
    again = store_of(settings_of(tmp_path))
    again.open(0)
    assert list(again.view(0).scan(b"")) == [(b"old", b"row")]
    again.close(0)


async def test_several_callers_wait_for_one_rebuild_and_the_writer_waits_too(store: RocksStore) -> None:
    rebuilds = Rebuilder(store, Output())
    rebuilds.gate.clear()
    callers = [asyncio.create_task(rebuilds.repair(fault())) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert rebuilds.writing("counts", 0).locked()
    assert not rebuilds.writing("counts", 1).locked()
    rebuilds.gate.set()
    assert await asyncio.gather(*callers) == [True, True, True]
    assert rebuilds.reads == 1
    assert not rebuilds.writing("counts", 0).locked()


async def test_rows_that_are_damaged_again_soon_end_the_worker(store: RocksStore) -> None:
    now = [1000.0]
    rebuilds = Rebuilder(store, Output(), lambda: now[0])
    assert await rebuilds.repair(fault())
    now[0] += AGAIN_AFTER - 1
    assert not await rebuilds.repair(fault())
    now[0] += 1
    assert await rebuilds.repair(fault())
    assert not await rebuilds.repair(RowsDamaged("of an unknown table"))


async def test_a_rebuild_that_fails_ends_the_worker_and_leaves_the_rows(
    store: RocksStore, caplog: pytest.LogCaptureFixture
) -> None:
    rebuilds = Rebuilder(store, Output())
    rebuilds.error = RuntimeError("changelog cannot be read")
    assert not await rebuilds.repair(fault())
    assert list(store.view(0).scan(b"")) == [(b"old", b"row")]
    assert not rebuilds.writing("counts", 0).locked()
    assert "changelog cannot be read" in caplog.text


async def test_a_partition_that_moves_meanwhile_is_not_rebuilt_here(store: RocksStore) -> None:
    output = Output()
    rebuilds = Rebuilder(store, output)
    output.is_owner = False
    assert await rebuilds.repair(fault())
    assert list(store.view(0).scan(b"")) == [(b"old", b"row")]
    output.is_owner = True
    rebuilds.gate.clear()
    repairing = asyncio.create_task(rebuilds.repair(fault()))
    await asyncio.sleep(0.01)
    store.close(0)
    rebuilds.gate.set()
    assert await repairing
    assert store.partitions() == frozenset()
