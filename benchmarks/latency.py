"""Latency from a webhook to the batch at the receiver, in an idle system of real processes, one change at a time.

A lease makes a unit unavailable, which is sent at once; a rent waits for the linger. A burst of changes of one property
shows how many batches each kind makes. The reference is the same path without any processing: a POST, an aiokafka
producer, a consumer, a POST.

    python -m benchmarks.latency [--changes 100] [--quick]
"""

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiokafka
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.kit import Result, at_most, broker, make_topics, parser, show
from benchmarks.system import system
from connectors.buildium.standin import Webhooks, seed_portfolio
from connectors.clock import SystemClock
from connectors.serving import running
from streams.local.demo import WEBHOOK_SECRET
from streams.settings import RentStreamSettings

UNITS = 24
LINGER: float = RentStreamSettings.model_fields["linger"].default
TIMEOUT = 30.0
MAX_PAUSE = 0.2
"""Maximum pause between two changes in seconds; random, so that changes do not synchronize with timers."""

Change = Callable[[], Awaitable[None]]
"""Makes one change, and returns when the receiver has it."""


@dataclass(frozen=True, slots=True)
class RentStream:
    """A running system, and the changes that can be made in it."""

    rent: Change
    lease: Change
    end_lease: Change
    """Undoes ``lease``."""
    burst: Callable[[bool], Awaitable[int]]
    """Makes a change of every unit of a property, of its lease or of its rent; returns how many batches that made."""


async def durations(change: Change, count: int, *, before: Change | None = None, warmup: int = 5) -> list[float]:
    """Return the seconds that each of ``count`` changes took, after some that are not measured.

    ``before`` is made before each of them, and not measured either.
    """
    pauses, seconds = random.Random(1), []
    for number in range(count + warmup):
        if before is not None:
            await before()
        await asyncio.sleep(pauses.random() * MAX_PAUSE)
        started = time.perf_counter()
        async with asyncio.timeout(TIMEOUT):
            await change()
        if number >= warmup:
            seconds.append(time.perf_counter() - started)
    return seconds


@asynccontextmanager
async def rentstream(bootstrap: str) -> AsyncIterator[RentStream]:
    """Run the web role and a worker until the first sweep is delivered."""
    portfolio = seed_portfolio(SystemClock(), properties=4, units=UNITS)  # without the office, which is not sent
    async with system(bootstrap, portfolio) as running_system:
        receiver = running_system.rentsync
        await receiver.wait_for(lambda listed: len(listed.state) == len(portfolio.units), TIMEOUT)
        await asyncio.sleep(3)
        unlisted = [unit for unit in portfolio.units if unit not in portfolio.listings]
        webhooks = Webhooks(f"{running_system.url}/api/webhooks/buildium", WEBHOOK_SECRET, SystemClock())
        rents = iter(range(1000, 100_000))

        vacant = next(unit for unit in unlisted if receiver.state[unit].is_available)
        leases: list[int] = []

        async def change() -> None:
            rent = next(rents)
            unit = unlisted[rent % len(unlisted)]
            await webhooks.send(portfolio.set_rent(unit, rent))
            await receiver.wait_for(lambda listed: listed.state[unit].base_rent == rent, TIMEOUT)

        async def lease() -> None:
            events = portfolio.sign_lease(vacant, portfolio.today())
            leases.append(max(portfolio.leases))
            await webhooks.send(events)
            await receiver.wait_for(lambda listed: not listed.state[vacant].is_available, TIMEOUT)

        async def end_lease() -> None:
            if leases:
                await webhooks.send(portfolio.end_lease(leases.pop()))
                await receiver.wait_for(lambda listed: listed.state[vacant].is_available, TIMEOUT)
                await asyncio.sleep(LINGER * 2)

        async def burst(leased: bool) -> int:
            await end_lease()
            home = portfolio.units[vacant].property_id
            units = [unit for unit in portfolio.units if portfolio.units[unit].property_id == home]
            before = len(receiver.accepted)
            for unit in units:
                rent = next(rents)
                await webhooks.send(
                    portfolio.sign_lease(unit, portfolio.today()) if leased else portfolio.set_rent(unit, rent)
                )
            await asyncio.sleep(LINGER * 2 + 3)
            return len(receiver.accepted) - before

        try:
            yield RentStream(change, lease, end_lease, burst)
        finally:
            await webhooks.aclose()


