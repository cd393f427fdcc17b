"""How the consumer on Kafka treats the errors that aiokafka raises; no broker needed."""

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
from tests.streams.backends.backend_suite import Ear


class Troubled:
    """Raises the errors that it got, one after the other, then answers."""

    def __init__(self, *troubles: Exception, answer: Any = None) -> None:
        self.troubles = list(troubles)
        self.answer = answer
        self.asked = 0

    async def _ask(self, *_args: Any, **_more: Any) -> Any:
        self.asked += 1
        if self.troubles:
            raise self.troubles.pop(0)
        return self.answer

    getmany = commit = _ask


def consumer(troubled: Troubled, patience: float = 60) -> KafkaConsumer:
    settings = KafkaBackendSettings(bootstrap_servers="missing:1", prefix="p.", patience=patience)
    made = KafkaConsumer(settings, "g", ["t"], Ear())
    made._consumer = troubled
    return made


async def test_fetching_goes_on_after_an_error_that_passes() -> None:
    troubled = Troubled(NotLeaderForPartitionError(), answer={aiokafka.TopicPartition("p.t", 2): []})

    assert await consumer(troubled).fetch(10) == {Partition("t", 2): []}


async def test_an_error_that_should_pass_and_does_not_is_fatal() -> None:
    with pytest.raises(BackendError, match=r"group p\.g cannot fetch"):
        await consumer(Troubled(*[NotLeaderForPartitionError()] * 9), patience=0.1).fetch(10)


@pytest.mark.parametrize("error", [GroupAuthorizationFailedError("g"), KafkaError("Unexpected error")])
async def test_any_other_error_of_fetching_is_fatal_at_once(error: KafkaError) -> None:
    troubled = Troubled(error)

    with pytest.raises(BackendError, match="cannot fetch"):
        await consumer(troubled).fetch(10)
    assert troubled.asked == 1


@pytest.mark.parametrize(("error", "raises"), [(CommitFailedError(), NotOwner), (KafkaError("no"), BackendError)])
async def test_a_commit_distinguishes_a_partition_that_was_revoked_from_a_broken_backend(
    error: KafkaError, raises: type[BackendError]
) -> None:
    with pytest.raises(BackendError) as raised:
        await consumer(Troubled(error)).commit({Partition("t", 0): 1})

    assert raised.type is raises


async def test_what_was_never_started_can_be_stopped() -> None:
    backend = KafkaBackend(KafkaBackendSettings(bootstrap_servers="missing:1"))
    await backend.producer().stop()
    await backend.consumer("g", ["t"], Ear()).stop()

    assert await backend.last("t", []) == {}


class Rewinding(Troubled):
    """Begins again at the beginning, as aiokafka does when an offset is out of range, and is then further on."""

    async def getmany(self, *_args: Any, **_more: Any) -> Any:
        self.asked += 1
        records = [
            aiokafka.ConsumerRecord("p.t", 0, offset, 0, 0, None, b"%d" % offset, None, 0, 1, ()) for offset in range(4)
        ]
        return {aiokafka.TopicPartition("p.t", 0): records} if self.asked == 1 else {}

    async def position(self, _partition: Any) -> int:
        return 9


def reader(troubled: Troubled, at: int = 0) -> KafkaReader:
    made = KafkaReader(KafkaBackendSettings(bootstrap_servers="nowhere:1", prefix="p."), ["t"], {})
    made._consumer = troubled
    made._partitions = {aiokafka.TopicPartition("p.t", 0): Partition("t", 0)}
    made._positions = {Partition("t", 0): at}
    return made


async def test_a_reader_never_gives_a_record_twice_and_skips_what_compaction_left_empty() -> None:
    made = reader(Rewinding(), at=2)

    assert [one.value for one in (await made.fetch(10))[Partition("t", 0)]] == [b"2", b"3"]
    assert made.positions == {Partition("t", 0): 4}
    assert await made.fetch(10) == {}
    assert made.positions == {Partition("t", 0): 9}


async def test_any_error_of_a_reader_is_one_of_the_log() -> None:
    troubled = Troubled(KafkaError("no"), KafkaError("no"))
    troubled.end_offsets = troubled._ask  # type: ignore[attr-defined]

    with pytest.raises(BackendError, match="t cannot be read"):
        await reader(troubled).fetch(10)
    with pytest.raises(BackendError, match="the ends of t cannot be read"):
        await reader(troubled).ends()
