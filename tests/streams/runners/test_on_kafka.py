"""Tests of the runners on a real Kafka: kill -9, delays and outages."""

import asyncio
import itertools
import random
import sys
from asyncio.subprocess import Process
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from connectors.clock import SystemClock
from connectors.ports import may_call
from streams.backends.kafka import KafkaBackend
from streams.backends.ports import Backend, Producer
from streams.core.flows import ProducerRecord, Record
from streams.core.retry import Outcome, ladder
from streams.local.embedded_kafka import EmbeddedKafka
from streams.runners.call import Call, CallFlow
from tests.chaos.kafka import wait_until
from tests.chaos.proxy import Link, ProxiedKafka, Proxy
from tests.streams.backends.backend_suite import PARTITIONS, RecordingListener
from tests.streams.backends.test_kafka import make_topics
from tests.streams.runners.stage import echo, text
from tests.streams.runners.victim import call, linger, settings
from tests.world.cluster import free_port

pytestmark = pytest.mark.broker

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def backend(kafka: str, topic_prefix: str) -> Backend:
    await make_topics(kafka, [topic_prefix + name for name in ("in", "out", "lingering", "due")])
    return KafkaBackend(settings(kafka, topic_prefix))


@pytest.fixture
async def producer(backend: Backend) -> AsyncIterator[Producer]:
    created = backend.producer()
    await created.start()
    yield created
    await created.stop()


async def victim(kafka: str, prefix: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.streams.runners.victim", kafka, prefix, cwd=ROOT
    )


@asynccontextmanager
async def watching(
    backend: Backend, *topics: str
) -> AsyncIterator[Callable[[Callable[[list[Record]], bool]], Awaitable[list[Record]]]]:
    """Consume topics, and yield a function that waits for a condition on the records."""
    found: list[Record] = []
    consumer = backend.consumer("watch", topics, RecordingListener())
    await consumer.start()

    async def until(enough: Callable[[list[Record]], bool]) -> list[Record]:
        async with asyncio.timeout(60):
            while not enough(found):
                for records in (await consumer.fetch(1000)).values():
                    found.extend(records)
        return found

    yield until
    await consumer.stop()


async def test_repeated_kills_lose_nothing_and_keep_the_order(
    kafka: str, topic_prefix: str, backend: Backend, producer: Producer
) -> None:
    count = 400
    process = await victim(kafka, topic_prefix)
    try:
        async with watching(backend, "out", "due", "lingering") as until:
            for number in range(count):
                payload = b"%d" % number
                await producer.send(
                    [
                        ProducerRecord("in", b"k%d" % (number % 20), payload),
                        ProducerRecord("lingering", b"org", payload),
                    ],
                    number % PARTITIONS,
                )
                if number in {150, 300}:
                    await until(lambda found: any(one.topic == "due" for one in found[-40:]))
                    process.kill()
                    await process.wait()
                    process = await victim(kafka, topic_prefix)
            wanted = {(topic, str(number)) for number in range(count) for topic in ("out", "due")}
            found = await until(lambda found: wanted <= {(one.topic, text(one)) for one in found})
    finally:
        process.kill()
        await process.wait()

    first: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    parked = {one.value: one.timestamp for one in found if one.topic == "lingering"}
    for one in found:
        if one.topic == "due":
            assert one.timestamp >= parked[one.value] + 500
        if one.topic != "lingering" and text(one) not in first[one.topic, one.partition]:
            first[one.topic, one.partition].append(text(one))
    for number in range(PARTITIONS):
        everything = [str(payload) for payload in range(count) if payload % PARTITIONS == number]
        assert first["due", number] == everything
        for key in range(20):
            assert [one for one in first["out", number] if int(one) % 20 == key] == [
                one for one in everything if int(one) % 20 == key
            ]


