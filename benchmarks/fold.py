"""Throughput of the rent-roll fold on one core, from a topic to a table with its changelog.

References, each in a separate process with the same records: a stock Faust agent with the same ``apply``, one table
write per event, and ``send`` for its effects; and a bare aiokafka loop that does the same work without an engine, a
runner and metrics (fetch, decode, ``apply``, write rows, changelog and effects, commit).

    python -m benchmarks.fold [--quick] [--rounds 3]
"""

import argparse
import asyncio
import os
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiokafka

from benchmarks.kit import Rates, Result, Stopwatch, at_least, broker, make_topics, parser, run_candidate, show
from connectors.clock import SystemClock
from schemas import topics
from schemas.base import EntityKind
from schemas.codec import decode, encode
from schemas.rent_roll import (
    LeaseSnapshot,
    LeaseStatus,
    LeaseTenant,
    ListingSnapshot,
    Page,
    PropertySnapshot,
    SweepEnd,
    TenantStatus,
    UnitSnapshot,
)
from streams import topology
from streams.core.flows import RecordBatch, Step, View, encoded
from streams.core.observer import NullObserver
from streams.core.rent_roll import STAGES, apply, item_of
from streams.core.rows import Rows
from streams.core.sweep import ITEMS_A_RECORD
from streams.engine import Engine, EngineSettings, run_worker
from streams.engine.stores import RocksMemory, new_store
from streams.flows import maintain_rent_roll
from streams.observability.instruments import PrometheusObserver
from streams.observability.metrics import Metrics
from streams.runners.fold import Fold
from streams.topology import RENT_ROLL

ORG, CONNECTION = "default", "buildium"
UNITS, PROPERTIES = 20_000, 2_000
UNITS_PER_PROPERTY = UNITS // PROPERTIES
START = datetime(2026, 1, 1, tzinfo=UTC)

# ---------------------------------------------------------------------------------------------------------- records


class Account:
    """Generates records of ``rent-roll.changes``: a complete sweep, single changes, further sweeps."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._seq = int(START.timestamp() * 1_000_000)

    def _page(self, kind: EntityKind, snapshots: list[Any], **more: Any) -> Page:
        self._seq += 1000
        fetched_at = datetime.fromtimestamp(self._seq / 1_000_000, UTC)
        items = tuple(item_of(snapshot) for snapshot in snapshots)
        return Page(
            org=ORG, connection=CONNECTION, kind=kind, seq=self._seq, fetched_at=fetched_at, items=items, **more
        )

    def _unit(self, number: int, rent: int) -> UnitSnapshot:
        return UnitSnapshot(
            id=number,
            property_id=number // UNITS_PER_PROPERTY,
            code=f"{number % UNITS_PER_PROPERTY + 101}",
            building="North",
            market_rent=Decimal(rent),
            bedrooms=Decimal(2),
            bathrooms=Decimal("1.5"),
            size=800 + number % 300,
            is_listed=number % 10 == 0,
            is_occupied=number % 10 != 0,
        )

    def snapshots(self, kind: EntityKind, rent: int) -> list[Any]:
        """Return the snapshots of all entities of a kind; every unit has this rent."""
        match kind:
            case EntityKind.PROPERTY:
                return [
                    PropertySnapshot(
                        id=number, name=f"Property {number}", address_line1=f"{number} Main Street", city="Calgary"
                    )
                    for number in range(PROPERTIES)
                ]
            case EntityKind.UNIT:
                return [self._unit(number, rent) for number in range(UNITS)]
            case EntityKind.LEASE:
                return [
                    LeaseSnapshot(
                        id=UNITS + number,
                        property_id=number // UNITS_PER_PROPERTY,
                        unit_id=number,
                        starts_on=date(2025, 5, 1),
                        ends_on=date(2026, 4, 30),
                        status=LeaseStatus.ACTIVE,
                        tenants=(LeaseTenant(id=number, status=TenantStatus.CURRENT, move_in=date(2025, 5, 1)),),
                    )
                    for number in range(UNITS)
                    if number % 10
                ]
            case _:
                return [
                    ListingSnapshot(
                        unit_id=number,
                        property_id=number // UNITS_PER_PROPERTY,
                        rent=Decimal(1500),
                        features=("Balcony",),
                    )
                    for number in range(0, UNITS, 10)
                ]

    def sweep(self) -> Iterator[Page | SweepEnd]:
        """Yield the records of a complete first sweep, with its end."""
        seq, started, pages = self._seq, datetime.fromtimestamp(self._seq / 1_000_000, UTC), []
        for kind in STAGES:
            records = list(self.pages(kind, 1500, "first"))
            pages.append(len(records))
            yield from records
        yield SweepEnd(
            org=ORG,
            connection=CONNECTION,
            sweep="first",
            seq=seq,
            started_at=started,
            ended_at=started + timedelta(minutes=1),
            pages=tuple(pages),
            entities=UNITS * 2 + PROPERTIES,
        )

    def pages(self, kind: EntityKind, rent: int, sweep: str) -> Iterator[Page]:
        """Yield all entities of a kind as pages of a sweep."""
        snapshots = self.snapshots(kind, rent)
        for number, first in enumerate(range(0, len(snapshots), ITEMS_A_RECORD)):
            yield self._page(kind, snapshots[first : first + ITEMS_A_RECORD], sweep=sweep, number=number)

    def change(self) -> Page:
        """Return a page in which one random unit has another rent."""
        unit = self._unit(self._random.randrange(UNITS), self._random.randrange(500, 5000))
        return self._page(EntityKind.UNIT, [unit], seen_at=START + timedelta(days=1))


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement: its number of records, and the number of changes in each."""

    name: str
    title: str
    records: int
    stock_records: int
    changes_per_record: int

    def records_to_write(self) -> tuple[list[Page | SweepEnd], Iterator[Page]]:
        """Return the records before the measurement, and those that are measured."""
        account = Account()
        before = list(account.sweep())
        if self.name == "single":
            return before, (account.change() for _ in range(self.records))
        sweeps = self.records // (UNITS // ITEMS_A_RECORD)
        changed = self.name == "changed"
        return before, (
            page
            for number in range(sweeps)
            for page in account.pages(EntityKind.UNIT, 1501 + number if changed else 1500, f"sweep {number}")
        )


