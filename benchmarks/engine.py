"""Throughput and recovery time of the engine, relative to stock Faust and to a bare aiokafka loop.

Every candidate runs as a separate process on one core with the same topics, one after the other. Only the ratios are
meaningful, because absolute numbers depend on the machine.

    python -m benchmarks.engine [--bootstrap host:port] [--rows 1000000]
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import aiokafka

from streams.core.flows import RecordBatch, Step, View
from streams.core.observer import NullObserver
from streams.engine import Engine, EngineSettings, run_worker
from tests.chaos.kafka import make_topics

PARTITIONS = 8
EVENT = struct.Struct("<QQ")
ROW = struct.Struct("<QQ")
PAD = b"x" * 84


def count(row: bytes | None, event: bytes) -> bytes:
    """Return the row after an event: the fold step of all candidates."""
    events, total = ROW.unpack_from(row) if row else (0, 0)
    return ROW.pack(events + 1, total + EVENT.unpack_from(event)[1]) + PAD


# -- load


async def fill(bootstrap: str, topic: str, records: int, keys: int) -> None:
    producer = aiokafka.AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", max_batch_size=512 * 1024, compression_type="lz4"
    )
    await producer.start()
    sent = []
    for partition in range(PARTITIONS):
        number, end = 0, records // PARTITIONS
        while number < end:
            batch = producer.create_batch()
            while number < end:
                key = b"k%08d" % ((number % (keys // PARTITIONS)) * PARTITIONS + partition)
                if batch.append(timestamp=None, key=key, value=EVENT.pack(number, 1) + PAD) is None:
                    break
                number += 1
            sent.append(await producer.send_batch(batch, topic, partition=partition))
    await asyncio.gather(*sent)
    await producer.stop()


# -- candidates: each prints the wall-clock and CPU seconds of its work


class Measurement:
    """Time from the first record to the last."""

    def __init__(self, records: int) -> None:
        self.remaining, self.started, self.cpu = records, 0.0, 0.0

    def start(self) -> None:
        if not self.started:
            self.started, self.cpu = time.perf_counter(), time.process_time()

    def processed(self, records: int) -> bool:
        """Count processed records; return whether they were the last ones."""
        self.remaining -= records
        return self.remaining <= 0

    def report(self, **more: Any) -> None:
        """Print the measurement as JSON for the parent process."""
        seconds, cpu = time.perf_counter() - self.started, time.process_time() - self.cpu
        line = json.dumps({"seconds": seconds, "cpu": cpu, **more})
        os.write(1, f"\n{line}\n".encode())  # frameworks may replace sys.stdout


def engine_settings(options: argparse.Namespace) -> EngineSettings:
    return EngineSettings(
        bootstrap_servers=options.bootstrap,
        app_id=options.name,
        worker="w1",
        data_dir=Path(options.data),
        partitions=PARTITIONS,
        store=options.store,
        uvloop=options.uvloop,
    )


def run_engine(options: argparse.Namespace) -> None:
    measurement = Measurement(options.records)

    def step(batch: RecordBatch, views: Mapping[str, View]) -> Step:
        measurement.start()
        get = views["rows"].get
        rows: dict[bytes, bytes | None] = {}
        for record in batch.records:
            assert record.key is not None
            assert record.value is not None
            rows[record.key] = count(rows.get(record.key) or get(record.key), record.value)
        return Step(rows)

    class Folded(NullObserver):
        """Stops the engine after the last record."""

        def batch_folded(self, flow: str, topic: str, records: int, seconds: float) -> None:
            if measurement.processed(records):
                measurement.report()
                engine.stop()

    engine = Engine(engine_settings(options), Folded())
    engine.fold("count", [options.topic], engine.table("rows"), step)
    run_worker(engine)


def recover_engine(options: argparse.Namespace) -> None:
    class Recovered(NullObserver):
        """Stops the engine after its recovery."""

        def tables_recovered(self, records: int, seconds: float) -> None:
            measurement.report(records=records)
            engine.stop()

    measurement = Measurement(0)
    engine = Engine(engine_settings(options), Recovered())
    engine.fold("count", [options.topic], engine.table("rows"), lambda _batch, _views: Step())
    measurement.start()
    run_worker(engine)


def run_stock(options: argparse.Namespace) -> None:
    import faust

    measurement = Measurement(options.records)
    app = faust.App(
        options.name,
        broker=f"kafka://{options.bootstrap}",
        store="rocksdb://" if options.store == "rocksdb" else "memory://",
        datadir=Path(options.data),
        topic_partitions=PARTITIONS,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        web_enabled=False,
        worker_redirect_stdouts=False,
    )
    table = app.Table("rows", key_type=bytes, value_type=bytes, partitions=PARTITIONS)

    async def run(stream: Any) -> None:
        async for event in stream.events():
            measurement.start()
            table[event.key] = count(table.get(event.key), event.value)
            if measurement.processed(1):
                measurement.report()
                os._exit(0)

    topic = app.topic(options.topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    app.agent(topic)(run)
    sys.argv = ["faust", "worker", "-l", "error", "--without-web"]
    app.main()


async def run_bare(options: argparse.Namespace) -> None:
    """Run the minimal equivalent: fetch, count in a dict, write the changelog, commit."""
    measurement, rows = Measurement(options.records), dict[bytes, bytes]()
    consumer = aiokafka.AIOKafkaConsumer(
        options.topic,
        bootstrap_servers=options.bootstrap,
        group_id=options.name,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 << 20,
        fetch_max_wait_ms=50,
    )
    producer = aiokafka.AIOKafkaProducer(
        bootstrap_servers=options.bootstrap,
        acks="all",
        enable_idempotence=True,
        max_batch_size=512 * 1024,
        compression_type="lz4",
    )
    await consumer.start()
    await producer.start()
    done = False
    while not done:
        for tp, records in (await consumer.getmany(timeout_ms=1000, max_records=8000)).items():
            measurement.start()
            for low in range(0, len(records), 2000):
                fresh: dict[bytes, bytes] = {}
                for record in records[low : low + 2000]:
                    fresh[record.key] = count(fresh.get(record.key) or rows.get(record.key), record.value)
                batch = producer.create_batch()
                for key, row in fresh.items():
                    batch.append(timestamp=None, key=key, value=row)
                await (await producer.send_batch(batch, f"{options.name}-rows-changelog", partition=tp.partition))
                rows |= fresh
            done = measurement.processed(len(records))
        if done:
            await consumer.commit()
    measurement.report()
    await producer.stop()
    await consumer.stop()


async def recover_bare(options: argparse.Namespace) -> None:
    measurement, rows = Measurement(0), dict[bytes, bytes]()
    measurement.start()
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=options.bootstrap,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 << 20,
        fetch_max_wait_ms=50,
    )
    await consumer.start()
    parts = [aiokafka.TopicPartition(f"{options.name}-rows-changelog", p) for p in range(PARTITIONS)]
    consumer.assign(parts)
    ends = await consumer.end_offsets(parts)
    read = 0
    while any([await consumer.position(tp) < end for tp, end in ends.items()]):
        for records in (await consumer.getmany(timeout_ms=500)).values():
            rows.update((record.key, record.value) for record in records)
            read += len(records)
    measurement.report(records=read)
    await consumer.stop()


# -- report


class Bench:
    """Runs candidates with topics of one prefix."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.bootstrap, self.folder, self.prefix = bootstrap, folder, f"bench-{time.time_ns()}"

    def run_candidate(self, candidate: str, topic: str, name: str, records: int, *more: str) -> dict[str, float]:
        """Run a candidate on one core and return its measurement. Raise `RuntimeError` if it printed none."""
        data = self.folder / name
        data.mkdir(parents=True, exist_ok=True)
        arguments = ["--candidate", candidate, "--topic", topic, "--name", name, "--data", str(data)]
        arguments += ["--bootstrap", self.bootstrap, "--records", str(records), *more]
        core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        result = subprocess.run(
            [sys.executable, "-m", "benchmarks.engine", *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=600,
            preexec_fn=(lambda: os.sched_setaffinity(0, {core})) if core is not None else None,
        )
        lines = [line for line in result.stdout.splitlines() if line.startswith("{")]
        if not lines:
            raise RuntimeError(f"{candidate} printed no measurement:\n{result.stdout}\n{result.stderr}")
        shutil.rmtree(data)
        measured: dict[str, float] = json.loads(lines[-1])
        return measured

    def topics(self, name: str, *plain: str) -> None:
        asyncio.run(make_topics(self.bootstrap, PARTITIONS, [*plain, f"{name}-rows-changelog"], []))


def events(bench: Bench, records: int, stock_records: int, keys: int) -> None:
    source = f"{bench.prefix}-events"
    bench.topics(bench.prefix, source)
    asyncio.run(fill(bench.bootstrap, source, records, keys))
    candidates = [
        ("bare aiokafka loop, a dict", "bare", records, ()),
        ("engine, RocksDB", "engine", records, ("--store", "rocksdb")),
        ("engine, RocksDB, uvloop", "engine", records, ("--store", "rocksdb", "--uvloop")),
        ("engine, memory", "engine", records, ("--store", "memory")),
        ("stock Faust, RocksDB", "stock", stock_records, ("--store", "rocksdb")),
        ("stock Faust, memory", "stock", stock_records, ("--store", "memory")),
    ]
    print(f"\n{records:,} events of 100 bytes, {keys:,} keys, {PARTITIONS} partitions, one core\n")
    print(f"{'':34}{'events/s':>12}{'x bare':>10}{'CPU us/event':>14}{'x bare':>10}")
    bare = bare_cpu = 0.0
    for number, (title, candidate, amount, more) in enumerate(candidates):
        name = f"{bench.prefix}-{number}"
        bench.topics(name)
        measured = bench.run_candidate(candidate, source, name, amount, *more)
        rate, cpu = amount / measured["seconds"], measured["cpu"] / amount * 1e6
        bare, bare_cpu = bare or rate, bare_cpu or cpu
        print(f"{title:34}{rate:12,.0f}{rate / bare:10.2f}{cpu:14.1f}{cpu / bare_cpu:10.2f}", flush=True)


def recovery(bench: Bench, rows: int) -> None:
    name = f"{bench.prefix}-r"
    source = f"{name}-events"
    bench.topics(name, source)
    asyncio.run(fill(bench.bootstrap, f"{name}-rows-changelog", rows, rows))
    print(f"\nrecovery of {rows:,} rows of 100 bytes, one core (start-up included)\n")
    print(f"{'':34}{'seconds':>12}{'x bare':>10}{'rows/s':>12}")
    bare = 0.0
    for title, candidate, more in [
        ("bare aiokafka loop, a dict", "recover-bare", ()),
        ("engine, RocksDB", "recover-engine", ("--store", "rocksdb")),
        ("engine, memory", "recover-engine", ("--store", "memory")),
    ]:
        measured = bench.run_candidate(candidate, source, name, 0, *more)
        bare = bare or measured["seconds"]
        seconds = measured["seconds"]
        print(f"{title:34}{seconds:12.1f}{seconds / bare:10.2f}{measured['records'] / seconds:12,.0f}", flush=True)


@contextlib.contextmanager
def broker(bootstrap: str | None) -> Iterator[str]:
    from tests.chaos.__main__ import broker as embedded

    with embedded(bootstrap) as (servers, _):
        yield servers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap")
    parser.add_argument("--records", type=int, default=400_000)
    parser.add_argument("--stock-records", type=int, default=20_000)
    parser.add_argument("--keys", type=int, default=40_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    for name in ("candidate", "topic", "name", "data"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_argument("--store", default="rocksdb", help=argparse.SUPPRESS)
    parser.add_argument("--uvloop", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.candidate is None:
        with broker(options.bootstrap) as servers, tempfile.TemporaryDirectory(prefix="bench-") as folder:
            bench = Bench(servers, Path(folder))
            events(bench, options.records, options.stock_records, options.keys)
            recovery(bench, options.rows)
        return
    match options.candidate:
        case "engine":
            run_engine(options)
        case "recover-engine":
            recover_engine(options)
        case "stock":
            run_stock(options)
        case "bare":
            asyncio.run(run_bare(options))
        case "recover-bare":
            asyncio.run(recover_bare(options))


if __name__ == "__main__":
    main()
