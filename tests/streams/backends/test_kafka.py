"""Tests of the backend on Kafka: the contract suite, and errors of the cluster."""

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.backends.kafka import KafkaBackend, KafkaBackendSettings
from streams.backends.ports import Backend, BackendError
from tests.streams.backends.backend_suite import PARTITIONS, BackendSuite, RecordingListener, out

pytestmark = pytest.mark.broker


async def make_topics(servers: str, names: list[str], partitions: int = PARTITIONS) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_topics(
            [NewTopic(name, partitions, 1, topic_configs={"max.message.bytes": str(8 << 20)}) for name in names]
        )
    finally:
        await admin.close()


@pytest.fixture
async def topics(kafka: str, topic_prefix: str) -> list[str]:
    names = ["one", "two"]
    await make_topics(kafka, [topic_prefix + name for name in names])
    return names


class TestKafkaBackend(BackendSuite):
    @pytest.fixture
    def backend(self, kafka: str, topic_prefix: str) -> Backend:
        return KafkaBackend(KafkaBackendSettings(bootstrap_servers=kafka, prefix=topic_prefix))


async def test_an_unreachable_cluster_is_an_error() -> None:
    backend = KafkaBackend(KafkaBackendSettings(bootstrap_servers="127.0.0.1:9"))

    with pytest.raises(BackendError, match="the producer cannot start"):
        await backend.producer().start()
    with pytest.raises(BackendError, match="group g cannot start"):
        await backend.consumer("g", ["t"], RecordingListener()).start()
    with pytest.raises(BackendError, match="t cannot be read"):
        await backend.reader(["t"]).start()
    with pytest.raises(BackendError, match="the end of t cannot be read"):
        await backend.last("t", [0])


async def test_an_exception_of_a_listener_ends_the_fetch(kafka: str, topic_prefix: str, topics: list[str]) -> None:
    class Broken(RecordingListener):
        async def assigned(self, partitions: object) -> None:
            raise RuntimeError("broken")

    consumer = KafkaBackend(KafkaBackendSettings(bootstrap_servers=kafka, prefix=topic_prefix)).consumer(
        "g", topics, Broken()
    )
    await consumer.start()
    try:
        with pytest.raises(RuntimeError, match="broken"):
            await consumer.fetch(1)
    finally:
        await consumer.stop()


async def test_consuming_a_missing_topic_is_an_error(kafka: str, topic_prefix: str) -> None:
    producer = KafkaBackend(
        KafkaBackendSettings(bootstrap_servers=kafka, prefix=topic_prefix, request_timeout=1)
    ).producer()
    await producer.start()
    try:
        with pytest.raises(BackendError, match="nowhere does not exist: create it with `rentstream topics --apply`"):
            await producer.send(out("nowhere", b"v"))
    finally:
        await producer.stop()


async def test_reading_a_missing_topic_is_an_error(kafka: str, topic_prefix: str) -> None:
    backend = KafkaBackend(KafkaBackendSettings(bootstrap_servers=kafka, prefix=topic_prefix, request_timeout=1))

    with pytest.raises(BackendError, match="nowhere cannot be read"):
        await backend.reader(["nowhere"]).start()