def cases(quick: bool) -> tuple[Case, ...]:
    pages = UNITS // ITEMS_A_RECORD
    factor = 1 if quick else 4
    return (
        Case("single", "single changes", 10_000 * factor, 2_500 * factor, 1),
        Case("changed", "pages of a sweep, every unit changed", pages * factor, pages, ITEMS_A_RECORD),
        Case("unchanged", "pages of a sweep, nothing changed", 5 * pages * factor, pages * factor, ITEMS_A_RECORD),
    )


async def fill(bootstrap: str, topic: str, case: Case) -> int:
    """Write the records of a case; return the offset at which the measurement starts."""
    producer = aiokafka.AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", linger_ms=20, max_request_size=8 << 20, compression_type="lz4"
    )
    await producer.start()
    before, measured = case.records_to_write()
    for records in (before, measured):
        sent = [await producer.send(topic, encode(record), key=ORG.encode(), partition=0) for record in records]
        await asyncio.gather(*sent)
    await producer.stop()
    return len(before)


# -------------------------------------------------------------------------------------------------------- candidates


class Measurement:
    """Time from the first measured record to the last."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._first, self._last = options.first, options.first + options.records - 1
        self._watch = Stopwatch()

    def before(self, offset: int) -> None:
        """Start the measurement if ``offset``, the next one to be processed, is in its range."""
        if offset >= self._first and self._watch.started is None:
            self._start_offset = offset
            self._watch.start()

    def after(self, offset: int) -> bool:
        """Return whether ``offset``, the last processed one, ends the measurement; print the result if so."""
        if self._watch.started is None or offset < self._last:
            return False
        self._watch.report(records=offset + 1 - self._start_offset)
        return True


def run_fold(options: argparse.Namespace) -> None:
    """Run the fold as in production, with engine, runner, step and metrics."""
    measurement, clock = Measurement(options), SystemClock()
    fold = Fold(
        "maintain_rent_roll",
        RENT_ROLL,
        maintain_rent_roll.step,
        clock,
        prefix=options.prefix,
        observer=PrometheusObserver(Metrics(), clock, lambda _org, _name: "buildium"),
    )
    processed = 0

    def step(batch: RecordBatch, views: Mapping[str, View]) -> Step:
        nonlocal processed
        measurement.before(batch.records[0].offset)
        processed = batch.records[-1].offset
        return fold(batch, views)

    class Folded(NullObserver):
        """Stops the engine after the last record."""

        def batch_folded(self, flow: str, topic: str, records: int, seconds: float) -> None:
            if measurement.after(processed):
                engine.stop()

    engine = Engine(
        EngineSettings(
            bootstrap_servers=options.bootstrap,
            app_id=options.name,
            worker="w1",
            data_dir=Path(options.data),
            partitions=1,
        ),
        Folded(),
    )
    engine.fold("maintain_rent_roll", [options.prefix + topics.CHANGES.name], engine.table(RENT_ROLL), step)
    run_worker(engine)


class StockView:
    """A Faust table with the interface of a view."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._table.get(key)
        return value

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        yield from sorted((key, value) for key, value in self._table.items() if key.startswith(prefix))


