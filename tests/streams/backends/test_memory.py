"""The backend in memory obeys the laws of every backend, and its clock moves only when a test moves it."""

import asyncio
from datetime import timedelta

import pytest
from aiokafka.partitioner import murmur2 as kafkas_murmur2
from hypothesis import given
from hypothesis import strategies as st

from schemas.partitions import murmur2
from streams.backends.memory import MemoryBackend, MemoryBroker, MovableClock, settle
from streams.backends.ports import Partition
from streams.core.flows import ProducerRecord
from tests.streams.backends.backend_suite import PARTITIONS, Ear, LogSuite, out, take, values


class TestMemoryLog(LogSuite):
    @pytest.fixture
    def log(self) -> MemoryBackend:
        return MemoryBackend(MemoryBroker(MovableClock(), PARTITIONS))

    @pytest.fixture
    def topics(self) -> list[str]:
        return ["one", "two"]


@given(st.binary(max_size=40))
def test_keys_live_where_kafka_puts_them(key: bytes) -> None:
    assert murmur2(key) == kafkas_murmur2(key)


async def test_what_a_killed_member_did_not_commit_comes_to_another() -> None:
    broker = MemoryBroker(MovableClock(), 1)
    first_log, second_log = MemoryBackend(broker), MemoryBackend(broker)
    ear = Ear()
    first, second = first_log.consumer("g", ["t"], ear), second_log.consumer("g", ["t"], Ear())
    for record in out("t", b"0", b"1"):
        broker.append(record)
    await first.start()
    await take(first, 2)
    await first.commit({Partition("t", 0): 1})
    await second.start()
    await first_log.kill()
    too_late = asyncio.create_task(first.commit({Partition("t", 0): 2}))
    written = asyncio.create_task(first_log.producer().send(out("t", b"ghost")))

    assert values(await take(second, 1)) == [b"1"]
    assert broker.committed("g", "t", 0) == 1
    assert values(broker.read("t")) == [b"0", b"1"]
    assert not too_late.done()
    assert not written.done()
    too_late.cancel()
    written.cancel()


async def test_a_broker_that_is_away_is_waited_for() -> None:
    broker = MemoryBroker(MovableClock(), 1)
    producer = MemoryBackend(broker).producer()
    broker.go_away()
    sending = asyncio.create_task(producer.send([ProducerRecord("t", b"k", b"v")]))
    await settle()
    assert not sending.done()

    broker.come_back()
    await sending

    assert values(broker.read("t")) == [b"v"]


async def test_sleepers_wake_in_order_each_at_its_moment() -> None:
    clock = MovableClock()
    began = clock.now()
    woke: list[tuple[str, timedelta]] = []

    async def sleeper(name: str, *naps: float) -> None:
        for nap in naps:
            await clock.sleep(nap)
            woke.append((name, clock.now() - began))

    tasks = [asyncio.create_task(sleeper("a", 2, 2)), asyncio.create_task(sleeper("b", 3, 9))]
    await clock.advance(1)
    assert woke == []
    assert clock.next_wake == 1
    await clock.advance(9)

    assert woke == [("a", timedelta(seconds=2)), ("b", timedelta(seconds=3)), ("a", timedelta(seconds=4))]
    assert clock.monotonic() == 10
    await clock.advance(2)
    assert woke[-1] == ("b", timedelta(seconds=12))
    await asyncio.gather(*tasks)
