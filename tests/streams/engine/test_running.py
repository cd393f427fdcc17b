"""Tests of an engine on a real broker, which is started several times."""

import asyncio
import shutil
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiokafka
import mode
import pytest

from streams.core.flows import ProducerRecord, RecordBatch, Step, View
from streams.core.observer import NullObserver
from streams.engine import Engine, EngineSettings, NotHeld, Status
from streams.engine.stores import RocksMemory, RocksStore
from tests.chaos.kafka import drained, last_values, make_topics, wait_until

pytestmark = pytest.mark.broker

PARTITIONS = 4
KEYS = 40
EVENTS = 2000
COUNT = struct.Struct("<Q")
DELETED = b"k000"


class Watcher(mode.Service):  # type: ignore[misc]
    """A service that records its start and its stop."""

    def __init__(self, notes: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._notes = notes

    async def on_start(self) -> None:
        self._notes.append("service started")

    async def on_stop(self) -> None:
        self._notes.append("service stopped")


@dataclass
class WorkerRun:
    """The observations of one run of the engine."""

    name: str
    worker: str = "w1"
    store: str = "rocksdb"
    notes: list[str] = field(default_factory=list)
    handled: list[tuple[str, str, int]] = field(default_factory=list)
    scanned: list[int] = field(default_factory=list)
    restored: int = 0
    status: Status | None = None
    rows: dict[bytes, bytes] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)

    def engine(self, bootstrap: str, folder: Path) -> Engine:
        settings = EngineSettings(
            bootstrap_servers=bootstrap,
            app_id=self.name,
            worker=self.worker,
            data_dir=folder,
            partitions=PARTITIONS,
            store=self.store,  # type: ignore[arg-type]
            session_timeout=6.0,
            batch_size=200,
        )
        engine = Engine(settings, Watch(self))
        counts, totals = engine.table("counts"), engine.table("totals")
        engine.fold("count", [f"{self.name}-a", f"{self.name}-b"], counts, self.count)
        engine.fold("total", [f"{self.name}-counted"], totals, self.total, reads=[counts])
        engine.scan("look", 0.5, self.look, reads=[counts], on_assigned=True)
        engine.service(lambda: Watcher(self.notes))
        engine.when_moving(lambda moving: self.notes.append("moving" if moving else "settled"))
        return engine

    def count(self, batch: RecordBatch, views: Mapping[str, View]) -> Step:
        rows: dict[bytes, bytes | None] = {}
        effects = []
        for record in batch.records:
            assert record.key is not None
            if record.value is None:
                rows[record.key] = None
                continue
            row = rows.get(record.key) or views["counts"].get(record.key)
            rows[record.key] = COUNT.pack((COUNT.unpack(row)[0] if row else 0) + 1)
            topic = record.topic.encode()
            effects.append(
                ProducerRecord(f"{self.name}-counted", record.key, record.value, (("from", topic), ("n", b"1")))
            )
        return Step(rows, effects)

    def total(self, batch: RecordBatch, views: Mapping[str, View]) -> Step:
        for record in batch.records:
            assert record.key is not None
            if views["counts"].get(record.key) is None and record.key != DELETED:
                self.strange.append(f"{record.key!r} was emitted before it was written")
            if [name for name, _ in record.headers] != ["from", "n"]:
                self.strange.append(f"headers {record.headers}")
        return Step({b"%d" % batch.partition: b"seen"})

    def look(self, views: Mapping[str, View], _partition: int) -> Iterable[ProducerRecord]:
        for key, _ in views["counts"].scan(b"k"):
            yield ProducerRecord(f"{self.name}-due", key, b"due")


@dataclass
class Watch(NullObserver):
    """Records the events of the engine in a `WorkerRun`."""

    life: WorkerRun

    def batch_folded(self, flow: str, topic: str, records: int, seconds: float) -> None:
        self.life.handled.append((flow, topic, records))

    def tables_recovered(self, records: int, seconds: float) -> None:
        self.life.notes.append("recovered")
        self.life.restored += records

    def partition_scanned(self, scan: str, partition: int, effects: int, seconds: float) -> None:
        self.life.scanned.append(partition)


async def live(bootstrap: str, folder: Path, life: WorkerRun, until: Any = None) -> WorkerRun:
    """Run until every record is processed, record the observations, and stop."""
    engine = life.engine(bootstrap, folder)
    running = asyncio.create_task(engine.run(signals=False))
    try:
        await wait_until(lambda: engine.ready or running.done(), 40)
        assert not running.done(), running
        topics = [f"{life.name}-{topic}" for topic in ("a", "b", "counted")]
        await wait_until(lambda: drained(bootstrap, life.name, topics, PARTITIONS), 40)
        life.scanned.clear()  # what counts is a scan that began after everything was there, so the second one
        await wait_until(lambda: len(life.scanned) > PARTITIONS, 20)
        life.scanned.clear()
        await wait_until(lambda: set(life.scanned) == set(range(PARTITIONS)), 20)
        life.status = engine.status
        for partition in range(PARTITIONS):
            life.rows |= dict(engine.views(partition)["counts"].scan(b""))
        with pytest.raises(NotHeld):
            engine.views(PARTITIONS)
    finally:
        engine.stop()
        await asyncio.wait_for(running, 30)
    return life


