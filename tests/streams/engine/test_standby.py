"""Standby rows: a worker that takes partitions over has only the last records of their changelogs to read."""

import asyncio
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiokafka
import pytest
from aiokafka.errors import OffsetOutOfRangeError

from streams.core.flows import Record, RecordBatch, Step, View
from streams.core.observer import NullObserver
from streams.engine import Engine, EngineSettings
from streams.engine import standby as module
from streams.engine.standby import Standbys
from streams.engine.stores import MemoryStore, NotHeld
from tests.chaos.kafka import drained, make_topics, wait_until

PARTITIONS = 4
KEYS = 4000
COUNT = struct.Struct("<Q")


def settings_of(folder: Path, bootstrap: str = "x", name: str = "app", worker: str = "w1") -> EngineSettings:
    return EngineSettings(
        bootstrap_servers=bootstrap,
        app_id=name,
        worker=worker,
        data_dir=folder,
        partitions=PARTITIONS,
        session_timeout=6.0,
        state_max_age=3600.0,
    )


@dataclass
class Worker(NullObserver):
    """One engine that counts events by key, and what it reports."""

    settings: EngineSettings
    restored: list[int] = field(default_factory=list)
    """Records of each recovery."""
    behind: int | None = None

    def engine(self) -> Engine:
        engine = Engine(self.settings, self)
        counts = engine.table("counts")
        engine.fold("count", [f"{self.settings.app_id}-in"], counts, self.step)
        return engine

    @staticmethod
    def step(batch: RecordBatch, views: Mapping[str, View]) -> Step:
        rows: dict[bytes, bytes | None] = {}
        for record in batch.records:
            assert record.key is not None
            before = rows.get(record.key) or views["counts"].get(record.key)
            rows[record.key] = COUNT.pack((COUNT.unpack(before)[0] if before else 0) + 1)
        return Step(rows)

    def tables_recovered(self, records: int, seconds: float) -> None:
        self.restored.append(records)

    def standbys_measured(self, records: int) -> None:
        self.behind = records


@pytest.mark.broker
async def test_the_worker_that_takes_over_has_the_rows(kafka: str, tmp_path: Path) -> None:
    """Rows of every key are exact after one worker went, came back without its disk, and the other one went."""
    name = f"standby-{time.time_ns()}"
    topic = f"{name}-in"
    await make_topics(kafka, PARTITIONS, [topic], [f"{name}-counts-changelog"])
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=20)
    await producer.start()
    running: dict[str, tuple[Worker, Engine, asyncio.Task[None]]] = {}

    async def events() -> None:
        sent = [await producer.send(topic, b"", key=b"k%06d" % n, partition=n % PARTITIONS) for n in range(KEYS)]
        await asyncio.gather(*sent)
        await wait_until(lambda: drained(kafka, name, [topic], PARTITIONS), 40)

    async def settled() -> None:
        def is_settled() -> bool:
            engines = [engine for _, engine, _ in running.values()]
            owned = sum(len(engine.status.partitions) for engine in engines)
            return owned == PARTITIONS and all(engine.ready for engine in engines)

        await wait_until(is_settled, 60)

    async def start(worker: str, folder: Path) -> Worker:
        made = Worker(settings_of(folder, kafka, name, worker))
        engine = made.engine()
        running[worker] = made, engine, asyncio.create_task(engine.run(signals=False))
        await wait_until(lambda: made.restored, 60)
        await settled()
        return made

    async def stop(worker: str) -> None:
        _, engine, task = running.pop(worker)
        engine.stop()
        await asyncio.wait_for(task, 40)
        if running:
            await settled()

    async def share() -> None:
        """Wait until each worker has half of the partitions, and standby rows of the other half."""
        await wait_until(lambda: [len(one.status.partitions) for _, one, _ in running.values()] == [2, 2], 40)
        for worker, _, _ in running.values():
            worker.behind = None
        await wait_until(lambda: all(worker.behind == 0 for worker, _, _ in running.values()), 60)

    def rows(worker: str) -> dict[bytes, int]:
        _, engine, _ = running[worker]
        found: dict[bytes, int] = {}
        for partition in range(PARTITIONS):
            found |= {key: COUNT.unpack(row)[0] for key, row in engine.views(partition)["counts"].scan(b"k")}
        return found

    try:
        await start("w1", tmp_path)
        await events()
        second = await start("w2", tmp_path)
        assert second.restored[-1] >= KEYS // 2
        await share()
        await events()
        await share()
        before = len(second.restored)

        await stop("w1")
        assert sum(second.restored[before:]) < KEYS // 20
        assert rows("w2") == {b"k%06d" % n: 2 for n in range(KEYS)}

        third = await start("w1", tmp_path / "other")
        await share()
        await events()
        await share()
        before = len(third.restored)
        await stop("w2")
        assert sum(third.restored[before:]) < KEYS // 20
        assert rows("w1") == {b"k%06d" % n: 3 for n in range(KEYS)}
    finally:
        for worker in list(running):
            await stop(worker)
        await producer.stop()