async def test_a_short_delay_is_observed_precisely(backend: Backend, producer: Producer) -> None:
    runner = linger(backend)
    running = asyncio.create_task(runner.run())
    async with watching(backend, "due", "lingering") as until:
        for number in range(150):
            await producer.send([ProducerRecord("lingering", b"org", b"%d" % number)], number % PARTITIONS)
            await asyncio.sleep(0.01)
        found = await until(lambda found: len(found) == 300)
    await runner.stop()
    await running
    parked = {one.value: one.timestamp for one in found if one.topic == "lingering"}
    late = sorted(one.timestamp - parked[one.value] - 500 for one in found if one.topic == "due")

    assert late[0] >= 0
    assert late[len(late) // 2] < 30


@pytest.mark.chaos
@pytest.mark.parametrize("away", [15])
async def test_the_runners_survive_an_outage_of_the_broker(own_kafka: EmbeddedKafka, away: float) -> None:
    await make_topics(own_kafka.bootstrap_servers, ["in", "out", "lingering", "due"])
    backend = KafkaBackend(settings(own_kafka.bootstrap_servers, ""))
    runners = linger(backend), call(backend)
    running = [asyncio.create_task(runner.run()) for runner in runners]
    producer = backend.producer()
    await producer.start()
    sent: list[bytes] = []
    over = asyncio.Event()

    async def produce() -> None:
        while not over.is_set():
            payload = b"%d" % len(sent)
            await producer.send(
                [
                    ProducerRecord("in", b"k%d" % (len(sent) % 20), payload),
                    ProducerRecord("lingering", b"org", payload),
                ],
                0,
            )
            sent.append(payload)
            await asyncio.sleep(0.01)

    producing = asyncio.create_task(produce())
    await asyncio.sleep(2)
    await asyncio.to_thread(own_kafka.kill)
    await asyncio.sleep(away)
    await asyncio.to_thread(own_kafka.start)
    await asyncio.sleep(2)
    over.set()
    await producing
    async with watching(backend, "out", "due") as until:
        wanted = {(topic, payload.decode()) for payload in sent for topic in ("out", "due")}
        found = await until(lambda found: wanted <= {(one.topic, text(one)) for one in found})
    await asyncio.gather(*(runner.stop() for runner in runners))
    await asyncio.gather(*running)
    await producer.stop()

    assert len(found) - len(wanted) < 200


@pytest.mark.chaos
async def test_an_isolated_runner_makes_no_call_that_its_successor_has_made(tmp_path: Path) -> None:
    """Its connection is cut until another runner has taken over, and healed: it has records in memory by then."""
    listener, made, over = free_port(), Calls(), asyncio.Event()
    async with Proxy(listener) as proxy, ProxiedKafka(tmp_path, Link(listener, proxy.port)) as broker:
        await make_topics(broker.bootstrap_servers, ["in", "out"])
        runners = [
            made.runner(KafkaBackend(settings(servers, "")), name)
            for name, servers in (("isolated", f"127.0.0.1:{proxy.port}"), ("successor", broker.bootstrap_servers))
        ]
        running = [asyncio.create_task(runner.run()) for runner in runners]
        producer = KafkaBackend(settings(broker.bootstrap_servers, "")).producer()
        await producer.start()

        async def produce() -> None:
            for number in itertools.count():
                if over.is_set():
                    return
                await producer.send([ProducerRecord("in", b"k%d" % (number % 40), b"%d" % number)], number % PARTITIONS)
                await asyncio.sleep(0.003)

        producing = asyncio.create_task(produce())
        try:
            await wait_until(lambda: made.partitions("isolated") and made.partitions("successor"), 60)
            await wait_until(lambda: len(made.partitions("isolated") | made.partitions("successor")) == PARTITIONS, 60)
            proxy.cut()
            await wait_until(lambda: len(made.partitions("successor")) == PARTITIONS, 60)
            await asyncio.sleep(2)
            before = len(made.log)
            proxy.heal()
            await wait_until(lambda: any(who == "isolated" for who, _ in made.log[before:]), 60)
        finally:
            over.set()
            await producing
            for runner, task in zip(runners, running, strict=True):
                await runner.stop()
                await task
            await producer.stop()

    assert made.repeated("isolated", after="successor") == []


class Calls:
    """The calls of some runners, in their order."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []

    def runner(self, backend: Backend, name: str) -> Call:
        async def perform(records: Sequence[Record]) -> Outcome:
            await asyncio.sleep(random.uniform(0.01, 0.05))
            await may_call()
            self.log += [(name, text(record)) for record in records]
            return echo(records)

        flow = CallFlow("copy", ("in",), lambda record: record.key, perform, max_in_flight=16)
        return Call("copy", [flow], backend, SystemClock(), ladder("1m"))

    def partitions(self, name: str) -> set[int]:
        return {int(number) % PARTITIONS for who, number in self.log if who == name}

    def repeated(self, name: str, *, after: str) -> list[str]:
        """Return what a runner called for although another one had done so."""
        found, done = [], set()
        for who, number in self.log:
            if who == after:
                done.add(number)
            elif who == name and number in done:
                found.append(number)
        return found
