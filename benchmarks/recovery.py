"""How long a worker that lost its disk takes until it is ready, against the bare loop that reads the same topic.

The rows are those of the rent roll, of the size that they have there; the contestants are those of `benchmarks.engine`.

    python -m benchmarks.recovery [--rows 1000000] [--quick]
"""

import asyncio
import statistics
import tempfile
from pathlib import Path

import aiokafka

from benchmarks.engine import PARTITIONS, Bench
from benchmarks.fold import BEGAN, Model
from benchmarks.kit import Figure, at_most, broker, parser, show
from schemas.base import EntityKind
from schemas.codec import encode
from schemas.rent_roll import LeaseEntry, UnitRow
from streams.core.rent_roll import scope, unit_key


def a_row() -> UnitRow:
    saying = Model()
    (unit, *_), (lease, *_) = saying.of(EntityKind.UNIT, 1500), saying.of(EntityKind.LEASE, 1500)
    return UnitRow(
        property_id=1,
        seq=1_767_225_600_000_000,
        body=encode(unit),
        leases=(LeaseEntry(id=lease.id, body=encode(lease)),),
        version=3,
        fetched_at=BEGAN,
    )


async def fill(bootstrap: str, topic: str, rows: int) -> int:
    """Write a changelog of so many units; give the bytes of a row."""
    row = encode(a_row())
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", max_batch_size=512 * 1024)
    await producer.start()
    sent = []
    for partition in range(PARTITIONS):
        at = scope(f"org-{partition}", "buildium")
        number, end = 0, rows // PARTITIONS
        while number < end:
            batch = producer.create_batch()
            while number < end and batch.append(timestamp=None, key=unit_key(at, number), value=row) is not None:
                number += 1
            sent.append(await producer.send_batch(batch, topic, partition=partition))
    await asyncio.gather(*sent)
    await producer.stop()
    return len(row)


CONTESTANTS = (
    ("bare", "bare loop, a dict", "recover-bare", ()),
    ("rocksdb", "engine, RocksDB", "recover-engine", ("--store", "rocksdb")),
    ("memory", "engine, memory", "recover-engine", ("--store", "memory")),
)


def run(bootstrap: str, *, quick: bool = False, rows: int = 1_000_000, rounds: int | None = None) -> list[Figure]:
    rows = min(rows, 100_000) if quick else rows
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bench = Bench(bootstrap, Path(folder))
        name = f"{bench.run}-recovery"
        source = f"{name}-events"
        bench.topics(name, source)
        size = asyncio.run(fill(bootstrap, f"{name}-rows-changelog", rows))
        seconds: dict[str, list[float]] = {who: [] for who, *_ in CONTESTANTS}
        cpu: dict[str, list[float]] = {who: [] for who, *_ in CONTESTANTS}
        for _ in range(rounds or (1 if quick else 3)):
            for who, _title, contender, more in CONTESTANTS:
                said = bench.contend(contender, source, name, 0, *more)
                seconds[who].append(said["seconds"])
                cpu[who].append(said["cpu"])
    print(f"\na lost disk: {rows:,} rows of {size} bytes in {PARTITIONS} partitions, on one core, start-up included\n")
    print(f"{'':<24}{'seconds':>10}{'of bare':>10}{'CPU seconds':>14}{'of bare':>10}{'rows a second':>16}")
    bare, bare_cpu = statistics.median(seconds["bare"]), statistics.median(cpu["bare"])
    for who, title, *_ in CONTESTANTS:
        wall, used = statistics.median(seconds[who]), statistics.median(cpu[who])
        print(f"{title:<24}{wall:>10.1f}{wall / bare:>10.2f}{used:>14.1f}{used / bare_cpu:>10.2f}{rows / wall:>16,.0f}")
    ours = statistics.median(seconds["rocksdb"])
    beside = "recovery: beside the bare loop"
    return [
        Figure(f"recovery: {rows:,} rows from the changelog to RocksDB", ours, "s"),
        # Joining the group takes a second or two, however few rows there are.
        Figure(beside, ours / bare, "times") if quick else at_most(beside, ours / bare, "times", 3),
    ]


def main() -> None:
    taking = parser(__doc__)
    taking.add_argument("--rows", type=int, default=1_000_000)
    taking.add_argument("--rounds", type=int, help="how often each contestant runs; the middle counts")
    options = taking.parse_args()
    with broker(options.bootstrap) as servers:
        show(run(servers, quick=options.quick, rows=options.rows, rounds=options.rounds))


if __name__ == "__main__":
    main()
