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

from streams.backends.kafka import KafkaBackend, KafkaBackendSettings, KafkaConsumer
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
