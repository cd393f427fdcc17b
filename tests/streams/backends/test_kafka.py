"""The backend on Kafka obeys the laws of every backend."""

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.backends.kafka import KafkaBackend, KafkaBackendSettings
from streams.backends.ports import Backend, BackendError
from tests.streams.backends.backend_suite import PARTITIONS, Ear, LogSuite, out

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


class TestKafkaLog(LogSuite):
    @pytest.fixture
    def log(self, kafka: str, topic_prefix: str) -> Backend:
        return KafkaBackend(KafkaBackendSettings(bootstrap_servers=kafka, prefix=topic_prefix))


async def test_a_cluster_that_does_not_answer_is_an_error_of_one_sentence() -> None:
    log = KafkaBackend(KafkaBackendSettings(bootstrap_servers="127.0.0.1:9"))

    with pytest.raises(BackendError, match="the producer cannot start"):
        await log.producer().start()
    with pytest.raises(BackendError, match="group g cannot start"):
        await log.consumer("g", ["t"], Ear()).start()
    with pytest.raises(BackendError, match="t cannot be read"):
        await log.reader(["t"]).start()
    with pytest.raises(BackendError, match="the end of t cannot be read"):
        await log.last("t", [0])


async def test_what_a_listener_raises_ends_the_fetching(kafka: str, topic_prefix: str, topics: list[str]) -> None:
    class Broken(Ear):
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


async def test_a_topic_that_is_not_there_is_an_error(kafka: str, topic_prefix: str) -> None:
    producer = KafkaBackend(
        KafkaBackendSettings(bootstrap_servers=kafka, prefix=topic_prefix, request_timeout=1)
    ).producer()
    await producer.start()
    try:
        with pytest.raises(BackendError, match="could not be written"):
            await producer.send(out("nowhere", b"v"))
    finally:
        await producer.stop()


async def test_a_topic_that_is_not_there_cannot_be_read(kafka: str, topic_prefix: str) -> None:
    log = KafkaBackend(KafkaBackendSettings(bootstrap_servers=kafka, prefix=topic_prefix, request_timeout=1))

    with pytest.raises(BackendError, match="nowhere cannot be read"):
        await log.reader(["nowhere"]).start()
