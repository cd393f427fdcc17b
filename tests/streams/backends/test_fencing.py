"""Tests of producer ids by partition: a former owner's writes are refused by the broker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import for_code
from aiokafka.structs import TopicPartition

from streams.backends.fencing import Identities, producer_id
from streams.backends.ports import BackendError, Fenced, NotOwner
from streams.backends.writer import BatchWriter
from tests.chaos.kafka import last_values
from tests.streams.backends.test_kafka import make_topics

MARK = b"mark"


@dataclass
class Owner:
    """An ownership that a test ends."""

    joined: bool = True
    proven: bool = True
    generation: int = 0

    def on_end(self, listener: object) -> None:
        del listener


async def test_each_partition_number_has_an_identity_and_sequences_of_its_own() -> None:
    identities = Identities()
    identities.set_pid_and_epoch(1, 0)
    first, other = TopicPartition("t", 3), TopicPartition("u", 4)

    def stamp(tp: TopicPartition) -> tuple[int, int, int]:
        sequence = identities.sequence_number(tp)
        identities.increment_sequence_number(tp, 5)
        return identities.producer_id, identities.producer_epoch, sequence

    assert [stamp(first), stamp(first), stamp(other)] == [(1, 0, 0), (1, 0, 5), (1, 0, 0)]
    identities.begin(3, 77, 2)
    assert [stamp(first), stamp(other), stamp(first)] == [(77, 2, 0), (1, 0, 5), (77, 2, 5)]


class Cluster:
    """A client that answers requests for producer ids with errors, and then with an id."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)

    def get_random_node(self) -> int:
        return 1

    async def coordinator_lookup(self, *_: object) -> int:
        return 1

    async def ready(self, *_: object, **__: object) -> bool:
        return True

    async def send(self, *_: object, **__: object) -> Any:
        error = self.errors.pop(0) if self.errors else 0
        return SimpleNamespace(error_code=error, producer_id=7, producer_epoch=3)


async def test_a_producer_id_is_asked_for_until_the_cluster_can_tell() -> None:
    """Its coordinator loads or moves, or another request is under way."""
    assert await producer_id(Cluster(14, 15, 16, 51), "app-1") == (7, 3)


@pytest.mark.parametrize(("error", "words"), [(53, "grant the operations Write and Describe"), (42, "InvalidRequest")])
async def test_a_refusal_is_an_error_with_the_transactional_id(error: int, words: str) -> None:
    assert not for_code(error).retriable
    with pytest.raises(BackendError, match=words) as refused:
        await producer_id(Cluster(error), "app-1")
    assert "app-1" in str(refused.value)


# --------------------------------------------------------------------------------------------------------- on a broker


@asynccontextmanager
async def writer(kafka: str, owner: Owner | None = None) -> AsyncIterator[BatchWriter]:
    made = BatchWriter({"bootstrap_servers": kafka, "request_timeout_ms": 5000}, owner=owner or Owner())
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


@pytest.fixture
async def topic(kafka: str, topic_prefix: str) -> str:
    await make_topics(kafka, [topic_prefix + "log", topic_prefix + "other"])
    return topic_prefix + "log"


@pytest.mark.broker
async def test_the_broker_refuses_what_a_former_owner_writes(kafka: str, topic: str) -> None:
    """Also a former owner that takes itself for the owner; what the new one writes is there."""
    former_owner = Owner()
    async with writer(kafka, former_owner) as former, writer(kafka) as later:
        await former.take_over({1: [topic]}, topic, MARK)
        await former.append(topic, 1, [(b"a", b"1", ())])
        await later.take_over({1: [topic]}, topic, MARK)
        await later.append(topic, 1, [(b"a", b"2", ()), (b"b", b"2", ())])
        late = asyncio.create_task(former.append(topic, 1, [(b"a", b"3", ())]))
        await asyncio.sleep(0.5)
        former_owner.joined = former_owner.proven = False
        with pytest.raises(NotOwner, match="next owner writes"):
            await late
        await later.append(topic, 1, [(b"c", b"2", ())])

    assert dict(await last_values(kafka, topic, 3)) == {b"a": b"2", b"b": b"2", b"c": b"2"}