# --------------------------------------------------------------------------------------------------- without a broker

CHANGELOG = "counts-changelog"


class Consumer:
    """A consumer of a changelog that is a list."""

    def __init__(self, log: Mapping[int, list[Record]]) -> None:
        self.log = log
        self.positions: dict[Any, int] = {}
        self.before: asyncio.Event | None = None
        self.errors: list[Exception] = []
        self.polls = 0
        self.starts = 0

    async def start(self) -> None:
        self.starts += 1

    async def stop(self) -> None:
        self.positions = {}

    def assign(self, places: Iterable[Any]) -> None:
        self.positions = dict.fromkeys(places, -1)

    def assignment(self) -> frozenset[Any]:
        return frozenset(self.positions)

    def seek(self, place: Any, offset: int) -> None:
        self.positions[place] = offset

    async def seek_to_beginning(self, *places: Any) -> None:
        self.positions |= dict.fromkeys(places, 0)

    async def position(self, place: Any) -> int:
        return self.positions[place]

    def highwater(self, place: Any) -> int:
        return self.log[place.partition][-1].offset + 1

    def last_poll_timestamp(self, _place: Any) -> int:
        return self.polls

    async def getmany(self, timeout_ms: int, max_records: int) -> dict[Any, list[Record]]:
        self.polls += 1
        if self.errors:
            raise self.errors.pop()
        found = {}
        for place, position in self.positions.items():
            records = [record for record in self.log[place.partition] if record.offset >= position]
            if records:
                found[place] = records
                self.positions[place] = records[-1].offset + 1
        if self.before is not None:
            await self.before.wait()
        await asyncio.sleep(0)
        return found


class Reader(Standbys):
    """Reads from such a consumer."""

    def __init__(self, store: MemoryStore, consumer: Consumer, clock: Any = time.monotonic) -> None:
        self.fake = consumer
        self.observed = Worker(settings_of(Path("/x")))
        super().__init__(settings_of(Path("/x")), {CHANGELOG: store}, self.observed, clock)

    def _consumer(self) -> Any:
        return self.fake


def record(offset: int, key: str, value: str | None) -> Any:
    return aiokafka.ConsumerRecord(
        topic=CHANGELOG,
        partition=0,
        offset=offset,
        timestamp=0,
        timestamp_type=0,
        key=key.encode(),
        value=value.encode() if value is not None else None,
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=0,
        headers=(),
    )


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def consumer() -> Consumer:
    return Consumer({0: [record(0, "a", "1"), record(3, "b", "2")], 1: [record(5, "c", "3")]})


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REST", "LOOK", "RETRY"):
        monkeypatch.setattr(module, name, 0.0)


