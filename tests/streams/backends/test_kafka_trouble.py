"""Tests of the consumer and the reader on Kafka with errors of aiokafka, without a broker."""

from typing import Any

import aiokafka
import pytest
from aiokafka.errors import (
    CommitFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    NotLeaderForPartitionError,
)

from streams.backends.kafka import KafkaBackend, KafkaBackendSettings, KafkaConsumer, KafkaReader
from streams.backends.ports import BackendError, NotOwner, Partition
from tests.streams.backends.backend_suite import RecordingListener


class FailingClient:
    """Raises its errors one after the other, then returns its answer."""

    def __init__(self, *errors: Exception, answer: Any = None) -> None:
        self.errors = list(errors)
        self.answer = answer
        self.asked = 0

    async def _ask(self, *_args: Any, **_more: Any) -> Any:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.answer

    getmany = commit = _ask


def consumer(client: FailingClient, patience: float = 60) -> KafkaConsumer:
    settings = KafkaBackendSettings(bootstrap_servers="missing:1", prefix="p.", patience=patience)
    made = KafkaConsumer(settings, "g", ["t"], RecordingListener())
    made._consumer = client
    return made


async def test_fetching_continues_after_a_transient_error() -> None:
    client = FailingClient(NotLeaderForPartitionError(), answer={aiokafka.TopicPartition("p.t", 2): []})

    assert await consumer(client).fetch(10) == {Partition("t", 2): []}


async def test_a_transient_error_that_persists_is_fatal() -> None:
    with pytest.raises(BackendError, match=r"group p\.g cannot fetch"):
        await consumer(FailingClient(*[NotLeaderForPartitionError()] * 9), patience=0.1).fetch(10)


@pytest.mark.parametrize("error", [GroupAuthorizationFailedError("g"), KafkaError("Unexpected error")])
async def test_a_permanent_error_of_a_fetch_is_fatal_at_once(error: KafkaError) -> None:
    client = FailingClient(error)

    with pytest.raises(BackendError, match="cannot fetch"):
        await consumer(client).fetch(10)
    assert client.asked == 1


@pytest.mark.parametrize(("error", "raises"), [(CommitFailedError(), NotOwner), (KafkaError("no"), BackendError)])
async def test_a_commit_of_a_revoked_partition_is_not_a_backend_error(
    error: KafkaError, raises: type[BackendError]
) -> None:
    with pytest.raises(BackendError) as raised:
        await consumer(FailingClient(error)).commit({Partition("t", 0): 1})

    assert raised.type is raises


async def test_a_consumer_that_was_never_started_can_be_stopped() -> None:
    backend = KafkaBackend(KafkaBackendSettings(bootstrap_servers="missing:1"))
    await backend.producer().stop()
    await backend.consumer("g", ["t"], RecordingListener()).stop()

    assert await backend.last("t", []) == {}


class RewindingClient(FailingClient):
    """Starts at the beginning again, like aiokafka after an offset that is out of range."""

    async def getmany(self, *_args: Any, **_more: Any) -> Any:
        self.asked += 1
        records = [
            aiokafka.ConsumerRecord("p.t", 0, offset, 0, 0, None, b"%d" % offset, None, 0, 1, ()) for offset in range(4)
        ]
        return {aiokafka.TopicPartition("p.t", 0): records} if self.asked == 1 else {}

    async def position(self, _partition: Any) -> int:
        return 9


def reader(client: FailingClient, at: int = 0) -> KafkaReader:
    made = KafkaReader(KafkaBackendSettings(bootstrap_servers="nowhere:1", prefix="p."), ["t"], {})
    made._consumer = client
    made._partitions = {aiokafka.TopicPartition("p.t", 0): Partition("t", 0)}
    made._positions = {Partition("t", 0): at}
    return made


async def test_a_reader_returns_no_record_twice_and_skips_compacted_offsets() -> None:
    made = reader(RewindingClient(), at=2)

    assert [one.value for one in (await made.fetch(10))[Partition("t", 0)]] == [b"2", b"3"]
    assert made.positions == {Partition("t", 0): 4}
    assert await made.fetch(10) == {}
    assert made.positions == {Partition("t", 0): 9}


async def test_any_error_of_a_reader_is_a_backend_error() -> None:
    client = FailingClient(KafkaError("no"), KafkaError("no"))
    client.end_offsets = client._ask  # type: ignore[attr-defined]

    with pytest.raises(BackendError, match="t cannot be read"):
        await reader(client).fetch(10)
    with pytest.raises(BackendError, match="the ends of t cannot be read"):
        await reader(client).ends()
