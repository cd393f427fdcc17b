"""What the rent roll's fold does in a second on one core: from a full topic to a table with its changelog.

Beside it, each in a process of its own and on the same records: a stock Faust agent that does the same ``apply``,
writes one row per event and sends what follows; and the bare loop, which is the least that could be called the same
(fetch, decode the record, a dict, write the rows).

    python -m benchmarks.fold [--quick] [--rounds 3]
"""

import argparse
import asyncio
import os
import random
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiokafka

from benchmarks.kit import Figure, Rates, Stopwatch, at_least, broker, contend, make_topics, parser, show
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
from streams.core.flows import RecordBatch, Step, View
from streams.core.observer import NullObserver
from streams.core.rent_roll import STAGES, apply, item_of, scope, unit_key
from streams.core.rows import Rows
from streams.core.sweep import ITEMS_A_RECORD
from streams.engine import Engine, EngineSettings, run_worker
from streams.flows import maintain_rent_roll
from streams.observability.instruments import PrometheusObserver
from streams.observability.metrics import Metrics
from streams.runners.fold import Fold
from streams.topology import RENT_ROLL

ORG, CONNECTION = "default", "buildium"
UNITS, PROPERTIES = 20_000, 2_000
EACH = UNITS // PROPERTIES
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)

# ------------------------------------------------------------------------------------------------------ what is said


class Model:
    """Makes records of ``rent-roll.changes``: a sweep of a whole account, single changes, further sweeps."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._seq = int(BEGAN.timestamp() * 1_000_000)

    def _page(self, kind: EntityKind, snapshots: list[Any], **more: Any) -> Page:
        self._seq += 1000
        at = datetime.fromtimestamp(self._seq / 1_000_000, UTC)
        items = tuple(item_of(one) for one in snapshots)
        return Page(org=ORG, connection=CONNECTION, kind=kind, seq=self._seq, fetched_at=at, items=items, **more)

    def _unit(self, number: int, rent: int) -> UnitSnapshot:
        return UnitSnapshot(
            id=number,
            property_id=number // EACH,
            code=f"{number % EACH + 101}",
            building="North",
            market_rent=Decimal(rent),
            bedrooms=Decimal(2),
            bathrooms=Decimal("1.5"),
            size=800 + number % 300,
            is_listed=number % 10 == 0,
            is_occupied=number % 10 != 0,
        )

    def of(self, kind: EntityKind, rent: int) -> list[Any]:
        match kind:
            case EntityKind.PROPERTY:
                return [
                    PropertySnapshot(id=one, name=f"Property {one}", address_line1=f"{one} Main Street", city="Calgary")
                    for one in range(PROPERTIES)
                ]
            case EntityKind.UNIT:
                return [self._unit(one, rent) for one in range(UNITS)]
            case EntityKind.LEASE:
                return [
                    LeaseSnapshot(
                        id=UNITS + one,
                        property_id=one // EACH,
                        unit_id=one,
                        starts_on=date(2025, 5, 1),
                        ends_on=date(2026, 4, 30),
                        status=LeaseStatus.ACTIVE,
                        tenants=(LeaseTenant(id=one, status=TenantStatus.CURRENT, move_in=date(2025, 5, 1)),),
                    )
                    for one in range(UNITS)
                    if one % 10
                ]
            case _:
                return [
                    ListingSnapshot(unit_id=one, property_id=one // EACH, rent=Decimal(1500), features=("Balcony",))
                    for one in range(0, UNITS, 10)
                ]

    def sweep(self) -> Iterator[Page | SweepEnd]:
        """Say the whole account, with its end."""
        began, started, pages = self._seq, datetime.fromtimestamp(self._seq / 1_000_000, UTC), []
        for kind in STAGES:
            made = list(self.pages(kind, 1500, "first"))
            pages.append(len(made))
            yield from made
        yield SweepEnd(
            org=ORG,
            connection=CONNECTION,
            sweep="first",
            seq=began,
            started_at=started,
            ended_at=started + timedelta(minutes=1),
            pages=tuple(pages),
            entities=UNITS * 2 + PROPERTIES,
        )

    def pages(self, kind: EntityKind, rent: int, sweep: str) -> Iterator[Page]:
        """Say all entities of a kind as a sweep does."""
        found = self.of(kind, rent)
        for number, first in enumerate(range(0, len(found), ITEMS_A_RECORD)):
            yield self._page(kind, found[first : first + ITEMS_A_RECORD], sweep=sweep, number=number)

    def single(self) -> Page:
        """Say that one unit, any, has another rent."""
        unit = self._unit(self._random.randrange(UNITS), self._random.randrange(500, 5000))
        return self._page(EntityKind.UNIT, [unit], seen_at=BEGAN + timedelta(days=1))


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured: so many records with so many changes in each."""

    name: str
    title: str
    records: int
    stock_records: int
    each: int

    def said(self) -> tuple[list[Page | SweepEnd], Iterator[Page]]:
        """Give what comes before the measurement, and what is measured."""
        saying = Model()
        before = list(saying.sweep())
        if self.name == "single":
            return before, (saying.single() for _ in range(self.records))
        sweeps = self.records // (UNITS // ITEMS_A_RECORD)
        changed = self.name == "changed"
        return before, (
            page
            for number in range(sweeps)
            for page in saying.pages(EntityKind.UNIT, 1501 + number if changed else 1500, f"sweep {number}")
        )


