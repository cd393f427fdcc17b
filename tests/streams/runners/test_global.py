"""A follower brings every record of its topics into memory, knows when it has them all, and outlives its broker."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from connectors.clock import SystemClock
from streams.backends.kafka import KafkaBackend, KafkaBackendSettings
from streams.backends.memory import MemoryBackend, MemoryBroker, MemoryReader, MovableClock, settle
from streams.backends.ports import NOWHERE, Backend, BackendError, Partition
from streams.core.flows import ProducerRecord
from streams.local.embedded_kafka import EmbeddedKafka
from streams.runners.global_ import ANSWER_WITHIN, PROBE_EVERY, Follow, within
from tests.streams.backends.test_kafka import make_topics


class Refusing(MemoryReader):
    """A reader that cannot connect."""

    async def start(self) -> None:
        raise BackendError("a cannot be read")


class Heard(logging.Handler):
    """Waits for a line of the log."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words
        self.came = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self.words in record.getMessage():
            self.came.set()


class Kept:
    """Remembers the last value of each key, and what it knew when all was read."""

    def __init__(self) -> None:
        self.values: dict[bytes | None, bytes] = {}
        self.applied = 0
        self.at_first: dict[bytes | None, bytes] | None = None
        self.changed = asyncio.Event()

    @property
    def caught_up(self) -> bool:
        return self.at_first is not None

    @caught_up.setter
    def caught_up(self, value: bool) -> None:
        assert value
        self.at_first = dict(self.values)

    def apply(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        self.applied += 1
        self.values.pop(key, None)
        if value is not None:
            self.values[key] = value
        self.changed.set()

    async def until(self, key: bytes, value: bytes | None, seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while self.values.get(key) != value:
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def broker(clock: MovableClock) -> MemoryBroker:
    return MemoryBroker(clock, 3)


@asynccontextmanager
async def following(log: Backend, kept: Kept, clock: MovableClock | SystemClock) -> AsyncIterator[Follow]:
    follower = Follow(log, ["a", "b"], kept, clock)
    running = asyncio.create_task(follower.run())
    await asyncio.sleep(0)
    try:
        yield follower
    finally:
        await follower.stop()
        await running


async def test_it_has_read_every_partition_of_every_topic_when_it_has_caught_up(
    broker: MemoryBroker, clock: MovableClock
) -> None:
    for number in range(1000):
        broker.append(ProducerRecord("ab"[number % 2], b"%d" % number, b"v"), number % 3)
    broker.append(ProducerRecord("a", b"0", None), 0)
    kept = Kept()
    async with following(MemoryBackend(broker), kept, clock) as follower:
        await follower.caught_up()
        assert kept.at_first is not None
        assert kept.at_first.keys() == {b"%d" % number for number in range(1, 1000)}

        broker.append(ProducerRecord("b", b"new", b"1"), 2)
        await settle()
        assert kept.values[b"new"] == b"1"
        assert (follower.connected, follower.trouble, follower.age) == (True, None, 0.0)


async def test_topics_without_a_record_are_caught_up_with_at_once(broker: MemoryBroker, clock: MovableClock) -> None:
    async with following(MemoryBackend(broker), Kept(), clock) as follower:
        await follower.caught_up()


async def test_what_is_written_while_it_catches_up_counts_but_cannot_delay_it_for_ever(
    broker: MemoryBroker, clock: MovableClock
) -> None:
    class Growing(Kept):
        def apply(self, topic: str, key: bytes | None, value: bytes | None) -> None:
            super().apply(topic, key, value)
            if self.applied < 100_000:
                broker.append(ProducerRecord("a", b"%d" % self.applied, b"v"), 0)

    broker.append(ProducerRecord("a", b"0", b"v"), 0)
    kept = Growing()
    async with following(MemoryBackend(broker), kept, clock) as follower:
        await follower.caught_up()
        assert kept.at_first is not None
        assert 1 < len(kept.at_first) < 100_000


async def test_a_broker_that_is_away_at_the_start_is_waited_for(broker: MemoryBroker, clock: MovableClock) -> None:
    broker.append(ProducerRecord("a", b"k", b"v"))
    broker.go_away()
    kept = Kept()
    async with following(MemoryBackend(broker), kept, clock) as follower:
        assert not follower.connected
        await clock.advance(100)
        assert not kept.caught_up
        assert (follower.trouble, follower.age) == ("no broker answered within 10 s", 100)
        broker.come_back()
        await clock.advance(1)
        await follower.caught_up()

    assert kept.at_first == {b"k": b"v"}


async def test_a_broker_that_goes_away_costs_news_only(
    broker: MemoryBroker, clock: MovableClock, caplog: pytest.LogCaptureFixture
) -> None:
    broker.append(ProducerRecord("a", b"k", b"1"))
    kept = Kept()
    async with following(MemoryBackend(broker), kept, clock) as follower:
        await follower.caught_up()
        broker.go_away()
        await clock.advance(PROBE_EVERY + ANSWER_WITHIN + 60)
        assert not follower.connected
        assert follower.age >= 60
        assert kept.values == {b"k": b"1"}
        broker.append(ProducerRecord("a", b"k", b"2"))
        broker.come_back()
        await clock.advance(ANSWER_WITHIN)

        assert kept.values == {b"k": b"2"}
        assert kept.applied == 2
        assert follower.connected
        assert follower.age <= PROBE_EVERY
    assert caplog.text.count("going on with what is known") == 1


async def test_an_error_of_the_log_is_followed_by_another_attempt(broker: MemoryBroker, clock: MovableClock) -> None:
    class Troubled(MemoryBackend):
        troubles = 2

        def reader(self, topics: Sequence[str], positions: Mapping[Partition, int] = NOWHERE) -> MemoryReader:
            self.troubles -= 1
            return (Refusing if self.troubles >= 0 else MemoryReader)(self, topics, positions)

    async with following(Troubled(broker), Kept(), clock) as follower:
        await settle()
        assert follower.trouble == "a cannot be read"
        await clock.advance(2)
        await follower.caught_up()


async def test_a_mistake_ends_it(broker: MemoryBroker, clock: MovableClock) -> None:
    class Broken(Kept):
        def apply(self, topic: str, key: bytes | None, value: bytes | None) -> None:
            raise RuntimeError("broken")

    broker.append(ProducerRecord("a", b"k", b"v"))
    follower = Follow(MemoryBackend(broker), ["a"], Broken(), clock)

    with pytest.raises(RuntimeError, match="broken"):
        await follower.run()


async def test_who_expects_a_record_learns_of_exactly_that_one(broker: MemoryBroker, clock: MovableClock) -> None:
    kept = Kept()
    async with following(MemoryBackend(broker), kept, clock) as follower:
        await follower.caught_up()
        with follower.expecting("a", b"k", b"2") as second, follower.expecting("a", b"k", None) as gone:
            broker.append(ProducerRecord("a", b"k", b"1"))
            broker.append(ProducerRecord("b", b"k", b"2"))
            await settle()
            assert (second.done(), gone.done()) == (False, False)
            broker.append(ProducerRecord("a", b"k", b"2"))
            await second
            assert kept.values == {b"k": b"2"}
            broker.append(ProducerRecord("a", b"k", None))
            await gone
        assert follower._expected == {}


async def test_stopping_one_that_never_ran_does_not_wait(broker: MemoryBroker, clock: MovableClock) -> None:
    await Follow(MemoryBackend(broker), ["a"], Kept(), clock).stop()


async def test_within_gives_the_result_or_ends_what_is_late(clock: MovableClock) -> None:
    async def answer() -> int:
        return 7

    assert await within(clock, answer(), 1) == 7
    late: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(within(clock, late, 1))
    await clock.advance(1)
    with pytest.raises(TimeoutError):
        await waiting
    assert late.cancelled()


@pytest.mark.parametrize("when", ["before", "by"])
async def test_what_fails_while_its_caller_is_cancelled_is_not_reported_as_lost(clock: MovableClock, when: str) -> None:
    """A process that ends while no broker answers logs no traceback."""
    lost: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: lost.append(context))
    failed = asyncio.Event()

    async def connect() -> None:
        try:
            await failed.wait()
        finally:
            raise BackendError("no broker")

    waiting = asyncio.create_task(within(clock, connect(), 1))
    await settle()
    if when == "before":
        failed.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    del waiting
    gc.collect()
    await settle()

    assert lost == []


@pytest.mark.broker
async def test_on_kafka_a_change_arrives_within_a_second(kafka: str, topic_prefix: str) -> None:
    await make_topics(kafka, [topic_prefix + name for name in "ab"])
    log = KafkaBackend(KafkaBackendSettings(bootstrap_servers=kafka, prefix=topic_prefix))
    producer = log.producer()
    await producer.start()
    await producer.send([ProducerRecord("a", b"%d" % number, b"v") for number in range(500)])
    kept = Kept()
    async with following(log, kept, SystemClock()) as follower:
        async with asyncio.timeout(20):
            await follower.caught_up()
        assert kept.at_first is not None
        assert len(kept.at_first) == 500
        for number in range(5):
            await producer.send([ProducerRecord("b", b"k", b"%d" % number)])
            await kept.until(b"k", b"%d" % number, 1.0)
    await producer.stop()


@pytest.mark.broker
async def test_on_kafka_a_broker_that_was_killed_is_found_again_and_nothing_is_lost(own_kafka: EmbeddedKafka) -> None:
    await make_topics(own_kafka.bootstrap_servers, ["a", "b"])
    log = KafkaBackend(KafkaBackendSettings(bootstrap_servers=own_kafka.bootstrap_servers))
    producer = log.producer()
    await producer.start()
    await producer.send([ProducerRecord("a", b"k", b"1")])
    kept = Kept()
    async with following(log, kept, SystemClock()) as follower:
        async with asyncio.timeout(20):
            await follower.caught_up()
        heard = Heard("going on with what is known")
        logging.getLogger("streams.runners").addHandler(heard)
        await asyncio.to_thread(own_kafka.kill)
        async with asyncio.timeout(40):
            await heard.came.wait()
        logging.getLogger("streams.runners").removeHandler(heard)
        assert not follower.connected
        assert kept.values == {b"k": b"1"}
        await asyncio.to_thread(own_kafka.start)
        await producer.send([ProducerRecord("a", b"k", b"2")])
        await kept.until(b"k", b"2", 40)

        assert kept.applied == 2
    await producer.stop()
