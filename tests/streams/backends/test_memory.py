"""Tests of the backend in memory: the contract suite, kills, outages and the clock."""

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
from tests.streams.backends.backend_suite import PARTITIONS, BackendSuite, RecordingListener, out, take, values


class TestMemoryBackend(BackendSuite):
    @pytest.fixture
    def backend(self) -> MemoryBackend:
        return MemoryBackend(MemoryBroker(MovableClock(), PARTITIONS))

    @pytest.fixture
    def topics(self) -> list[str]:
        return ["one", "two"]


@given(st.binary(max_size=40))
def test_keys_have_the_partitions_of_kafka(key: bytes) -> None:
    assert murmur2(key) == kafkas_murmur2(key)


async def test_uncommitted_records_of_a_killed_member_are_consumed_by_another() -> None:
    broker = MemoryBroker(MovableClock(), 1)
    first_backend, second_backend = MemoryBackend(broker), MemoryBackend(broker)
    listener = RecordingListener()
    first, second = (
        first_backend.consumer("g", ["t"], listener),
        second_backend.consumer("g", ["t"], RecordingListener()),
    )
    for record in out("t", b"0", b"1"):
        broker.append(record)
    await first.start()
    await take(first, 2)
    await first.commit({Partition("t", 0): 1})
    await second.start()
    await first_backend.kill()
    too_late = asyncio.create_task(first.commit({Partition("t", 0): 2}))
    written = asyncio.create_task(first_backend.producer().send(out("t", b"ghost")))

    assert values(await take(second, 1)) == [b"1"]
    assert broker.committed("g", "t", 0) == 1
    assert values(broker.read("t")) == [b"0", b"1"]
    assert not too_late.done()
    assert not written.done()
    too_late.cancel()
    written.cancel()


async def test_clients_wait_for_an_unavailable_broker() -> None:
    broker = MemoryBroker(MovableClock(), 1)
    producer = MemoryBackend(broker).producer()
    broker.go_away()
    sending = asyncio.create_task(producer.send([ProducerRecord("t", b"k", b"v")]))
    await settle()
    assert not sending.done()

    broker.come_back()
    await sending

    assert values(broker.read("t")) == [b"v"]


async def test_sleepers_wake_in_order_at_their_times() -> None:
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