def cases(quick: bool) -> tuple[Case, ...]:
    pages = UNITS // ITEMS_A_RECORD
    few = 1 if quick else 4
    return (
        Case("single", "single changes", 10_000 * few, 2_500 * few, 1),
        Case("changed", "pages of a sweep, every unit changed", pages * few, pages, ITEMS_A_RECORD),
        Case("unchanged", "pages of a sweep, nothing changed", 5 * pages * few, pages * few, ITEMS_A_RECORD),
    )


async def fill(bootstrap: str, topic: str, case: Case) -> int:
    """Write the records of a case; give the offset at which the measurement begins."""
    producer = aiokafka.AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", linger_ms=20, max_request_size=8 << 20, compression_type="lz4"
    )
    await producer.start()
    before, measured = case.said()
    for records in (before, measured):
        sent = [await producer.send(topic, encode(one), key=ORG.encode(), partition=0) for one in records]
        await asyncio.gather(*sent)
    await producer.stop()
    return len(before)


# ------------------------------------------------------------------------------------------------------- contestants


class Course:
    """From the first record that counts to the last."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._first, self._last = options.first, options.first + options.records - 1
        self._watch = Stopwatch()
        self._counted = 0

    def before(self, offset: int) -> None:
        """Hear of the first record of some that are about to be dealt with."""
        if offset >= self._first and self._watch.began is None:
            self._began_at = offset
            self._watch.start()

    def after(self, offset: int) -> bool:
        """Hear of the last record that was dealt with; tell whether it was the last of all."""
        if self._watch.began is None or offset < self._last:
            return False
        self._watch.say(records=offset + 1 - self._began_at)
        return True


def run_ours(options: argparse.Namespace) -> None:
    """Run the fold of the product: its engine, shell, step and metrics."""
    course, clock = Course(options), SystemClock()
    fold = Fold(
        "maintain_rent_roll",
        RENT_ROLL,
        maintain_rent_roll.step,
        clock,
        prefix=options.prefix,
        observer=PrometheusObserver(Metrics(), clock),
    )
    at = 0

    def step(batch: RecordBatch, views: Mapping[str, View]) -> Step:
        nonlocal at
        course.before(batch.records[0].offset)
        at = batch.records[-1].offset
        return fold(batch, views)

    class Folded(NullObserver):
        """Stops the engine after the last record."""

        def batch_folded(self, flow: str, topic: str, records: int, seconds: float) -> None:
            if course.after(at):
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
    """A Faust table as the pure step sees one."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def get(self, key: bytes) -> bytes | None:
        found: bytes | None = self._table.get(key)
        return found

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        yield from sorted((key, value) for key, value in self._table.items() if key.startswith(prefix))


def run_stock(options: argparse.Namespace) -> None:
    """Run the same step as anybody would write it first: an agent, a table, one row at a time, ``send``."""
    import faust

    course = Course(options)
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
    told = {
        name: app.topic(options.prefix + name, **raw)
        for name in (topics.LINGERING.name, topics.WEBHOOKS.name, topics.DUE.name)
    }
    view = StockView(table)

    async def run(stream: Any) -> None:
        async for event in stream.events():
            if event.message.offset == options.first:
                await app.producer.flush()  # what came before the measurement is none of its cost
            course.before(event.message.offset)
            said = decode(event.value)
            assert isinstance(said, Page | SweepEnd)
            rows = Rows(view)
            applied = apply(rows, said, datetime.now(UTC))
            rows.keep()
            for key, value in rows.encoded().items():
                table[key] = value
            for one in applied.emits:
                await told[one.topic.name].send(key=one.org.encode(), value=encode(one.record))
            if event.message.offset == options.first + options.records - 1:
                await app.producer.flush()  # the others, too, are done only when all is written
            if course.after(event.message.offset):
                os._exit(0)

    app.agent(app.topic(options.prefix + topics.CHANGES.name, **raw))(run)
    sys.argv = ["faust", "worker", "-l", "error", "--without-web"]
    app.main()


