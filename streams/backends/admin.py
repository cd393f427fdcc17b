"""Administration of topics: compares those of a cluster with the required ones, and creates missing ones.

A different number of partitions, cleanup policy or replication factor is an error: the first two break guarantees of
RentStream (one org on one partition; tables that keep their rows), and the correction is left to the operator. Other
differences are reported only, because an operator may have chosen them. No topic is altered, because aiokafka would
reset every setting that a request does not contain.
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
from streams.backends.deadlines import stop_client

_CLEANUP = "cleanup.policy"
_VISIBLE_WITHIN = 60.0
_LOOK_EVERY = 0.05
_EXISTS, _TOO_FEW_BROKERS, _NOT_ALLOWED = 36, 38, (29, 31)


class TopicError(Exception):
    """Topics cannot be read or created, or have wrong settings; each line is a sentence that states what to do."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A required or an existing topic, with its full name."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """The differences between the required and the existing topics."""

    missing: tuple[Topic, ...]
    wrong: tuple[str, ...]
    """Errors, one sentence each; with an error no topic is created and no process may start."""
    notes: tuple[str, ...]
    """Settings that differ without being an error, one sentence each."""


def wanted(spec: TopicSpec, *, prefix: str, partitions: int, replication: int) -> Topic:
    """Return the topic that ``spec`` requires."""
    config = {_CLEANUP: spec.cleanup, "max.message.bytes": str(spec.max_message_bytes)}
    if spec.retention_ms is not None:
        config["retention.ms"] = str(spec.retention_ms)
    elif spec.cleanup == "delete":
        config["retention.ms"] = "-1"
    if replication > 2:
        # A record is acknowledged after two replicas have it, and producers can continue while one broker is down.
        config["min.insync.replicas"] = str(replication - 1)
    return Topic(prefix + spec.name, partitions, replication, config | dict(spec.extra))


def plan(topics: Iterable[Topic], found: Mapping[str, Topic]) -> Plan:
    """Compare the required topics with the existing ones."""
    missing: list[Topic] = []
    wrong: list[str] = []
    notes: list[str] = []
    for topic in topics:
        existing = found.get(topic.name)
        if existing is None:
            missing.append(topic)
        else:
            wrong += _wrong(topic, existing)
            notes += _notes(topic, existing)
    return Plan(tuple(missing), tuple(wrong), tuple(notes))


def _wrong(topic: Topic, existing: Topic) -> Iterable[str]:
    if existing.partitions != topic.partitions:
        yield (
            f"{topic.name} has {existing.partitions} partitions instead of {topic.partitions}: set "
            "RENTSTREAM_PARTITIONS to the number that the topics were created with, or choose a new "
            "RENTSTREAM_TOPIC_PREFIX."
        )
    if existing.replication != topic.replication:
        yield (
            f"{topic.name} has {existing.replication} replicas instead of {topic.replication}: set "
            f"KAFKA_REPLICATION_FACTOR={existing.replication}, or reassign its partitions with Kafka's own tools."
        )
    if _policies(existing) != _policies(topic):
        yield (
            f"{topic.name} has the cleanup policy {existing.config.get(_CLEANUP)} instead of {topic.config[_CLEANUP]}: "
            "set that with Kafka's own tools, or choose a new RENTSTREAM_TOPIC_PREFIX."
        )


def _policies(topic: Topic) -> set[str]:
    return {policy.strip() for policy in topic.config.get(_CLEANUP, "").split(",")}


def _notes(topic: Topic, existing: Topic) -> Iterable[str]:
    for name, value in topic.config.items():
        if name != _CLEANUP and existing.config.get(name) != value:
            yield f"{topic.name} has {name}={existing.config.get(name)}; RentStream would set {value}."


