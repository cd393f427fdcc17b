"""What the engine costs, in events a second and in seconds of recovery, beside stock Faust and a bare loop.

Every contender runs as a process of its own on one core, against the same topics, one after the other; the ratios are
what counts, the figures are of this machine. ``python -m benchmarks.engine [--bootstrap host:port] [--rows 1000000]``
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
    """Do the toy step of all contenders."""
    events, total = ROW.unpack_from(row) if row else (0, 0)
    return ROW.pack(events + 1, total + EVENT.unpack_from(event)[1]) + PAD


# -- filling


async def fill(bootstrap: str, topic: str, records: int, keys: int) -> None:
    producer = aiokafka.AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", max_batch_size=512 * 1024, compression_type="lz4"
    )
    await producer.start()
    sent = []
    for partition in range(PARTITIONS):
        at, end = 0, records // PARTITIONS
        while at < end:
            batch = producer.create_batch()
            while at < end:
                key = b"k%08d" % ((at % (keys // PARTITIONS)) * PARTITIONS + partition)
                if batch.append(timestamp=None, key=key, value=EVENT.pack(at, 1) + PAD) is None:
                    break
                at += 1
            sent.append(await producer.send_batch(batch, topic, partition=partition))
    await asyncio.gather(*sent)
    await producer.stop()


# -- contenders: each prints seconds and processor seconds of its own work


class Clock:
    """From the first record to the last."""

    def __init__(self, records: int) -> None:
        self.left, self.began, self.cpu = records, 0.0, 0.0

    def start(self) -> None:
        if not self.began:
            self.began, self.cpu = time.perf_counter(), time.process_time()

    def took(self, records: int) -> bool:
        self.left -= records
        return self.left <= 0

    def say(self, **more: Any) -> None:
        seconds, cpu = time.perf_counter() - self.began, time.process_time() - self.cpu
        line = json.dumps({"seconds": seconds, "cpu": cpu, **more})
        os.write(1, f"\n{line}\n".encode())  # past whatever a framework made of stdout


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
    clock = Clock(options.records)

    def step(batch: RecordBatch, views: Mapping[str, View]) -> Step:
        clock.start()
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
            if clock.took(records):
                clock.say()
                engine.stop()

    engine = Engine(engine_settings(options), Folded())
    engine.fold("count", [options.topic], engine.table("rows"), step)
    run_worker(engine)


def recover_engine(options: argparse.Namespace) -> None:
    class Recovered(NullObserver):
        """Stops the engine after its recovery."""

        def tables_recovered(self, records: int, seconds: float) -> None:
            clock.say(records=records)
            engine.stop()

    clock = Clock(0)
    engine = Engine(engine_settings(options), Recovered())
    engine.fold("count", [options.topic], engine.table("rows"), lambda _batch, _views: Step())
    clock.start()
    run_worker(engine)


def run_stock(options: argparse.Namespace) -> None:
    import faust

    clock = Clock(options.records)
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
            clock.start()
            table[event.key] = count(table.get(event.key), event.value)
            if clock.took(1):
                clock.say()
                os._exit(0)

    topic = app.topic(options.topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    app.agent(topic)(run)
    sys.argv = ["faust", "worker", "-l", "error", "--without-web"]
    app.main()


async def run_bare(options: argparse.Namespace) -> None:
    """Do the least that could be called the same: fetch, count in a dict, write the changelog, commit."""
    clock, rows = Clock(options.records), dict[bytes, bytes]()
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
            clock.start()
            for low in range(0, len(records), 2000):
                fresh: dict[bytes, bytes] = {}
                for record in records[low : low + 2000]:
                    fresh[record.key] = count(fresh.get(record.key) or rows.get(record.key), record.value)
                batch = producer.create_batch()
                for key, row in fresh.items():
                    batch.append(timestamp=None, key=key, value=row)
                await (await producer.send_batch(batch, f"{options.name}-rows-changelog", partition=tp.partition))
                rows |= fresh
            done = clock.took(len(records))
        if done:
            await consumer.commit()
    clock.say()
    await producer.stop()
    await consumer.stop()


async def recover_bare(options: argparse.Namespace) -> None:
    clock, rows = Clock(0), dict[bytes, bytes]()
    clock.start()
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
    clock.say(records=read)
    await consumer.stop()


# -- the table


class Bench:
    """Runs contenders and remembers the topics."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.bootstrap, self.folder, self.run = bootstrap, folder, f"bench-{time.time_ns()}"

    def contend(self, what: str, topic: str, name: str, records: int, *more: str) -> dict[str, float]:
        data = self.folder / name
        data.mkdir(parents=True, exist_ok=True)
        arguments = ["--contender", what, "--topic", topic, "--name", name, "--data", str(data)]
        arguments += ["--bootstrap", self.bootstrap, "--records", str(records), *more]
        core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        found = subprocess.run(
            [sys.executable, "-m", "benchmarks.engine", *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=600,
            preexec_fn=(lambda: os.sched_setaffinity(0, {core})) if core is not None else None,
        )
        lines = [line for line in found.stdout.splitlines() if line.startswith("{")]
        if not lines:
            raise RuntimeError(f"{what} said nothing:\n{found.stdout}\n{found.stderr}")
        shutil.rmtree(data)
        result: dict[str, float] = json.loads(lines[-1])
        return result

    def topics(self, name: str, *plain: str) -> None:
        asyncio.run(make_topics(self.bootstrap, PARTITIONS, [*plain, f"{name}-rows-changelog"], []))


def events(bench: Bench, records: int, stock_records: int, keys: int) -> None:
    source = f"{bench.run}-events"
    bench.topics(bench.run, source)
    asyncio.run(fill(bench.bootstrap, source, records, keys))
    contenders = [
        ("bare aiokafka loop, a dict", "bare", records, ()),
        ("engine, RocksDB", "engine", records, ("--store", "rocksdb")),
        ("engine, RocksDB, uvloop", "engine", records, ("--store", "rocksdb", "--uvloop")),
        ("engine, memory", "engine", records, ("--store", "memory")),
        ("stock Faust, RocksDB", "stock", stock_records, ("--store", "rocksdb")),
        ("stock Faust, memory", "stock", stock_records, ("--store", "memory")),
    ]
    print(f"\n{records:,} events of 100 bytes, {keys:,} keys, {PARTITIONS} partitions, one core\n")
    print(f"{'':34}{'events/s':>12}{'of bare':>10}{'cpu us/event':>14}{'of bare':>10}")
    bare = bare_cpu = 0.0
    for number, (title, what, amount, more) in enumerate(contenders):
        name = f"{bench.run}-{number}"
        bench.topics(name)
        found = bench.contend(what, source, name, amount, *more)
        rate, cpu = amount / found["seconds"], found["cpu"] / amount * 1e6
        bare, bare_cpu = bare or rate, bare_cpu or cpu
        print(f"{title:34}{rate:12,.0f}{rate / bare:10.2f}{cpu:14.1f}{cpu / bare_cpu:10.2f}", flush=True)


def recovery(bench: Bench, rows: int) -> None:
    name = f"{bench.run}-r"
    source = f"{name}-events"
    bench.topics(name, source)
    asyncio.run(fill(bench.bootstrap, f"{name}-rows-changelog", rows, rows))
    print(f"\nrecovery of {rows:,} rows of 100 bytes, one core (start-up included)\n")
    print(f"{'':34}{'seconds':>12}{'of bare':>10}{'rows/s':>12}")
    bare = 0.0
    for title, what, more in [
        ("bare aiokafka loop, a dict", "recover-bare", ()),
        ("engine, RocksDB", "recover-engine", ("--store", "rocksdb")),
        ("engine, memory", "recover-engine", ("--store", "memory")),
    ]:
        found = bench.contend(what, source, name, 0, *more)
        bare = bare or found["seconds"]
        seconds = found["seconds"]
        print(f"{title:34}{seconds:12.1f}{seconds / bare:10.2f}{found['records'] / seconds:12,.0f}", flush=True)


@contextlib.contextmanager
def broker(bootstrap: str | None) -> Iterator[str]:
    from tests.chaos.__main__ import broker as started

    with started(bootstrap) as servers:
        yield servers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap")
    parser.add_argument("--records", type=int, default=400_000)
    parser.add_argument("--stock-records", type=int, default=20_000)
    parser.add_argument("--keys", type=int, default=40_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    for name in ("contender", "topic", "name", "data"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_argument("--store", default="rocksdb", help=argparse.SUPPRESS)
    parser.add_argument("--uvloop", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender is None:
        with broker(options.bootstrap) as servers, tempfile.TemporaryDirectory(prefix="bench-") as folder:
            bench = Bench(servers, Path(folder))
            events(bench, options.records, options.stock_records, options.keys)
            recovery(bench, options.rows)
        return
    match options.contender:
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