def run_stock(options: argparse.Namespace) -> None:
    """Run the same step on stock Faust: one agent, one table, one row at a time, ``send``."""
    import faust

    measurement = Measurement(options)
    app = faust.App(
        options.name,
        broker=f"kafka://{options.bootstrap}",
        store="rocksdb://",
        datadir=Path(options.data),
        topic_partitions=1,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        broker_commit_interval=1.0,
        web_enabled=False,
        worker_redirect_stdouts=False,
    )
    raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    table = app.Table(RENT_ROLL, key_type=bytes, value_type=bytes, partitions=1)
    outputs = {
        name: app.topic(options.prefix + name, **raw)
        for name in (topic.name for topic in topology.flow("maintain_rent_roll").writes)
    }
    view = StockView(table)

    async def run(stream: Any) -> None:
        async for event in stream.events():
            if event.message.offset == options.first:
                await app.producer.flush()  # records before the measurement must not count
            measurement.before(event.message.offset)
            record = decode(event.value)
            assert isinstance(record, Page | SweepEnd)
            rows = Rows(view)
            applied = apply(rows, record)
            rows.keep()
            for key, value in rows.encoded().items():
                table[key] = value
            for emit in applied.emits:
                await outputs[emit.topic.name].send(key=emit.org.encode(), value=encode(emit.record))
            if event.message.offset == options.first + options.records - 1:
                await app.producer.flush()  # as the other candidates, wait until all is written
            if measurement.after(event.message.offset):
                os._exit(0)

    app.agent(app.topic(options.prefix + topics.CHANGES.name, **raw))(run)
    sys.argv = ["faust", "worker", "-l", "error", "--without-web"]
    app.main()


