"""Duration of the first sweep of a large account, until every batch is acknowledged, and of a sweep without changes.

The web role and one worker run as processes, the stand-ins in this process. Both durations include the rate limit of
ten calls a second, which the stand-in enforces.

    python -m benchmarks.sweep [--units 100000] [--quick]
"""

import asyncio
import time
from datetime import UTC, datetime

import aiokafka

from benchmarks.kit import Result, at_most, broker, parser, show
from benchmarks.system import System, system
from connectors.budget import Limits
from connectors.buildium.standin import bulk_portfolio
from connectors.clock import SystemClock
from connectors.ports import Priority
from connectors.registry import BUILDIUM, ORG
from schemas import topics
from schemas.base import EntityKind
from schemas.codec import decode, encode
from schemas.pms import SweepStep
from schemas.rent_roll import AccountRow
from streams.core.rent_roll import account_key, scope
from streams.topology import APP, RENT_ROLL

TIMEOUT = 600.0


async def swept(bootstrap: str, system: System, sweep: str | None) -> float:
    """Return the time (monotonic) at which the table marks a sweep as complete; None means any sweep."""
    changelog = system.prefix + topics.changelog(APP, RENT_ROLL).name
    consumer = aiokafka.AIOKafkaConsumer(
        changelog, bootstrap_servers=bootstrap, auto_offset_reset="earliest", max_partition_fetch_bytes=4 << 20
    )
    await consumer.start()
    try:
        async with asyncio.timeout(TIMEOUT):
            async for record in consumer:
                if record.key == account_key(scope(ORG, BUILDIUM)):
                    row = decode(record.value)
                    if isinstance(row, AccountRow) and sweep in (None, row.sweep):
                        return time.monotonic()
    finally:
        await consumer.stop()
    raise RuntimeError("the changelog ended")


async def sweep_again(bootstrap: str, system: System) -> tuple[float, float]:
    """Run another sweep; return the times (monotonic) of its start and of its completion in the table."""
    now = datetime.now(UTC)
    step = SweepStep(
        org=ORG, connection=BUILDIUM, sweep=now.strftime("%Y%m%dT%H%M%SZ"), started_at=now, stage=EntityKind.PROPERTY
    )
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    completed = asyncio.create_task(swept(bootstrap, system, step.sweep))
    await asyncio.sleep(5)
    started = time.monotonic()
    await producer.send_and_wait(system.prefix + topics.SWEEPS.name, encode(step), key=ORG.encode())
    await producer.stop()
    return started, await completed


async def measure(bootstrap: str, units: int) -> list[Result]:
    portfolio = bulk_portfolio(SystemClock(), units, warm=True)
    properties = len(portfolio.properties)
    async with system(bootstrap, portfolio) as running:
        receiver = running.rentsync
        table = asyncio.create_task(swept(bootstrap, running, None))
        await receiver.wait_for(
            lambda listed: len(listed.state) >= units and len(listed.accepted) >= properties, TIMEOUT
        )
        delivered, complete = time.monotonic(), await table
        started, calls, cpu = running.buildium.calls[0].at, len(running.buildium.calls), running.cpu()
        peak = running.peak_mib()
        batches = len(receiver.accepted)
        await asyncio.sleep(5)  # for batches that are sent twice
        extra = len(receiver.accepted) - batches
        second_start, second_end = await sweep_again(bootstrap, running)
        second_calls = len(running.buildium.calls) - calls
        second_read = running.buildium.calls[-1].at - second_start
        await asyncio.sleep(5)
        more = len(receiver.accepted) - batches - extra
        refused = [status for status in receiver.statuses if status != 200]
        second_peak, throttled = running.peak_mib() or 0.0, running.buildium.throttled
    print(f"\n{units:,} units in {properties:,} properties, ten calls a second\n")
    print(
        f"first sweep:  {calls} calls; table complete after {complete - started:.1f} s, all {batches} batches ", end=""
    )
    print(f"acknowledged after {delivered - started:.1f} s; {cpu:.1f} CPU seconds of the worker, start-up included")
    print(f"second sweep: {second_calls} calls, the last after {second_read:.1f} s, table complete after ", end="")
    print(f"{second_end - second_start:.1f} s")
    print(
        f"{throttled} calls throttled, {len(refused)} refused, {extra} batches sent twice, peak {second_peak:.0f} MiB"
    )
    title = f"sweep of {units:,} units"
    return [
        at_most(f"{title}: until all batches are acknowledged", delivered - started, "s", 120),
        at_most(f"{title}: peak memory of the worker", peak or 0.0, "MiB", 600),
        at_most(f"{title}, again: until the table is complete", second_end - second_start, "s", 20),
        Result(f"{title}, again: minimum within the API budget", minimum_duration(second_calls), "s"),
        at_most(f"{title}, again: batches", more, "", 0),
    ]


def minimum_duration(calls: int) -> float:
    """Return the minimum seconds of so many calls of a sweep, whose budget is smaller than the limit."""
    limits = Limits()
    return calls * (limits.window + limits.transit) / (limits.starts - limits.spare_starts[Priority.SWEEP])


def run(bootstrap: str, *, quick: bool = False, units: int | None = None) -> list[Result]:
    return asyncio.run(measure(bootstrap, units or (5_000 if quick else 100_000)))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--units", type=int)
    options = arguments.parse_args()
    with broker(options.bootstrap) as servers:
        show(run(servers, quick=options.quick, units=options.units))


if __name__ == "__main__":
    main()
