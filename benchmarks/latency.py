"""From a webhook to the batch at the receiver, on an idle system of real processes, one change after the other.

Beside it the same path with nothing in between: a POST, a bare aiokafka producer, a bare consumer, a POST.

    python -m benchmarks.latency [--changes 100] [--quick]
"""

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiokafka
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.kit import Figure, at_most, broker, make_topics, parser, show
from benchmarks.system import system
from connectors.buildium.standin import Webhooks, seed_portfolio
from connectors.clock import SystemClock
from connectors.serving import running
from streams.local.demo import WEBHOOK_SECRET
from streams.settings import RentStreamSettings

UNITS = 24
LINGER: float = RentStreamSettings.model_fields["linger"].default
WITHIN = 30.0
IDLE = 0.2
"""Most seconds of rest between two changes; a random part of it, so that no timer beats along."""

Change = Callable[[], Awaitable[None]]
"""Says one change, and returns when it has arrived."""


async def times(change: Change, count: int, warm: int = 5) -> list[float]:
    rest, seconds = random.Random(1), []
    for number in range(count + warm):
        await asyncio.sleep(rest.random() * IDLE)
        began = time.perf_counter()
        async with asyncio.timeout(WITHIN):
            await change()
        if number >= warm:
            seconds.append(time.perf_counter() - began)
    return seconds


@asynccontextmanager
async def whole(bootstrap: str) -> AsyncIterator[Change]:
    """The product: its web role and a worker; the first sweep is done."""
    portfolio = seed_portfolio(SystemClock(), properties=4, units=UNITS)  # without the office: it is not offered
    async with system(bootstrap, portfolio) as running_system:
        receiver = running_system.rentsync
        await receiver.wait_for(lambda now: len(now.state) == len(portfolio.units), WITHIN)
        await asyncio.sleep(3)
        quiet = [unit for unit in portfolio.units if unit not in portfolio.listings]
        webhooks = Webhooks(f"{running_system.url}/api/webhooks/buildium", WEBHOOK_SECRET, SystemClock())
        rents = iter(range(1000, 100_000))

        async def change() -> None:
            rent = next(rents)
            unit = quiet[rent % len(quiet)]
            await webhooks.send(portfolio.set_rent(unit, rent))
            await receiver.wait_for(lambda now: now.state[unit].base_rent == rent, WITHIN)

        try:
            yield change
        finally:
            await webhooks.aclose()


@asynccontextmanager
async def bare(bootstrap: str) -> AsyncIterator[Change]:
    """A POST is produced, consumed and POSTed on; all in this process."""
    topic = f"bench{time.time_ns()}"
    await asyncio.to_thread(make_topics, bootstrap, 1, [topic])
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
    consumer = aiokafka.AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=topic, fetch_max_wait_ms=50)
    arrived = asyncio.Event()

    async def take(request: Request) -> Response:
        await producer.send_and_wait(topic, await request.body())
        return Response()

    async def receive(request: Request) -> Response:
        await request.body()
        arrived.set()
        return Response()

    app = Starlette(routes=[Route("/take", take, methods=["POST"]), Route("/receive", receive, methods=["POST"])])
    await producer.start()
    await consumer.start()
    async with running(app) as url, httpx.AsyncClient(trust_env=False) as client:

        async def pass_on() -> None:
            async for record in consumer:
                await client.post(f"{url}/receive", content=record.value)

        passing = asyncio.create_task(pass_on())

        async def change() -> None:
            arrived.clear()
            await client.post(f"{url}/take", content=b"x" * 300)
            await arrived.wait()

        try:
            yield change
        finally:
            passing.cancel()
            await asyncio.gather(passing, return_exceptions=True)
            await consumer.stop()
            await producer.stop()


async def measure(bootstrap: str, changes: int) -> list[Figure]:
    async with bare(bootstrap) as change:
        reference = await times(change, changes)
    async with whole(bootstrap) as change:
        ours = await times(change, changes)
    print(f"\nfrom a webhook to the batch at the receiver, {changes} changes one after the other, milliseconds\n")
    print(f"{'':<34}{'p50':>8}{'p90':>8}{'p99':>8}{'worst':>8}")
    for title, seconds in (("bare producer and consumer", reference), (f"RentStream, linger {LINGER:g} s", ours)):
        shown = (*(at(seconds, share) for share in (50, 90, 99)), max(seconds))
        print(f"{title:<34}" + "".join(f"{one * 1000:>8.0f}" for one in shown), flush=True)
    return [
        at_most("latency: webhook to receiver, p50", at(ours, 50), "s", 1),
        at_most("latency: webhook to receiver, p99", at(ours, 99), "s", 2),
        Figure("latency: what is not linger, p50", at(ours, 50) - LINGER, "s"),
        Figure("latency: the bare path, p50", at(reference, 50), "s"),
    ]


def at(seconds: list[float], share: int) -> float:
    return statistics.quantiles(seconds, n=100, method="inclusive")[share - 1]


def run(bootstrap: str, *, quick: bool = False, changes: int | None = None) -> list[Figure]:
    return asyncio.run(measure(bootstrap, changes or (20 if quick else 100)))


def main() -> None:
    taking = parser(__doc__)
    taking.add_argument("--changes", type=int)
    options = taking.parse_args()
    with broker(options.bootstrap) as servers:
        show(run(servers, quick=options.quick, changes=options.changes))


if __name__ == "__main__":
    main()