async def run_bare(options: argparse.Namespace) -> None:
    """Do the least that could be called the same: fetch, decode, a dict, write what differs, commit."""
    course, rows = Course(options), dict[bytes, bytes | None]()
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
            course.before(records[0].offset)
            fresh: dict[bytes, bytes | None] = {}
            for record in records:
                said = decode(record.value)
                if isinstance(said, Page) and said.kind is EntityKind.UNIT:
                    at = scope(said.org, said.connection)
                    for item in said.items:
                        key = unit_key(at, item.id)
                        if rows.get(key) != item.body:
                            rows[key] = fresh[key] = item.body
            await write(producer, f"{options.name}-{RENT_ROLL}-changelog", fresh)
            await consumer.commit()
            done = course.after(records[-1].offset)
    await producer.stop()
    await consumer.stop()


async def write(producer: Any, topic: str, rows: Mapping[bytes, bytes | None]) -> None:
    left = list(rows.items())
    at, sent = 0, []
    while at < len(left):
        batch = producer.create_batch()
        while at < len(left) and batch.append(timestamp=None, key=left[at][0], value=left[at][1]) is not None:
            at += 1
        sent.append(await producer.send_batch(batch, topic, partition=0))
    for future in sent:
        await future


# ---------------------------------------------------------------------------------------------------------- the table

CONTESTANTS = {"bare": "bare loop", "ours": "fold of the rent roll", "stock": "stock Faust agent"}


def measure(bootstrap: str, case: Case, rounds: int) -> list[Figure]:
    run = f"bench{time.time_ns()}."
    flows = (topics.CHANGES, topics.LINGERING, topics.WEBHOOKS, topics.DUE)
    make_topics(bootstrap, 1, [run + topic.name for topic in flows])
    first = asyncio.run(fill(bootstrap, run + topics.CHANGES.name, case))
    rates = {who: Rates() for who in CONTESTANTS}
    for number in range(rounds):
        for who, found in rates.items():
            if who == "stock" and number:
                continue  # it takes minutes to come to where the measurement begins
            name = f"{run}{number}.{who}"
            make_topics(bootstrap, 1, [f"{name}-{RENT_ROLL}-changelog"])
            records = case.stock_records if who == "stock" else case.records
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
            arguments += ("--at-once", str(max(3000 // case.each, 1)))
            said = contend("benchmarks.fold", who, bootstrap, *arguments)
            found.add(said["records"] * case.each, said)
    print(f"\n{case.title}: {case.records * case.each:,} changes, {case.each} a record\n")
    print(f"{'':<24}{'a second':>11}{'of stock':>10}{'of bare':>9}{'a CPU second':>16}{'of stock':>10}{'of bare':>9}")
    bare, ours, stock = (rates[who] for who in CONTESTANTS)
    for who, title in CONTESTANTS.items():
        wall, cpu = rates[who].a_second, rates[who].a_cpu_second
        print(
            f"{title:<24}{wall:>11,.0f}{wall / stock.a_second:>10.1f}{wall / bare.a_second:>9.2f}"
            f"{cpu:>16,.0f}{cpu / stock.a_cpu_second:>10.1f}{cpu / bare.a_cpu_second:>9.2f}",
            flush=True,
        )
    if case.name == "unchanged":
        return [at_least(f"fold: {case.title}", ours.a_second, "rows/s", 100_000)]
    return [
        Figure(f"fold: {case.title}", ours.a_second, "changes/s"),
        at_least(f"fold: {case.title}, beside stock", ours.a_cpu_second / stock.a_cpu_second, "times CPU", 10),
        at_least(f"fold: {case.title}, beside bare", ours.a_cpu_second / bare.a_cpu_second, "times CPU", 0.4),
    ]


def run(bootstrap: str, *, quick: bool = False, rounds: int | None = None, only: str | None = None) -> list[Figure]:
    times = rounds or (1 if quick else 3)
    chosen = [case for case in cases(quick) if only in (None, case.name)]
    return [figure for case in chosen for figure in measure(bootstrap, case, times)]


def main() -> None:
    taking = parser(__doc__)
    taking.add_argument("--rounds", type=int, help="how often each contestant runs; the middle counts")
    taking.add_argument("--only", choices=[case.name for case in cases(quick=True)])
    for hidden in ("name", "prefix"):
        taking.add_argument(f"--{hidden}", help=argparse.SUPPRESS)
    for hidden in ("first", "records", "at-once"):
        taking.add_argument(f"--{hidden}", type=int, help=argparse.SUPPRESS)
    options = taking.parse_args()
    match options.contestant:
        case "ours":
            run_ours(options)
        case "stock":
            run_stock(options)
        case "bare":
            asyncio.run(run_bare(options))
        case _:
            with broker(options.bootstrap) as servers:
                show(run(servers, quick=options.quick, rounds=options.rounds, only=options.only))


if __name__ == "__main__":
    main()
