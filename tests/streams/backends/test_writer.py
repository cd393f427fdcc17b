"""Writing batches: packing, retries and acknowledgement, with a fake client."""

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    UnknownTopicOrPartitionError,
)

from streams.backends.ports import MAX_RECORD_BYTES, BackendError, TooLarge
from streams.backends.writer import DEFAULTS, BatchWriter
from tests.streams.backends.fake_client import Cluster, entries, writer


async def test_a_producer_is_idempotent_and_waits_for_all_replicas() -> None:
    """A caller may add its own options to the defaults."""
    cluster = Cluster()
    await writer(cluster)

    assert cluster.options == [{**DEFAULTS, "bootstrap_servers": "b:1"}]
    assert (DEFAULTS["acks"], DEFAULTS["enable_idempotence"], DEFAULTS["compression_type"]) == ("all", True, "lz4")


async def test_records_are_packed_into_as_few_batches_as_possible() -> None:
    """The offset returned is that of the last record."""
    cluster = Cluster()
    offset = await (await writer(cluster)).append("t", 2, entries(*[bytes(1000)] * 1000))

    assert [place[:2] for place in cluster.written] == [("t", 2)] * 2
    assert cluster.records == 1000
    assert offset == 100 + cluster.written[1][2] - 1


async def test_no_records_are_packed_into_no_batch() -> None:
    """Nothing is written, and no offset is returned."""
    cluster = Cluster()

    assert await (await writer(cluster)).append("t", 0, []) is None
    assert cluster.written == []


async def test_a_record_that_is_too_large_stops_the_whole_call() -> None:
    """The records before it are not written either."""
    cluster = Cluster()
    made = await writer(cluster)
    with pytest.raises(TooLarge, match=f"a record of {MAX_RECORD_BYTES + 1} bytes for t is over {MAX_RECORD_BYTES}"):
        await made.append("t", 0, entries(b"small", bytes(600_000), bytes(MAX_RECORD_BYTES)))

    assert cluster.written == []
    await made.append("t", 0, entries(bytes(MAX_RECORD_BYTES - 1)))
    assert cluster.records == 1


async def test_a_broker_that_does_not_accept_a_batch_yet_is_retried() -> None:
    """The batch was not accepted, so a retry cannot duplicate it."""
    cluster = Cluster()
    cluster.refused = [KafkaTimeoutError(), KafkaTimeoutError()]
    await (await writer(cluster)).append("t", 0, entries(b"1", b"2"))

    assert cluster.written == [("t", 0, 2)]


@pytest.mark.parametrize(
    ("error", "message"),
    [(MessageSizeTooLargeError(), "max.message.bytes is too low"), (KafkaError("no"), "t could not be written")],
)
async def test_a_write_that_fails_is_an_error_of_the_backend(error: KafkaError, message: str) -> None:
    """The broker may refuse the batch at once or report the error later."""
    cluster = Cluster()
    made = await writer(cluster)
    cluster.failed = [error]
    with pytest.raises(BackendError, match=message):
        await made.append("t", 0, entries(b"1"))
    cluster.refused = [error]
    with pytest.raises(BackendError, match=message):
        await made.append("t", 0, entries(b"1"))
    cluster.refused = [UnknownTopicOrPartitionError()]
    with pytest.raises(BackendError, match="t does not exist: create it"):
        await made.partitions("t")


async def test_a_start_that_fails_leaves_nothing_open() -> None:
    """An error of Kafka becomes a `BackendError`, others are raised as they are; the client is stopped."""
    for error, raised in ((KafkaConnectionError("no broker"), BackendError), (OSError("no name"), OSError)):
        cluster = Cluster()
        cluster.refused_starts = [error]
        with pytest.raises(raised, match="no"):
            await writer(cluster)

        assert cluster.stopped == 1


async def test_a_writer_that_is_not_started_or_is_stopped_refuses_to_write() -> None:
    """A record cannot get lost in a stopped client."""
    cluster = Cluster()
    made = await writer(cluster)
    await made.stop()
    await made.stop()
    for one in (made, BatchWriter({}, make=cluster.client)):
        with pytest.raises(BackendError, match="not started, or is stopped"):
            await one.append("t", 0, entries(b"1"))
    assert cluster.stopped == 1
