"""The words between a pure step and the shell that runs it: what comes in, what a step may see, what goes out.

One org, one home (every topic has the same partitions and the org as key), so a step never names a partition: what it
emits goes to the partition that it came from.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from schemas.base import Model
from schemas.codec import encode
from schemas.topics import TopicSpec

Headers = tuple[tuple[str, bytes], ...]
"""Kafka record headers, in order."""


class Record(Protocol):
    """One record as it came off a topic; aiokafka's ``ConsumerRecord`` is one as it stands."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Milliseconds since the epoch, as the topic keeps them."""
        ...

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


@dataclass(frozen=True, slots=True)
class ProducerRecord:
    """A record to be written to ``topic``, in the partition of the record that caused it (else that of its key).

    Runners and backends make it, of an `Emit` or of the bytes of a record that is parked or given up.
    """

    topic: str
    key: bytes
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Emit:
    """A record to be written, not yet encoded: all that a flow returns.

    Of two that one batch of a fold emits for the same org with the same ``once`` only the first is written.
    """

    topic: TopicSpec
    org: str
    record: Model
    once: Hashable = None
    headers: Headers = ()


def encoded(emit: Emit, prefix: str = "") -> ProducerRecord:
    """Return the record to be written, with ``prefix`` before the name of its topic."""
    topic, record = emit.topic, emit.record
    return ProducerRecord(prefix + topic.name, topic.key_of(record), encode(record), emit.headers)


class View(Protocol):
    """What a step may read of a table: the rows of the partition that it works on, as bytes."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every row whose key begins with ``prefix``, in the order of the keys."""
        ...


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """What one fetch brought of one partition of one topic, in the order of its offsets; never empty."""

    topic: str
    partition: int
    records: Sequence[Record]


@dataclass(slots=True)
class Step:
    """What follows from a batch: rows to write (``None`` deletes) and records to emit.

    The shell makes it durable in this order: changelog, store, effects, ack.
    """

    rows: Mapping[bytes, bytes | None] = field(default_factory=dict)
    effects: Sequence[ProducerRecord] = ()


class Disposition(StrEnum):
    """How a record ended in a fold; in a call it may also be parked (`streams.core.retry`)."""

    APPLIED = "applied"
    IGNORED = "ignored"
    DUPLICATE = "duplicate"


@dataclass(slots=True)
class FoldResult:
    """What a fold's pure step decided of one record."""

    verdict: Disposition
    emits: list[Emit] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """Facts for the metrics, by a name that the flow knows (``missed``, ``held_back``)."""