async def run_bare(options: argparse.Namespace) -> None:
    """Run the same step in a loop: fetch, decode, compare, write rows, changelog and effects, commit."""
    measurement = Measurement(options)
    settings = EngineSettings(
        bootstrap_servers="-", app_id="bare", worker="w", data_dir=Path(options.data), partitions=1
    )
    store = new_store(settings, RENT_ROLL, RocksMemory(settings))
    store.open(0)
    consumer = aiokafka.AIOKafkaConsumer(
        options.prefix + topics.CHANGES.name,
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
        for records in (await consumer.getmany(timeout_ms=1000, max_records=options.batch_size)).values():
            measurement.before(records[0].offset)
            rows = Rows(store.view(0))
            effects: dict[str, list[tuple[bytes, bytes | None]]] = {}
            for record in records:
                page = decode(record.value)
                assert isinstance(page, Page | SweepEnd)
                for one in apply(rows, page).emits:
                    found = encoded(one, options.prefix)
                    effects.setdefault(found.topic, []).append((found.key, found.value))
                rows.keep()
            changed = rows.encoded()
            await write(producer, f"{options.name}-{RENT_ROLL}-changelog", list(changed.items()))
            store.write(0, changed.items(), None)
            for topic, items in effects.items():
                await write(producer, topic, items)
            await consumer.commit()
            done = measurement.after(records[-1].offset)
    await producer.stop()
    await consumer.stop()


async def write(producer: Any, topic: str, items: Sequence[tuple[bytes, bytes | None]]) -> None:
    index, sent = 0, []
    while index < len(items):
        batch = producer.create_batch()
        while (
            index < len(items) and batch.append(timestamp=None, key=items[index][0], value=items[index][1]) is not None
        ):
            index += 1
        sent.append(await producer.send_batch(batch, topic, partition=0))
    for future in sent:
        await future


# ------------------------------------------------------------------------------------------------------------ report

CANDIDATES = {"bare": "bare loop", "fold": "rent-roll fold", "stock": "stock Faust agent"}


def measure(bootstrap: str, case: Case, rounds: int) -> list[Result]:
    run = f"bench{time.time_ns()}."
    flows = (topics.CHANGES, *topology.flow("maintain_rent_roll").writes)
    make_topics(bootstrap, 1, [run + topic.name for topic in flows])
    first = asyncio.run(fill(bootstrap, run + topics.CHANGES.name, case))
    rates = {candidate: Rates() for candidate in CANDIDATES}
    for number in range(rounds):
        for candidate, found in rates.items():
            if candidate == "stock" and number:
                continue  # one round only: it needs minutes for the records before the measurement
            name = f"{run}{number}.{candidate}"
            make_topics(bootstrap, 1, [f"{name}-{RENT_ROLL}-changelog"])
            records = case.stock_records if candidate == "stock" else case.records
            arguments: tuple[str, ...] = (
                "--name",
                name,
                "--prefix",
                run,
                "--first",
                str(first),
                "--records",
                str(records),
            )
            arguments += ("--batch-size", str(max(3000 // case.changes_per_record, 1)))
            measured = run_candidate("benchmarks.fold", candidate, bootstrap, *arguments)
            found.add(measured["records"] * case.changes_per_record, measured)
    changes = case.records * case.changes_per_record
    print(f"\n{case.title}: {changes:,} changes, {case.changes_per_record} per record\n")
    print(f"{'':<24}{'per second':>11}{'x stock':>10}{'x bare':>9}{'per CPU second':>16}{'x stock':>10}{'x bare':>9}")
    bare, fold, stock = (rates[candidate] for candidate in CANDIDATES)
    for candidate, title in CANDIDATES.items():
        wall, cpu = rates[candidate].per_second, rates[candidate].per_cpu_second
        print(
            f"{title:<24}{wall:>11,.0f}{wall / stock.per_second:>10.1f}{wall / bare.per_second:>9.2f}"
            f"{cpu:>16,.0f}{cpu / stock.per_cpu_second:>10.1f}{cpu / bare.per_cpu_second:>9.2f}",
            flush=True,
        )
    if case.name == "unchanged":
        return [at_least(f"fold: {case.title}", fold.per_second, "rows/s", 100_000)]
    return [
        Result(f"fold: {case.title}", fold.per_second, "changes/s"),
        at_least(
            f"fold: {case.title}, relative to stock Faust", fold.per_cpu_second / stock.per_cpu_second, "times CPU", 15
        ),
        at_least(
            f"fold: {case.title}, relative to the bare loop",
            fold.per_cpu_second / bare.per_cpu_second,
            "times CPU",
            0.8,
        ),
    ]


def run(bootstrap: str, *, quick: bool = False, rounds: int | None = None, only: str | None = None) -> list[Result]:
    times = rounds or (1 if quick else 3)
    chosen = [case for case in cases(quick) if only in (None, case.name)]
    return [result for case in chosen for result in measure(bootstrap, case, times)]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, help="runs per candidate; the median counts")
    arguments.add_argument("--only", choices=[case.name for case in cases(quick=True)])
    for hidden in ("name", "prefix"):
        arguments.add_argument(f"--{hidden}", help=argparse.SUPPRESS)
    for hidden in ("first", "records", "batch-size"):
        arguments.add_argument(f"--{hidden}", type=int, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    match options.candidate:
        case "fold":
            run_fold(options)
        case "stock":
            run_stock(options)
        case "bare":
            asyncio.run(run_bare(options))
        case _:
            with broker(options.bootstrap) as servers:
                show(run(servers, quick=options.quick, rounds=options.rounds, only=options.only))


if __name__ == "__main__":
    main()
