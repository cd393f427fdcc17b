"""Recovery time of a worker without local state, relative to a bare loop that reads the same changelog.

The rows are those of the rent roll, with realistic sizes; the candidates are those of `benchmarks.engine`.

    python -m benchmarks.recovery [--rows 1000000] [--quick]
"""

import asyncio
import statistics
import tempfile
from pathlib import Path

import aiokafka

from benchmarks.engine import PARTITIONS, Bench
from benchmarks.fold import START, Account
from benchmarks.kit import Result, at_most, broker, parser, show
from schemas.base import EntityKind
from schemas.codec import encode
from schemas.rent_roll import LeaseEntry, UnitRow
from streams.core.rent_roll import scope, unit_key


def example_row() -> UnitRow:
    account = Account()
    (unit, *_), (lease, *_) = account.snapshots(EntityKind.UNIT, 1500), account.snapshots(EntityKind.LEASE, 1500)
    return UnitRow(
        property_id=1,
        seq=1_767_225_600_000_000,
        body=encode(unit),
        leases=(LeaseEntry(id=lease.id, body=encode(lease)),),
        version=3,
        fetched_at=START,
    )


async def fill(bootstrap: str, topic: str, rows: int) -> int:
    """Write a changelog with ``rows`` units; return the size of a row in bytes."""
    row = encode(example_row())
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", max_batch_size=512 * 1024)
    await producer.start()
    sent = []
    for partition in range(PARTITIONS):
        prefix = scope(f"org-{partition}", "buildium")
        number, end = 0, rows // PARTITIONS
        while number < end:
            batch = producer.create_batch()
            while number < end and batch.append(timestamp=None, key=unit_key(prefix, number), value=row) is not None:
                number += 1
            sent.append(await producer.send_batch(batch, topic, partition=partition))
    await asyncio.gather(*sent)
    await producer.stop()
    return len(row)


CANDIDATES = (
    ("bare", "bare loop, a dict", "recover-bare", ()),
    ("rocksdb", "engine, RocksDB", "recover-engine", ("--store", "rocksdb")),
    ("memory", "engine, memory", "recover-engine", ("--store", "memory")),
)


def run(bootstrap: str, *, quick: bool = False, rows: int = 1_000_000, rounds: int | None = None) -> list[Result]:
    rows = min(rows, 100_000) if quick else rows
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bench = Bench(bootstrap, Path(folder))
        name = f"{bench.prefix}-recovery"
        source = f"{name}-events"
        bench.topics(name, source)
        size = asyncio.run(fill(bootstrap, f"{name}-rows-changelog", rows))
        seconds: dict[str, list[float]] = {name: [] for name, *_ in CANDIDATES}
        cpu: dict[str, list[float]] = {name: [] for name, *_ in CANDIDATES}
        for _ in range(rounds or (1 if quick else 3)):
            for candidate, _title, program, more in CANDIDATES:
                measured = bench.run_candidate(program, source, name, 0, *more)
                seconds[candidate].append(measured["seconds"])
                cpu[candidate].append(measured["cpu"])
    print(f"\nrecovery of {rows:,} rows of {size} bytes in {PARTITIONS} partitions on one core, start-up included\n")
    print(f"{'':<24}{'seconds':>10}{'x bare':>10}{'CPU seconds':>14}{'x bare':>10}{'rows/s':>16}")
    bare, bare_cpu = statistics.median(seconds["bare"]), statistics.median(cpu["bare"])
    for candidate, title, *_ in CANDIDATES:
        wall, used = statistics.median(seconds[candidate]), statistics.median(cpu[candidate])
        print(f"{title:<24}{wall:>10.1f}{wall / bare:>10.2f}{used:>14.1f}{used / bare_cpu:>10.2f}{rows / wall:>16,.0f}")
    recovery = statistics.median(seconds["rocksdb"])
    relative = "recovery: relative to the bare loop"
    return [
        Result(f"recovery: {rows:,} rows from the changelog to RocksDB", recovery, "s"),
        # Not for a quick run: joining the group takes a second or two, independent of the number of rows.
        Result(relative, recovery / bare, "times") if quick else at_most(relative, recovery / bare, "times", 3),
    ]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, help="runs per candidate; the median counts")
    options = arguments.parse_args()
    with broker(options.bootstrap) as servers:
        show(run(servers, quick=options.quick, rows=options.rows, rounds=options.rounds))


if __name__ == "__main__":
    main()
