"""Compares the topics of a cluster with those that are required: missing ones are made, wrong ones refused.

Wrong are a number of partitions, a cleanup policy or a replication that differ: the first two break what RentStream
guarantees (one org on one partition; tables that keep their rows), and a correction is the operator's decision. Other
settings that differ are noted, since an operator may have chosen them. No topic is altered: aiokafka could do so only
by resetting every setting that is not named.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from schemas.topics import TopicSpec

_CLEANUP = "cleanup.policy"
_VISIBLE_WITHIN = 60.0
_LOOK_EVERY = 0.05
_EXISTS, _TOO_FEW_BROKERS, _NOT_ALLOWED = 36, 38, (29, 31)


class TopicError(Exception):
    """Topics cannot be read or made, or are wrong; one sentence a line, each with what to do."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic, wanted or found, under its full name."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """How the cluster differs from what is wanted."""

    missing: tuple[Topic, ...]
    wrong: tuple[str, ...]
    """One sentence each: with any of them no topic is made and no process may start."""
    notes: tuple[str, ...]
    """One sentence each: settings that differ."""


def wanted(spec: TopicSpec, *, prefix: str, partitions: int, replication: int) -> Topic:
    """Return the topic that ``spec`` requires."""
    config = {_CLEANUP: spec.cleanup, "max.message.bytes": str(spec.max_message_bytes)}
    if spec.retention_ms is not None:
        config["retention.ms"] = str(spec.retention_ms)
    elif spec.cleanup == "delete":
        config["retention.ms"] = "-1"
    if replication > 2:
        # An acknowledgement has to mean more than one copy, and one broker down must not stop the writers.
        config["min.insync.replicas"] = str(replication - 1)
    return Topic(prefix + spec.name, partitions, replication, config | dict(spec.extra))


def plan(topics: Iterable[Topic], found: Mapping[str, Topic]) -> Plan:
    """Compare the topics that are required with those that exist."""
    missing: list[Topic] = []
    wrong: list[str] = []
    notes: list[str] = []
    for topic in topics:
        there = found.get(topic.name)
        if there is None:
            missing.append(topic)
        else:
            wrong += _wrong(topic, there)
            notes += _notes(topic, there)
    return Plan(tuple(missing), tuple(wrong), tuple(notes))


def _wrong(topic: Topic, there: Topic) -> Iterable[str]:
    if there.partitions != topic.partitions:
        yield (
            f"{topic.name} has {there.partitions} partitions instead of {topic.partitions}: set RENTSTREAM_PARTITIONS "
            "to the number that the topics were made with, or choose a new RENTSTREAM_TOPIC_PREFIX."
        )
    if there.replication != topic.replication:
        yield (
            f"{topic.name} has {there.replication} replicas instead of {topic.replication}: set "
            f"KAFKA_REPLICATION_FACTOR={there.replication}, or reassign its partitions with Kafka's own tools."
        )
    if _policies(there) != _policies(topic):
        yield (
            f"{topic.name} has the cleanup policy {there.config.get(_CLEANUP)} instead of {topic.config[_CLEANUP]}: "
            "set that with Kafka's own tools, or choose a new RENTSTREAM_TOPIC_PREFIX."
        )


def _policies(topic: Topic) -> set[str]:
    return {policy.strip() for policy in topic.config.get(_CLEANUP, "").split(",")}


def _notes(topic: Topic, there: Topic) -> Iterable[str]:
    for name, value in topic.config.items():
        if name != _CLEANUP and there.config.get(name) != value:
            yield f"{topic.name} has {name}={there.config.get(name)}; RentStream would have made it {value}."