@asynccontextmanager
async def bare(bootstrap: str) -> AsyncIterator[Change]:
    """Produce, consume and forward a POST in this process; yield a change."""
    topic = f"bench{time.time_ns()}"
    await asyncio.to_thread(make_topics, bootstrap, 1, [topic])
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
    consumer = aiokafka.AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=topic, fetch_max_wait_ms=50)
    arrived = asyncio.Event()

    async def ingress(request: Request) -> Response:
        await producer.send_and_wait(topic, await request.body())
        return Response()

    async def receiver(request: Request) -> Response:
        await request.body()
        arrived.set()
        return Response()

    app = Starlette(
        routes=[Route("/ingress", ingress, methods=["POST"]), Route("/receiver", receiver, methods=["POST"])]
    )
    await producer.start()
    await consumer.start()
    async with running(app) as url, httpx.AsyncClient(trust_env=False) as client:

        async def forward() -> None:
            async for record in consumer:
                await client.post(f"{url}/receiver", content=record.value)

        forwarding = asyncio.create_task(forward())

        async def change() -> None:
            arrived.clear()
            await client.post(f"{url}/ingress", content=b"x" * 300)
            await arrived.wait()

        try:
            yield change
        finally:
            forwarding.cancel()
            await asyncio.gather(forwarding, return_exceptions=True)
            await consumer.stop()
            await producer.stop()


async def measure(bootstrap: str, changes: int) -> list[Result]:
    async with bare(bootstrap) as change:
        reference = await durations(change, changes)
    async with rentstream(bootstrap) as running_system:
        measured = await durations(running_system.rent, changes)
        leased = await durations(running_system.lease, changes, before=running_system.end_lease)
        batches = [await running_system.burst(kind) for kind in (False, True)]
    print(f"\nlatency from a webhook to the batch at the receiver, {changes} changes one at a time, milliseconds\n")
    print(f"{'':<34}{'p50':>8}{'p90':>8}{'p99':>8}{'max':>8}")
    rows = (
        ("bare producer and consumer", reference),
        (f"RentStream, a rent, linger {LINGER:g} s", measured),
        ("RentStream, a lease", leased),
    )
    for title, seconds in rows:
        columns = (*(percentile(seconds, share) for share in (50, 90, 99)), max(seconds))
        print(f"{title:<34}" + "".join(f"{column * 1000:>8.0f}" for column in columns), flush=True)
    print(f"\nbatches for a burst of changes of every unit of a property: rents {batches[0]}, leases {batches[1]}")
    return [
        at_most("latency: a unit that became unavailable, p50", percentile(leased, 50), "s", 0.1),
        at_most("latency: a unit that became unavailable, p99", percentile(leased, 99), "s", 0.3),
        at_most("latency: webhook to receiver, p50", percentile(measured, 50), "s", 1),
        at_most("latency: webhook to receiver, p99", percentile(measured, 99), "s", 2),
        Result("latency: without linger, p50", percentile(measured, 50) - LINGER, "s"),
        Result("latency: reference path, p50", percentile(reference, 50), "s"),
    ]


def percentile(seconds: list[float], share: int) -> float:
    return statistics.quantiles(seconds, n=100, method="inclusive")[share - 1]


def run(bootstrap: str, *, quick: bool = False, changes: int | None = None) -> list[Result]:
    return asyncio.run(measure(bootstrap, changes or (20 if quick else 100)))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--changes", type=int)
    options = arguments.parse_args()
    with broker(options.bootstrap) as servers:
        show(run(servers, quick=options.quick, changes=options.changes))


if __name__ == "__main__":
    main()
