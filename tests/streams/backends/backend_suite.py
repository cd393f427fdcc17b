"""The contract suite of backends, inherited by the tests of the backend in memory and the one on Kafka."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager

import pytest

from schemas.partitions import partition_of
from streams.backends.ports import NOWHERE, Backend, Consumer, NotOwner, Partition, Producer, Reader, TooLarge
from streams.core.flows import ProducerRecord, Record

PARTITIONS = 4


class RecordingListener:
    """Records rebalances, and may commit when partitions are revoked."""

    def __init__(self, on_revoked: Callable[[Collection[Partition]], object] | None = None) -> None:
        self.calls: list[tuple[str, frozenset[Partition]]] = []
        self.changed = asyncio.Event()
        self.on_revoked = on_revoked

    async def revoked(self, partitions: Collection[Partition]) -> None:
        if self.on_revoked:
            result = self.on_revoked(partitions)
            if asyncio.iscoroutine(result):
                await result
        self.calls.append(("revoked", frozenset(partitions)))

    async def assigned(self, partitions: Collection[Partition]) -> None:
        self.calls.append(("assigned", frozenset(partitions)))
        self.changed.set()

    async def until_assigned(self, count: int) -> frozenset[Partition]:
        async with asyncio.timeout(30):
            while not (self.calls and self.calls[-1][0] == "assigned" and len(self.calls[-1][1]) == count):
                await self.changed.wait()
                self.changed.clear()
        return self.calls[-1][1]


async def take(consumer: Consumer, count: int, within: float = 20) -> list[Record]:
    """Fetch until a number of records is reached; return them."""
    found: list[Record] = []
    async with asyncio.timeout(within):
        while len(found) < count:
            for records in (await consumer.fetch(1000)).values():
                found += records
    return found


async def read(reader: Reader, count: int, within: float = 20) -> list[Record]:
    """Read until a number of records is reached; return them."""
    found: list[Record] = []
    async with asyncio.timeout(within):
        while len(found) < count:
            for records in (await reader.fetch(3)).values():
                found += records
    return found


async def nothing(consumer: Consumer, within: float = 0.5) -> None:
    with pytest.raises(TimeoutError):
        await take(consumer, 1, within)


def values(records: Collection[Record]) -> list[bytes | None]:
    return [record.value for record in records]


def out(topic: str, *payloads: bytes, key: bytes = b"org") -> list[ProducerRecord]:
    return [ProducerRecord(topic, key, payload) for payload in payloads]


class BackendSuite:
    """The contract; a subclass has the fixtures ``backend`` (a new connection to one cluster) and ``topics`` (two)."""

    @pytest.fixture
    async def producer(self, backend: Backend) -> AsyncIterator[Producer]:
        created = backend.producer()
        await created.start()
        yield created
        await created.stop()

    @asynccontextmanager
    async def member(
        self, backend: Backend, topics: Collection[str], group: str = "g", listener: RecordingListener | None = None
    ) -> AsyncIterator[Consumer]:
        created = backend.consumer(group, list(topics), listener or RecordingListener())
        await created.start()
        try:
            yield created
        finally:
            await created.stop()

    @asynccontextmanager
    async def reading(
        self, backend: Backend, topics: Collection[str], positions: Mapping[Partition, int] = NOWHERE
    ) -> AsyncIterator[Reader]:
        created = backend.reader(list(topics), positions)
        await created.start()
        try:
            yield created
        finally:
            await created.stop()

    async def test_a_record_is_consumed_as_it_was_produced(
        self, backend: Backend, producer: Producer, topics: list[str]
    ) -> None:
        await producer.send(
            [ProducerRecord(topics[0], b"k", b"v", (("a", b"1"), ("a", b""))), ProducerRecord(topics[0], b"k", None)], 2
        )
        async with self.member(backend, topics[:1]) as consumer:
            first, second = await take(consumer, 2)

        assert (first.topic, first.partition, first.offset) == (topics[0], 2, 0)
        assert (first.key, first.value, tuple(first.headers)) == (b"k", b"v", (("a", b"1"), ("a", b"")))
        assert (second.offset, second.value, tuple(second.headers)) == (1, None, ())
        assert first.timestamp > 1_500_000_000_000

    async def test_without_a_partition_it_is_derived_from_the_key(
        self, backend: Backend, producer: Producer, topics: list[str]
    ) -> None:
        keys = [b"org-%d" % number for number in range(20)]
        await producer.send([ProducerRecord(topics[0], key, key) for key in keys])
        async with self.member(backend, topics[:1]) as consumer:
            found = await take(consumer, len(keys))

        assert {record.key: record.partition for record in found} == {
            key: partition_of(key, PARTITIONS) for key in keys
        }

    @pytest.mark.parametrize("count", [3, 1000])
    async def test_order_is_kept_in_each_partition_of_each_topic(
        self, backend: Backend, producer: Producer, topics: list[str], count: int
    ) -> None:
        sent = [b"%d" % number for number in range(count)]
        mixed = [ProducerRecord(topic, b"k", payload) for payload in sent for topic in topics]
        await asyncio.gather(producer.send(mixed, 0), producer.send(mixed, 3))
        found = defaultdict(list)
        async with self.member(backend, topics) as consumer:
            for record in await take(consumer, count * 4):
                found[record.topic, record.partition].append(record.value)

        assert found == {(topic, number): sent for topic in topics for number in (0, 3)}

    async def test_a_too_large_record_fails_the_whole_call(
        self, backend: Backend, producer: Producer, topics: list[str]
    ) -> None:
        large = bytes(range(256)) * (5 << 12)
        await producer.send(out(topics[0], large), 0)
        with pytest.raises(TooLarge):
            await producer.send(out(topics[0], b"small", bytes(9 << 20)), 0)
        await producer.send(out(topics[0], b"after"), 0)
        async with self.member(backend, topics[:1]) as consumer:
            found = await take(consumer, 2)

        assert values(found) == [large, b"after"]

    async def test_a_group_continues_after_its_last_commit(
        self, backend: Backend, producer: Producer, topics: list[str]
    ) -> None:
        await producer.send(out(topics[0], b"0", b"1", b"2"), 1)
        async with self.member(backend, topics[:1]) as consumer:
            await take(consumer, 3)
            await consumer.commit({Partition(topics[0], 1): 2})
        async with self.member(backend, topics[:1]) as consumer:
            again = await take(consumer, 1)
        async with self.member(backend, topics[:1], "another") as consumer:
            all_of_it = await take(consumer, 3)

        assert (values(again), values(all_of_it)) == ([b"2"], [b"0", b"1", b"2"])

    async def test_a_paused_partition_is_not_fetched_until_it_is_resumed(
        self, backend: Backend, producer: Producer, topics: list[str]
    ) -> None:
        listener = RecordingListener()
        async with self.member(backend, topics[:1], listener=listener) as consumer:
            await listener.until_assigned(PARTITIONS)
            consumer.pause(Partition(topics[0], 1))
            consumer.pause(Partition("another", 1))
            await producer.send(out(topics[0], b"held"), 1)
            await producer.send(out(topics[0], b"free"), 2)
            free = await take(consumer, 1)
            await nothing(consumer)
            consumer.resume(Partition(topics[0], 1))
            held = await take(consumer, 1)

        assert (values(free), values(held)) == ([b"free"], [b"held"])

    async def test_seek_goes_back(self, backend: Backend, producer: Producer, topics: list[str]) -> None:
        await producer.send(out(topics[0], b"0", b"1", b"2"), 1)
        async with self.member(backend, topics[:1]) as consumer:
            await take(consumer, 3)
            consumer.seek(Partition(topics[0], 1), 1)
            again = await take(consumer, 2)

        assert values(again) == [b"1", b"2"]

    async def test_a_cancelled_fetch_loses_nothing(
        self, backend: Backend, producer: Producer, topics: list[str]
    ) -> None:
        listener = RecordingListener()
        async with self.member(backend, topics[:1], listener=listener) as consumer:
            await listener.until_assigned(PARTITIONS)
            await nothing(consumer, 0.1)
            await producer.send(out(topics[0], b"0"), 0)

            assert values(await take(consumer, 1)) == [b"0"]

    async def test_members_share_partitions_and_own_the_same_numbers_of_all_topics(
        self, backend: Backend, topics: list[str]
    ) -> None:
        one, two = RecordingListener(), RecordingListener()
        async with self.member(backend, topics, listener=one) as first:
            everything = await one.until_assigned(2 * PARTITIONS)
            fetching = asyncio.create_task(take(first, 1))
            async with self.member(backend, topics, listener=two) as second:
                fetching_second = asyncio.create_task(take(second, 1))
                of_first, of_second = await one.until_assigned(PARTITIONS), await two.until_assigned(PARTITIONS)
                assert (first.assignment, second.assignment) == (of_first, of_second)
                fetching_second.cancel()
            after = await one.until_assigned(2 * PARTITIONS)
            fetching.cancel()

        assert ("revoked", everything) in one.calls
        assert of_first | of_second == everything == after
        assert {number for _, number in of_first}.isdisjoint(number for _, number in of_second)

    async def test_a_member_may_commit_when_its_partitions_are_revoked_and_not_later(
        self, backend: Backend, producer: Producer, topics: list[str]
    ) -> None:
        await producer.send(out(topics[0], b"0", b"1"), 3)
        listener = RecordingListener(
            lambda partitions: first.commit({Partition(topics[0], 3): 1}) if partitions else None
        )
        async with self.member(backend, topics[:1], listener=listener) as first:
            await take(first, 2)
            fetching = asyncio.create_task(take(first, 1))
            two = RecordingListener()
            async with self.member(backend, topics[:1], listener=two) as second:
                moved = asyncio.create_task(take(second, 1))
                await two.until_assigned(PARTITIONS // 2)
                if Partition(topics[0], 3) in second.assignment:
                    assert values(await moved) == [b"1"]
                    with pytest.raises(NotOwner):
                        await first.commit({Partition(topics[0], 3): 2})
                else:
                    assert values(await fetching) == [b"1"]
                moved.cancel()
                listener.on_revoked = None
            fetching.cancel()

    async def test_the_last_records_of_partitions_can_be_read(
        self, backend: Backend, producer: Producer, topics: list[str]
    ) -> None:
        await producer.send(out(topics[0], b"0", b"1", b"2"), 1)
        await producer.send(out(topics[0], b"a"), 2)
        found = await backend.last(topics[0], [0, 1, 2], 2)

        assert {number: values(records) for number, records in found.items()} == {0: [], 1: [b"1", b"2"], 2: [b"a"]}

    async def test_records_can_be_read_by_their_offsets(
        self, backend: Backend, producer: Producer, topics: list[str]
    ) -> None:
        """Near each other and far from each other; those that are not there are left out."""
        await producer.send(out(topics[0], *(b"%d" % number for number in range(1500))), 1)
        found = await backend.read(topics[0], 1, [3, 4, 1400, 1499, 1500, 9000])

        assert {offset: record.value for offset, record in found.items()} == {
            3: b"3", 4: b"4", 1400: b"1400", 1499: b"1499",
        }  # fmt: skip
        assert {record.topic for record in found.values()} == {topics[0]}
        assert list(found) == sorted(found)
        assert await backend.read(topics[0], 2, [0]) == {}
        assert await backend.read(topics[0], 1, []) == {}

    async def test_every_reader_reads_all_records_of_all_partitions(
        self, backend: Backend, producer: Producer, topics: list[str]
    ) -> None:
        for number in range(PARTITIONS):
            await producer.send([ProducerRecord(topics[number % 2], b"k", b"%d" % number)], number)
        async with self.reading(backend, topics) as one, self.reading(backend, topics) as two:
            before = [{record.value for record in await read(reader, PARTITIONS)} for reader in (one, two)]
            await producer.send([ProducerRecord(topics[1], b"k", None)], 2)
            after = [await read(reader, 1) for reader in (one, two)]

        assert before == [{b"%d" % number for number in range(PARTITIONS)}] * 2
        assert [[(one.topic, one.partition, one.key, one.value) for one in found] for found in after] == [
            [(topics[1], 2, b"k", None)]
        ] * 2

    async def test_a_reader_keeps_the_order_and_reports_positions_and_ends(
        self, backend: Backend, producer: Producer, topics: list[str]
    ) -> None:
        sent = [b"%d" % number for number in range(50)]
        await producer.send(out(topics[0], *sent), 1)
        async with self.reading(backend, topics) as reader:
            ends = await reader.ends()
            begin = dict(reader.positions)
            found = await read(reader, len(sent))
            reached = dict(reader.positions)

        everywhere = {Partition(topic, number): 0 for topic in topics for number in range(PARTITIONS)}
        assert values(found) == sent
        assert begin == everywhere
        assert ends == reached == everywhere | {Partition(topics[0], 1): 50}

    async def test_a_reader_starts_at_given_positions(
        self, backend: Backend, producer: Producer, topics: list[str]
    ) -> None:
        await producer.send(out(topics[0], b"0", b"1", b"2"), 1)
        await producer.send(out(topics[0], b"a"), 2)
        async with self.reading(backend, topics[:1], {Partition(topics[0], 1): 2}) as reader:
            found = await read(reader, 2)

        assert {record.value for record in found} == {b"2", b"a"}

    async def test_a_cancelled_fetch_of_a_reader_loses_nothing(
        self, backend: Backend, producer: Producer, topics: list[str]
    ) -> None:
        async with self.reading(backend, topics[:1]) as reader:
            with pytest.raises(TimeoutError):
                await read(reader, 1, 0.1)
            await producer.send(out(topics[0], b"0"), 0)

            assert values(await read(reader, 1)) == [b"0"]

    async def test_a_reader_does_not_affect_groups(
        self, backend: Backend, producer: Producer, topics: list[str]
    ) -> None:
        listener = RecordingListener()
        async with (
            self.member(backend, topics[:1], listener=listener) as consumer,
            self.reading(backend, topics[:1]) as reader,
        ):
            await listener.until_assigned(PARTITIONS)
            await producer.send(out(topics[0], b"0"), 3)

            assert values(await take(consumer, 1)) == values(await read(reader, 1)) == [b"0"]
            assert len(listener.calls) <= 2