class TopicAdmin:
    """The topics of one cluster under one prefix; ``security`` is what aiokafka's clients need beside the servers."""

    def __init__(
        self,
        servers: str,
        *,
        prefix: str,
        partitions: int,
        replication: int = 1,
        security: Mapping[str, Any] | None = None,
    ) -> None:
        self._servers = servers
        self._prefix = prefix
        self._partitions = partitions
        self._replication = replication
        self._security = dict(security or {})
        self._client: Any = None

    async def __aenter__(self) -> Self:
        self._client = AIOKafkaAdminClient(bootstrap_servers=self._servers, **self._security)
        try:
            await self._client.start()
        except KafkaError as error:
            await self._client.close()
            raise self._unreachable(error) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def plan(self, specs: Iterable[TopicSpec]) -> Plan:
        """Compare and change nothing."""
        topics = self._wanted(specs)
        return plan(topics, await self._found({topic.name for topic in topics}))

    async def unusable(self, specs: Iterable[TopicSpec]) -> tuple[str, ...]:
        """Return why a process that uses the topics cannot start; needs no right but to use them."""
        topics = self._wanted(specs)
        there = {topic["topic"]: len(topic["partitions"]) for topic in await self._listed()}
        wrong = tuple(
            f"{topic.name} has {there[topic.name]} partitions instead of {topic.partitions}: "
            "set RENTSTREAM_PARTITIONS to the number that the topics were made with."
            for topic in topics
            if there.get(topic.name, topic.partitions) != topic.partitions
        )
        missing = [topic.name for topic in topics if topic.name not in there]
        if missing:
            names = missing[0] if len(missing) == 1 else f"{missing[0]} and {len(missing) - 1} more topics"
            wrong += (f"missing: {names}; make them with `rentstream topics --apply`.",)
        return wrong

    async def apply(self, specs: Iterable[TopicSpec]) -> Plan:
        """Make what is missing, wait until every partition has a leader, and return the differences found before.

        Raise `TopicError`, with no topic made, if any is wrong. Several processes may apply at once.
        """
        topics = self._wanted(specs)
        before = plan(topics, await self._found({topic.name for topic in topics}))
        _refuse(before)
        if before.missing:
            await self._make(before.missing)
        await self._led({topic.name: topic.partitions for topic in topics})
        if before.missing:  # another process may have made one of them differently
            _refuse(plan(topics, await self._found({topic.name for topic in topics})))
        return before

    def _wanted(self, specs: Iterable[TopicSpec]) -> list[Topic]:
        return [
            wanted(spec, prefix=self._prefix, partitions=self._partitions, replication=self._replication)
            for spec in specs
        ]

    async def _listed(self) -> list[dict[str, Any]]:
        """Return every topic of the cluster; a request for one by name would make it where auto-creation is on."""
        try:
            listed: list[dict[str, Any]] = await self._client.describe_topics()
        except KafkaError as error:
            raise self._unreachable(error) from error
        return listed

    async def _found(self, names: set[str]) -> dict[str, Topic]:
        there = {topic["topic"]: topic["partitions"] for topic in await self._listed() if topic["topic"] in names}
        configs = await self._configs(list(there))
        return {
            # Every partition of a topic has the same number of replicas, except during a reassignment.
            name: Topic(name, len(partitions), min(len(one["replicas"]) for one in partitions), configs.get(name, {}))
            for name, partitions in there.items()
            if partitions
        }

    async def _configs(self, names: list[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        try:
            answers = await self._client.describe_configs(resources)
        except KafkaError as error:
            raise self._unreachable(error) from error
        configs: dict[str, dict[str, str]] = {}
        for answer in answers:
            for code, message, _, name, entries in answer.resources:
                if code:
                    raise TopicError(_why(code, message, name))
                configs[name] = {entry[0]: entry[1] for entry in entries}
        return configs

    async def _make(self, missing: tuple[Topic, ...]) -> None:
        try:
            answer = await self._client.create_topics(
                [
                    NewTopic(topic.name, topic.partitions, topic.replication, topic_configs=dict(topic.config))
                    for topic in missing
                ]
            )
        except KafkaError as error:
            raise self._unreachable(error) from error
        refused = [
            _why(code, rest[0] if rest else None, name)
            for name, code, *rest in answer.topic_errors
            if code not in (0, _EXISTS)
        ]
        if refused:
            raise TopicError("\n".join(refused))

    async def _led(self, sizes: Mapping[str, int]) -> None:
        """Wait until every partition of ``sizes`` has a leader: a producer that comes earlier would fail or hang."""
        patience = time.monotonic() + _VISIBLE_WITHIN
        while True:
            led = {
                topic["topic"]: sum(one["leader"] >= 0 for one in topic["partitions"]) for topic in await self._listed()
            }
            waiting = [name for name, size in sizes.items() if led.get(name, 0) < size]
            if not waiting:
                return
            if time.monotonic() > patience:
                raise TopicError(
                    f"{waiting[0]} has partitions without a leader after {_VISIBLE_WITHIN:.0f} s: "
                    "look whether all brokers of the cluster are up."
                )
            await asyncio.sleep(_LOOK_EVERY)

    def _unreachable(self, error: KafkaError) -> TopicError:
        return TopicError(
            f"Kafka does not answer on {self._servers} ({type(error).__name__}): "
            "look whether it is up, and at KAFKA_BOOTSTRAP_SERVERS and the other KAFKA_ settings."
        )


def _refuse(differences: Plan) -> None:
    if differences.wrong:
        raise TopicError("\n".join(differences.wrong))


def _why(code: int, message: str | None, name: str) -> str:
    if code == _TOO_FEW_BROKERS:
        return f"{name} cannot be made ({message}): set KAFKA_REPLICATION_FACTOR to at most the number of brokers."
    if code in _NOT_ALLOWED:
        return (
            f"This user may not see or make {name}: give it Create, Describe and DescribeConfigs on the topics of "
            "RENTSTREAM_TOPIC_PREFIX, or let somebody who may run `rentstream topics --apply`."
        )
    return f"{name} is refused by Kafka ({message or for_code(code).__name__}): see the log of its brokers."
