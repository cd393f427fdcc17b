"""Topics: the missing are made, the wrong are refused, what somebody chose is noted, nothing is altered."""

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


def test_what_a_spec_asks_for() -> None:
    """Only a topic that keeps for ever says so; copies make an acknowledgement mean more than one of them."""
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
    ("there", "expected"),
    [
        (found(), Plan((ONE,), (), ())),
        (found(ONE), Plan((), (), ())),
        (found(ONE, Topic("another", 1, 1)), Plan((), (), ())),
        (
            found(replace(ONE, config={**ONE.config, "retention.ms": "7", "segment.ms": "5"})),
            Plan((), (), ("p.one has retention.ms=7; RentStream would have made it 1000.",)),
        ),
    ],
    ids=["missing", "the same", "others are none of ours", "drift"],
)
def test_plan(there: dict[str, Topic], expected: Plan) -> None:
    """The plan names exactly what differs."""
    assert plan([ONE], there) == expected


@pytest.mark.parametrize(
    ("there", "says"),
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
def test_plan_of_wrong_topics(there: Topic, says: list[str]) -> None:
    """Each thing that is wrong is one sentence with what to do."""
    planned = plan([ONE], found(there))
    assert not planned.missing
    assert len(planned.wrong) == len(says)
    for sentence, part in zip(planned.wrong, says, strict=True):
        assert sentence.startswith("p.one has ")
        assert part in sentence


def test_the_order_of_policies_means_nothing() -> None:
    """Kafka gives them back as they were typed."""
    both = replace(ONE, config={"cleanup.policy": "compact,delete"})
    assert plan([both], found(replace(both, config={"cleanup.policy": "delete, compact"}))) == Plan((), (), ())


SPECS = (TopicSpec("one", "something", retention_ms=DAY_MS), changelog("app", "rolls"))


@pytest.mark.broker
async def test_apply_makes_what_is_missing(kafka: str, topic_prefix: str) -> None:
    """Once made they are as wanted, every partition takes records at once, and a second time nothing happens."""
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
async def test_apply_by_several_at_once(kafka: str, topic_prefix: str) -> None:
    """Every replica of a deployment may do it at its start."""

    async def one() -> None:
        async with TopicAdmin(kafka, prefix=topic_prefix, partitions=2) as admin:
            await admin.apply(SPECS)

    await asyncio.gather(*(one() for _ in range(4)))


@pytest.mark.broker
async def test_apply_refuses_and_makes_nothing(kafka: str, topic_prefix: str) -> None:
    """With one topic wrong no other is made, and the wrong one stays as it is."""
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
async def test_more_copies_than_brokers(kafka: str, topic_prefix: str) -> None:
    """The sentence names the setting."""
    async with TopicAdmin(kafka, prefix=topic_prefix, partitions=1, replication=9) as admin:
        with pytest.raises(TopicError, match="KAFKA_REPLICATION_FACTOR"):
            await admin.apply(SPECS)


async def test_no_kafka() -> None:
    """An address where nobody listens is one sentence."""
    with pytest.raises(TopicError, match=r"Kafka does not answer on 127\.0\.0\.1:1 .*KAFKA_BOOTSTRAP_SERVERS"):
        async with TopicAdmin("127.0.0.1:1", prefix="", partitions=1):
            pass