@pytest.mark.broker
async def test_a_refusal_that_the_group_does_not_explain_is_an_error(
    kafka: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has taken over what the group has assigned to this one."""
    monkeypatch.setattr("streams.backends.writer.FENCED_SECONDS", 0.3)
    async with writer(kafka) as owner, writer(kafka) as thief:
        await owner.take_over({1: [topic]}, topic, MARK)
        await thief.take_over({1: [topic]}, topic, MARK)
        with pytest.raises(Fenced, match="another process"):
            await owner.append(topic, 1, [(b"a", b"1", ())])


@pytest.mark.broker
async def test_partitions_are_taken_over_one_by_one(kafka: str, topic: str) -> None:
    """The former owner keeps the others, and a partition may come back."""
    async with writer(kafka) as first, writer(kafka) as second:
        await first.take_over({0: [topic], 1: [topic]}, topic, MARK)
        await second.take_over({1: [topic]}, topic, MARK)
        await first.append(topic, 0, [(b"a", b"1", ())])
        await second.append(topic, 1, [(b"b", b"2", ())])
        await first.take_over({1: [topic]}, topic, MARK)
        await first.append(topic, 1, [(b"b", b"1", ())])

    assert dict(await last_values(kafka, topic, 3)) == {b"a": b"1", b"b": b"1"}


@pytest.mark.broker
async def test_nothing_is_sent_while_the_ownership_is_unproven(kafka: str, topic: str) -> None:
    owner = Owner(proven=False)
    async with writer(kafka, owner) as made:
        writing = asyncio.create_task(made.append(topic, 1, [(b"a", b"1", ())]))
        await asyncio.sleep(0.3)
        assert not writing.done()
        owner.proven = True
        await writing

    assert dict(await last_values(kafka, topic, 3)) == {b"a": b"1"}


@pytest.mark.broker
async def test_a_write_ends_when_the_partitions_are_given_away(kafka: str, topic: str) -> None:
    """Before it was sent, and afterwards; what was not sent is never written."""
    owner = Owner()
    async with writer(kafka, owner) as made:
        packed = [made.pack(topic, 1, [(b"a", b"1", ())]) for _ in range(2)]
        owner.proven = False
        waiting = asyncio.create_task(made.write(packed[0]))
        await asyncio.sleep(0.1)
        owner.joined = False
        owner.generation += 1
        made.disown()
        with pytest.raises(NotOwner):
            await waiting
        with pytest.raises(NotOwner):
            await made.write(packed[1])
        owner.joined = owner.proven = True
        await made.take_over({1: [topic]}, topic, MARK)
        await made.append(topic, 1, [(b"b", b"2", ())])

    assert dict(await last_values(kafka, topic, 3)) == {b"b": b"2"}


@pytest.mark.broker
async def test_a_batch_that_aiokafka_holds_back_is_dropped_with_the_ownership(kafka: str, topic: str) -> None:
    """It was taken over by aiokafka when the proof ended, and would be sent with the identity of the next time."""
    owner = Owner()
    async with writer(kafka, owner) as made:
        await made.take_over({1: [topic]}, topic, MARK)
        writing = asyncio.create_task(made.append(topic, 1, [(b"a", b"1", ())]))
        await asyncio.sleep(0)
        owner.proven = False
        await asyncio.sleep(0.2)
        owner.joined = False
        owner.generation += 1
        made.disown()
        await asyncio.wait({writing}, timeout=5)
        owner.joined = owner.proven = True
        await made.take_over({1: [topic]}, topic, MARK)
        await made.append(topic, 1, [(b"b", b"2", ())])
        assert isinstance(writing.exception(), NotOwner)

    assert dict(await last_values(kafka, topic, 3)) == {b"b": b"2"}


@pytest.mark.broker
async def test_a_writer_that_takes_nothing_over_goes_on_after_it_lost_and_regained_the_ownership(
    kafka: str, topic: str
) -> None:
    """A batch that was dropped had a sequence number; the broker accepts nothing behind the gap."""
    owner = Owner()
    async with writer(kafka, owner) as made:
        await made.append(topic, 1, [(b"a", b"1", ())])
        for round_ in range(3):
            owner.proven = True
            writing = asyncio.create_task(made.append(topic, 1, [(b"lost", b"%d" % round_, ())]))
            await asyncio.sleep(0)
            owner.proven = False
            await asyncio.sleep(0.2)
            owner.joined = False
            owner.generation += 1
            made.disown()
            await asyncio.wait({writing}, timeout=5)
            assert isinstance(writing.exception(), NotOwner)
            owner.joined = owner.proven = True
            keys = (b"b", b"c", b"d")
            await asyncio.gather(*(made.append(topic, 1, [(key, b"%d" % round_, ())]) for key in keys))

    assert dict(await last_values(kafka, topic, 3)) == {b"a": b"1", b"b": b"2", b"c": b"2", b"d": b"2"}
