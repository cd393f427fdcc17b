"""The interface between the pure step of a flow and its runner: input records, views of tables, and output.

All topics have the same partitions and the org as key, so a step never names a partition: the records that it emits
are written to the partition of its input.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Protocol

from schemas.base import Model
from schemas.codec import encode
from schemas.delivery import Doubt
from schemas.partitions import partition_for
from schemas.topics import TopicSpec

Headers = tuple[tuple[str, bytes], ...]
"""Kafka record headers, in order."""


class Record(Protocol):
    """A consumed record; aiokafka's ``ConsumerRecord`` satisfies this protocol."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Return the record's timestamp in milliseconds since the epoch."""
        ...

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


@dataclass(frozen=True, slots=True)
class ProducerRecord:
    """A record to produce to ``topic``, in the partition of the record that caused it, else in that of its key.

    Runners and backends create it from an `Emit`, or from the bytes of a parked record or a dead letter.
    """

    topic: str
    key: bytes
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Emit:
    """An output record of a flow, not encoded yet.

    Within one batch of a fold, one record with the same org and the same ``once`` is produced: the first one, or what
    ``merge`` makes of it and each further one.
    """

    topic: TopicSpec
    org: str
    record: Model
    once: Hashable = None
    headers: Headers = ()
    merge: Callable[[Any, Any], Model] | None = None


class Barrier(Enum):
    """What the step of a scan yields besides records."""

    DURABLE = "durable"
    """The step is resumed once everything that it emitted so far is durable; only then may it remember that."""


def encoded(emit: Emit, prefix: str = "") -> ProducerRecord:
    """Return the record to produce, with ``prefix`` before the name of its topic."""
    topic, record = emit.topic, emit.record
    return ProducerRecord(prefix + topic.name, topic.key_of(record), encode(record), emit.headers)


class Misplaced(Exception):  # noqa: N818 -- named after what it is about
    """A record that is on another partition than its org's: the rows of the org are not here."""


def check_place(org: str, record: Record, partitions: int) -> None:
    """Raise `Misplaced` if a record of an org is not on its partition, of so many."""
    right = partition_for(org, partitions)
    if right != record.partition:
        raise Misplaced(f"it is on partition {record.partition}, and its org's is {right}")


class View(Protocol):
    """Read access of a step to a table: the rows of the current partition, as bytes."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield every row whose key begins with ``prefix``, in the order of the keys."""
        ...


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """The records of one topic partition from one fetch, in the order of their offsets; never empty."""

    topic: str
    partition: int
    records: Sequence[Record]


@dataclass(slots=True)
class Step:
    """The result of a batch: rows to write (``None`` deletes) and records to produce.

    The engine makes it durable in this order: changelog, store, effects, ack.
    """

    rows: Mapping[bytes, bytes | None] = field(default_factory=dict)
    effects: Sequence[ProducerRecord] = ()
    waiting: int = 0
    """How many of the last records have to wait until others succeed; the step gets them again."""


class RowsDamaged(Exception):  # noqa: N818 -- named after what they are
    """Raised by a view whose rows cannot be read any more: the disk is at fault, and no record is."""

    def __init__(self, message: str, table: str = "", partition: int = -1) -> None:
        self.table = table
        self.partition = partition
        super().__init__(message)


class StopPartition(Exception):  # noqa: N818 -- named after what has to follow
    """Raised by the step of a batch that cannot be judged now: nothing after it may be processed before it is."""


class Disposition(StrEnum):
    """The result of a successful record; a call may also park it (`streams.core.retry`)."""

    APPLIED = "applied"
    IGNORED = "ignored"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class DoubtChange:
    """A doubt about the data of a PMS that appeared or ended."""

    org: str
    connection: str
    doubt: Doubt
    appeared: bool
    property_id: int | None = None
    """Null if the doubt is about the connection."""
    units: tuple[int, ...] = ()


@dataclass(slots=True)
class FoldResult:
    """The decision of a fold's pure step about one record."""

    verdict: Disposition
    emits: list[Emit] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """Counts for metrics, by names that the flow defines (``missed``, ``held_back``, ``closed``)."""
    doubts: tuple[DoubtChange, ...] = ()
    failed: tuple[tuple[Model, Exception], ...] = ()
    """Parts of the record that could not be folded, each with its error; the rest was. They become dead letters."""