class TopicAdmin:
    """The topics of one cluster under one prefix; ``security`` has aiokafka's options for TLS and SASL."""

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
            await stop_client(self._client)
            raise self._unreachable(error) from error
        except BaseException:
            await stop_client(self._client)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await stop_client(self._client)

    async def plan(self, specs: Iterable[TopicSpec]) -> Plan:
        """Compare the topics without changing any."""
        topics = self._wanted(specs)
        return plan(topics, await self._found({topic.name for topic in topics}))

    async def unusable(self, specs: Iterable[TopicSpec]) -> tuple[str, ...]:
        """Return the reasons why a process cannot use the topics; it needs no permissions except to use them."""
        topics = self._wanted(specs)
        existing = {topic["topic"]: len(topic["partitions"]) for topic in await self._listed()}
        wrong = tuple(
            f"{topic.name} has {existing[topic.name]} partitions instead of {topic.partitions}: "
            "set RENTSTREAM_PARTITIONS to the number that the topics were created with."
            for topic in topics
            if existing.get(topic.name, topic.partitions) != topic.partitions
        )
        missing = [topic.name for topic in topics if topic.name not in existing]
        if missing:
            names = missing[0] if len(missing) == 1 else f"{missing[0]} and {len(missing) - 1} more topics"
            wrong += (f"missing: {names}; create them with `rentstream topics --apply`.",)
        return wrong

    async def apply(self, specs: Iterable[TopicSpec]) -> Plan:
        """Create missing topics, wait until every partition has a leader, and return the differences found before.

        Raise `TopicError` without creating a topic if one is wrong. Several processes may call it at once.
        """
        topics = self._wanted(specs)
        before = plan(topics, await self._found({topic.name for topic in topics}))
        _refuse(before)
        if before.missing:
            await self._create(before.missing)
        await self._led({topic.name: topic.partitions for topic in topics})
        if before.missing:  # another process may have created one of them with other settings
            _refuse(plan(topics, await self._found({topic.name for topic in topics})))
        return before

    def _wanted(self, specs: Iterable[TopicSpec]) -> list[Topic]:
        return [
            wanted(spec, prefix=self._prefix, partitions=self._partitions, replication=self._replication)
            for spec in specs
        ]

    async def _listed(self) -> list[dict[str, Any]]:
        """Return every topic of the cluster; a request by name would create the topic if auto-creation is enabled."""
        try:
            listed: list[dict[str, Any]] = await self._client.describe_topics()
        except KafkaError as error:
            raise self._unreachable(error) from error
        return listed

    async def _found(self, names: set[str]) -> dict[str, Topic]:
        existing = {topic["topic"]: topic["partitions"] for topic in await self._listed() if topic["topic"] in names}
        configs = await self._configs(list(existing))
        return {
            # Every partition of a topic has the same number of replicas, except during a reassignment.
            name: Topic(name, len(partitions), min(len(one["replicas"]) for one in partitions), configs.get(name, {}))
            for name, partitions in existing.items()
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

    async def _create(self, missing: tuple[Topic, ...]) -> None:
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
        """Wait until every partition of ``sizes`` has a leader; a producer would fail or block before that."""
        deadline = time.monotonic() + _VISIBLE_WITHIN
        while True:
            led = {
                topic["topic"]: sum(one["leader"] >= 0 for one in topic["partitions"]) for topic in await self._listed()
            }
            waiting = [name for name, size in sizes.items() if led.get(name, 0) < size]
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise TopicError(
                    f"{waiting[0]} has partitions without a leader after {_VISIBLE_WITHIN:.0f} s: "
                    "check that all brokers of the cluster are running."
                )
            await asyncio.sleep(_LOOK_EVERY)

    def _unreachable(self, error: KafkaError) -> TopicError:
        return TopicError(
            f"Kafka does not answer on {self._servers} ({type(error).__name__}): "
            "check that it is running, and KAFKA_BOOTSTRAP_SERVERS and the other KAFKA_ settings."
        )


def _refuse(differences: Plan) -> None:
    if differences.wrong:
        raise TopicError("\n".join(differences.wrong))


def _why(code: int, message: str | None, name: str) -> str:
    if code == _TOO_FEW_BROKERS:
        return f"{name} cannot be created ({message}): set KAFKA_REPLICATION_FACTOR to at most the number of brokers."
    if code in _NOT_ALLOWED:
        return (
            f"This user may not describe or create {name}: grant it Create, Describe and DescribeConfigs on the topics "
            "of RENTSTREAM_TOPIC_PREFIX, or run `rentstream topics --apply` as a user with these permissions."
        )
    return f"{name} is refused by Kafka ({message or for_code(code).__name__}): see the log of its brokers."