class Running:
    """Runs a reader as long as a block."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    async def __aenter__(self) -> Reader:
        self.task = asyncio.create_task(self.reader.run())
        return self.reader

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.reader.close()


async def test_rows_are_written_as_they_are_read_and_used_once_the_partition_is_opened(
    store: MemoryStore, consumer: Consumer
) -> None:
    async with Running(Reader(store, consumer)) as reader:
        reader.follow({(CHANGELOG, 0)})
        await wait_until(lambda: reader.observed.behind == 0, 5)
        with pytest.raises(NotHeld):
            store.view(0)
        reader.pause()
        store.open(0)
        assert dict(store.view(0).scan(b"")) == {b"a": b"1", b"b": b"2"}
        assert store.offset(0) == 3
        reader.follow(())
        assert store.offset(0) == 3
        assert store.partitions() == {0}


async def test_what_was_read_before_partitions_moved_is_not_written_afterwards(
    store: MemoryStore, consumer: Consumer
) -> None:
    """The owner has written since; its rows must not go back."""
    consumer.before = asyncio.Event()
    async with Running(Reader(store, consumer)) as reader:
        reader.follow({(CHANGELOG, 0)})
        await wait_until(lambda: consumer.polls == 1, 5)
        reader.pause()
        store.open(0)
        store.write(0, [(b"a", b"new")], 9)
        reader.follow({(CHANGELOG, 1)})
        consumer.before.set()
        await wait_until(lambda: reader.observed.behind == 0, 5)
        assert dict(store.view(0).scan(b"")) == {b"a": b"new"}
        assert store.offset(0) == 9


async def test_reading_goes_on_where_the_rows_are(store: MemoryStore, consumer: Consumer) -> None:
    store.open_standby(0)
    store.write_standby(0, [(b"a", b"kept")], 2)
    async with Running(Reader(store, consumer)) as reader:
        reader.follow({(CHANGELOG, 0)})
        await wait_until(lambda: reader.observed.behind == 0, 5)
        store.open(0)
        assert dict(store.view(0).scan(b"")) == {b"a": b"kept", b"b": b"2"}


async def test_an_error_of_the_broker_is_tried_again(store: MemoryStore, consumer: Consumer) -> None:
    consumer.errors.append(OSError("away"))
    async with Running(Reader(store, consumer)) as reader:
        reader.follow({(CHANGELOG, 1)})
        await wait_until(lambda: reader.observed.behind == 0, 5)
        assert consumer.starts == 2
        assert store.open_standby(1) == 5


async def test_rows_that_are_not_in_the_changelog_any_more_are_rebuilt(store: MemoryStore, consumer: Consumer) -> None:
    store.open_standby(1)
    store.write_standby(1, [(b"gone", b"1")], 70)
    consumer.errors.append(OffsetOutOfRangeError({aiokafka.TopicPartition(CHANGELOG, 1): 71}))
    async with Running(Reader(store, consumer)) as reader:
        reader.follow({(CHANGELOG, 1)})
        await wait_until(lambda: reader.observed.behind == 0, 5)
        store.open(1)
        assert dict(store.view(1).scan(b"")) == {b"c": b"3"}


async def test_rows_that_were_behind_for_too_long_are_rebuilt(store: MemoryStore, consumer: Consumer) -> None:
    """Compaction may have removed a tombstone that they need."""
    now = [0.0]
    store.open_standby(1)
    store.write_standby(1, [(b"deleted", b"1")], 4)
    async with Running(Reader(store, consumer, lambda: now[0])) as reader:
        consumer.before = asyncio.Event()
        reader.follow({(CHANGELOG, 1)})
        await wait_until(lambda: consumer.polls == 1, 5)
        consumer.log[1].append(record(20, "d", "4"))
        now[0] = 3601.0
        consumer.before.set()
        await wait_until(lambda: reader.observed.behind == 0, 5)
        store.open(1)
        assert dict(store.view(1).scan(b"")) == {b"c": b"3", b"d": b"4"}


async def test_without_partitions_no_connection_is_made(store: MemoryStore, consumer: Consumer) -> None:
    async with Running(Reader(store, consumer)) as reader:
        reader.follow(())
        await asyncio.sleep(0.02)
        assert consumer.starts == 0
        assert reader.observed.behind == 0
