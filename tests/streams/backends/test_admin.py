"""Tests of the administration of topics: creation, errors and differences."""

import asyncio
from dataclasses import replace

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.topics import DAY_MS, TopicSpec, changelog
from streams.backends.admin import Plan, Topic, TopicAdmin, TopicError, plan, wanted

ONE = Topic("p.one", 3, 1, {"cleanup.policy": "delete", "retention.ms": "1000"})


def found(*topics: Topic) -> dict[str, Topic]:
    return {topic.name: topic for topic in topics}


def test_the_settings_of_a_required_topic() -> None:
    """A topic without a retention time keeps records forever; with three replicas two have to acknowledge."""
    spec = TopicSpec("one", "something", retention_ms=DAY_MS, max_message_bytes=9)
    assert wanted(spec, prefix="p.", partitions=3, replication=1) == Topic(
        "p.one", 3, 1, {"cleanup.policy": "delete", "max.message.bytes": "9", "retention.ms": str(DAY_MS)}
    )
    assert (
        wanted(replace(spec, retention_ms=None), prefix="", partitions=3, replication=1).config["retention.ms"] == "-1"
    )
    table = wanted(changelog("app", "rolls"), prefix="p.", partitions=3, replication=3)
    assert table.name == "p.app-rolls-changelog"
    assert table.config["cleanup.policy"] == "compact"
    assert "retention.ms" not in table.config
    assert table.config["min.insync.replicas"] == "2"
    assert table.config["segment.ms"] == changelog("app", "rolls").extra["segment.ms"]


@pytest.mark.parametrize(
    ("existing", "expected"),
    [
        (found(), Plan((ONE,), (), ())),
        (found(ONE), Plan((), (), ())),
        (found(ONE, Topic("another", 1, 1)), Plan((), (), ())),
        (
            found(replace(ONE, config={**ONE.config, "retention.ms": "7", "segment.ms": "5"})),
            Plan((), (), ("p.one has retention.ms=7; RentStream would set 1000.",)),
        ),
    ],
    ids=["missing", "the same", "a topic without the prefix", "drift"],
)
def test_a_plan_has_the_differences(existing: dict[str, Topic], expected: Plan) -> None:
    """The plan has missing topics, errors and notes."""
    assert plan([ONE], existing) == expected


@pytest.mark.parametrize(
    ("existing", "expected"),
    [
        (replace(ONE, partitions=4), ["has 4 partitions instead of 3: set RENTSTREAM_PARTITIONS"]),
        (replace(ONE, replication=3), ["has 3 replicas instead of 1: set KAFKA_REPLICATION_FACTOR=3"]),
        (
            replace(ONE, config={**ONE.config, "cleanup.policy": "compact,delete"}),
            ["has the cleanup policy compact,delete instead of delete"],
        ),
        (replace(ONE, partitions=4, replication=3), ["4 partitions", "3 replicas"]),
    ],
)
def test_each_error_of_a_plan_is_one_sentence(existing: Topic, expected: list[str]) -> None:
    """Each sentence states what to do."""
    planned = plan([ONE], found(existing))
    assert not planned.missing
    assert len(planned.wrong) == len(expected)
    for sentence, part in zip(planned.wrong, expected, strict=True):
        assert sentence.startswith("p.one has ")
        assert part in sentence


def test_the_order_of_cleanup_policies_is_ignored() -> None:
    """Kafka returns the policies in the order in which they were set."""
    both = replace(ONE, config={"cleanup.policy": "compact,delete"})
    assert plan([both], found(replace(both, config={"cleanup.policy": "delete, compact"}))) == Plan((), (), ())


SPECS = (TopicSpec("one", "something", retention_ms=DAY_MS), changelog("app", "rolls"))


@pytest.mark.broker
async def test_apply_creates_missing_topics(kafka: str, topic_prefix: str) -> None:
    """New topics accept records in every partition at once, and a second call changes nothing."""
    async with TopicAdmin(kafka, prefix=topic_prefix, partitions=12) as admin:
        assert len((await admin.plan(SPECS)).missing) == 2
        made = await admin.apply(SPECS)
        assert [topic.name for topic in made.missing] == [topic_prefix + "one", topic_prefix + "app-rolls-changelog"]
        async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
            for partition in range(12):
                await producer.send_and_wait(topic_prefix + "one", b"", partition=partition)
        assert await admin.plan(SPECS) == Plan((), (), ())
        assert await admin.apply(SPECS) == Plan((), (), ())


@pytest.mark.broker
async def test_several_processes_may_apply_at_once(kafka: str, topic_prefix: str) -> None:
    """Every replica of a deployment may apply at its start."""

    async def one() -> None:
        async with TopicAdmin(kafka, prefix=topic_prefix, partitions=2) as admin:
            await admin.apply(SPECS)

    await asyncio.gather(*(one() for _ in range(4)))


@pytest.mark.broker
async def test_apply_creates_nothing_if_a_topic_is_wrong(kafka: str, topic_prefix: str) -> None:
    """No missing topic is created, and the wrong one is not altered."""
    client = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await client.start()
    try:
        await client.create_topics([NewTopic(topic_prefix + "one", 3, 1, topic_configs={"cleanup.policy": "compact"})])
        async with TopicAdmin(kafka, prefix=topic_prefix, partitions=12) as admin:
            with pytest.raises(TopicError) as refused:
                await admin.apply(SPECS)
            lines = str(refused.value).splitlines()
            assert len(lines) == 2
            assert "has 3 partitions instead of 12" in lines[0]
            assert "has the cleanup policy compact instead of delete" in lines[1]
            assert [topic.name for topic in (await admin.plan(SPECS)).missing] == [topic_prefix + "app-rolls-changelog"]
    finally:
        await client.close()


@pytest.mark.broker
async def test_a_replication_factor_above_the_number_of_brokers_is_an_error(kafka: str, topic_prefix: str) -> None:
    """The error states the setting."""
    async with TopicAdmin(kafka, prefix=topic_prefix, partitions=1, replication=9) as admin:
        with pytest.raises(TopicError, match="KAFKA_REPLICATION_FACTOR"):
            await admin.apply(SPECS)


async def test_an_unreachable_cluster_is_an_error() -> None:
    """The error has the address and the setting."""
    with pytest.raises(TopicError, match=r"Kafka does not answer on 127\.0\.0\.1:1 .*KAFKA_BOOTSTRAP_SERVERS"):
        async with TopicAdmin("127.0.0.1:1", prefix="", partitions=1):
            pass