async def fill(bootstrap: str, name: str) -> None:
    await make_topics(
        bootstrap,
        PARTITIONS,
        [f"{name}-{topic}" for topic in ("a", "b", "counted", "due")],
        [f"{name}-{table}-changelog" for table in ("counts", "totals")],
    )
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    sent = [
        await producer.send(f"{name}-{'ab'[n % 2]}", b"event", key=b"k%03d" % (n % KEYS), partition=n % PARTITIONS)
        for n in range(EVENTS)
    ]
    await asyncio.gather(*sent)
    await producer.send_and_wait(f"{name}-a", None, key=DELETED, partition=0)
    await producer.stop()


@dataclass
class Runs:
    """Four runs of one worker: the first one, with its rows, without its rows, and in memory."""

    bootstrap: str
    name: str
    first: WorkerRun
    again: WorkerRun
    lost: WorkerRun
    ahead: WorkerRun
    memory: WorkerRun


@pytest.fixture(scope="module")
def runs(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("state")
    name = f"runs-{time.time_ns()}"

    async def play() -> Runs:
        await fill(kafka, name)
        first = await live(kafka, folder, WorkerRun(name))
        again = await live(kafka, folder, WorkerRun(name))
        shutil.rmtree(folder / name)
        lost = await live(kafka, folder, WorkerRun(name))
        _write_rows_ahead(folder, name)
        ahead = await live(kafka, folder, WorkerRun(name))
        memory = await live(kafka, folder, WorkerRun(name, store="memory"))
        return Runs(kafka, name, first, again, lost, ahead, memory)

    return asyncio.run(play())


def _write_rows_ahead(folder: Path, name: str) -> None:
    """Write rows whose offset is beyond the end of their changelog."""
    settings = EngineSettings(bootstrap_servers="x", app_id=name, worker="w1", data_dir=folder, partitions=PARTITIONS)
    store = RocksStore(settings.state_dir / "tables", "counts", RocksMemory(settings), 3600)
    store.open(1)
    store.write(1, [(b"never", b"was")], 1_000_000)
    store.close(1)


def test_every_event_is_counted_once(runs: Runs) -> None:
    counts = {key: COUNT.unpack(row)[0] for key, row in runs.first.rows.items()}

    assert sum(counts.values()) == EVENTS - EVENTS // KEYS
    assert set(counts) == {b"k%03d" % n for n in range(1, KEYS)}


async def test_the_changelog_equals_the_rows(runs: Runs) -> None:
    assert await last_values(runs.bootstrap, f"{runs.name}-counts-changelog", PARTITIONS) == runs.first.rows


def test_events_come_in_batches_of_one_topic(runs: Runs) -> None:
    counted = [handled for handled in runs.first.handled if handled[0] == "count"]

    assert {topic for _, topic, _ in counted} == {f"{runs.name}-a", f"{runs.name}-b"}
    assert sum(records for _, _, records in counted) == EVENTS + 1
    assert max(records for _, _, records in counted) <= 200
    assert len(counted) < EVENTS / 10


def test_effects_come_after_their_rows_with_their_headers(runs: Runs) -> None:
    emitted = sum(records for flow, _, records in runs.first.handled if flow == "total")

    assert emitted == EVENTS
    assert runs.first.strange == []


async def test_effects_are_written_to_the_partition_of_their_input(runs: Runs) -> None:
    consumer = aiokafka.AIOKafkaConsumer(
        f"{runs.name}-counted", bootstrap_servers=runs.bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    found = [await consumer.getone() for _ in range(50)]
    await consumer.stop()

    assert all(int(record.key[1:]) % PARTITIONS == record.partition for record in found)


def test_a_scan_sees_every_owned_partition(runs: Runs) -> None:
    assert set(runs.first.scanned) == set(range(PARTITIONS))


async def test_records_of_a_scan_are_written(runs: Runs) -> None:
    due = await last_values(runs.bootstrap, f"{runs.name}-due", PARTITIONS)

    assert set(due) - {DELETED} == set(runs.first.rows)


def test_services_run_between_recovery_and_shutdown(runs: Runs) -> None:
    assert runs.first.notes == ["moving", "recovered", "settled", "service started", "service stopped"]


def test_a_running_worker_is_ready(runs: Runs) -> None:
    status = runs.first.status
    assert status is not None

    assert status.ready
    assert status.partitions == frozenset(range(PARTITIONS))
    assert status.heartbeat_age < 5


def test_rows_on_disk_are_used_again(runs: Runs) -> None:
    """Nothing is read again but the mark of the new owner, in each partition of the two changelogs."""
    assert runs.again.restored == 2 * PARTITIONS
    assert runs.again.handled == []
    assert runs.again.rows == runs.first.rows


@pytest.mark.parametrize("life", ["lost", "memory"])
def test_lost_rows_are_restored_from_the_changelog(runs: Runs, life: str) -> None:
    found: WorkerRun = getattr(runs, life)

    assert found.restored > 0
    assert found.handled == []
    assert found.rows == runs.first.rows


def test_rows_that_are_ahead_of_the_changelog_are_rebuilt(runs: Runs) -> None:
    assert runs.ahead.restored > 0
    assert runs.ahead.rows == runs.first.rows
