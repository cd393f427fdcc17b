"""What the log on Kafka makes of the errors that aiokafka raises; no broker needed."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiokafka
import pytest
from aiokafka.errors import (
    CommitFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
)

from streams.backends.kafka import KafkaBackend, KafkaBackendSettings, KafkaConsumer, KafkaProducer, KafkaReader
from streams.backends.ports import BackendError, NotOwner, Partition
from tests.streams.backends.backend_suite import Ear, out


class Troubled:
    """Raises what it was given, one after the other, then answers."""

    def __init__(self, *troubles: Exception, answer: Any = None) -> None:
        self.troubles = list(troubles)
        self.answer = answer
        self.asked = 0

    async def _ask(self, *_args: Any, **_more: Any) -> Any:
        self.asked += 1
        if self.troubles:
            raise self.troubles.pop(0)
        return self.answer

    getmany = commit = send = _ask


def consumer(troubled: Troubled, patience: float = 60) -> KafkaConsumer:
    settings = KafkaBackendSettings(bootstrap_servers="nobody:1", prefix="p.", patience=patience)
    made = KafkaConsumer(settings, "g", ["t"], Ear())
    made._consumer = troubled
    return made


def producer(troubled: Troubled) -> KafkaProducer:
    made = KafkaProducer(KafkaBackendSettings(bootstrap_servers="nobody:1", prefix="p."))
    made._producer = troubled
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


@pytest.mark.parametrize(("error", "told"), [(CommitFailedError(), NotOwner), (KafkaError("no"), BackendError)])
async def test_a_commit_says_whether_the_partition_has_gone_or_the_log_is_broken(
    error: KafkaError, told: type[BackendError]
) -> None:
    with pytest.raises(BackendError) as raised:
        await consumer(Troubled(error)).commit({Partition("t", 0): 1})

    assert raised.type is told


async def test_a_broker_that_takes_nothing_yet_is_asked_again() -> None:
    written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    written.set_result(None)
    troubled = Troubled(KafkaTimeoutError(), KafkaTimeoutError(), answer=written)
    await producer(troubled).send(out("t", b"1", b"2"), 0)

    assert troubled.asked == 4


@pytest.mark.parametrize(
    ("error", "says"),
    [(MessageSizeTooLargeError(), "max.message.bytes is too low"), (KafkaError("no"), "not be written")],
)
async def test_a_write_that_fails_is_an_error_of_the_log(error: KafkaError, says: str) -> None:
    with pytest.raises(BackendError, match=says):
        await producer(Troubled(error)).send(out("t", b"1"), 0)


async def test_what_was_never_started_is_stopped_without_a_word() -> None:
    log = KafkaBackend(KafkaBackendSettings(bootstrap_servers="nobody:1"))
    await log.producer().stop()
    await log.consumer("g", ["t"], Ear()).stop()

    assert await log.last("t", []) == {}


async def test_a_client_that_does_not_stop_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    from streams.backends import kafka

    class Stuck:
        async def stop(self) -> None:
            await asyncio.get_running_loop().create_future()

    stop: Callable[..., Any] = kafka._stop
    await stop(Stuck(), 0.01)

    assert "did not stop within 0.01 s" in caplog.text


async def test_a_client_that_breaks_off_while_it_stops_takes_nobody_along(caplog: pytest.LogCaptureFixture) -> None:
    """aiokafka may let a cancellation of its inside out of its stop."""
    from streams.backends import kafka

    class Broken:
        async def stop(self) -> None:
            raise asyncio.CancelledError

    stop: Callable[..., Any] = kafka._stop
    await stop(Broken(), 5.0)

    assert "broke off" in caplog.text


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
