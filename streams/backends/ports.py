"""The ports between the runners and a backend: Kafka, or its counterpart in memory; one contract suite tests both.

Names of topics and groups are without `RENTSTREAM_TOPIC_PREFIX` here; an implementation adds and removes it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from streams.core.flows import Headers, ProducerRecord, Record

MAX_RECORD_BYTES: Final = (8 << 20) - (64 << 10)
"""The most bytes of key and value of a record: the topics' ``max.message.bytes`` less space for headers, so that every
consumed record can be parked."""


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


NOWHERE: Final[Mapping[Partition, int]] = MappingProxyType({})
"""No positions: from the beginning."""


class ConsumedRecord(NamedTuple):
    """A `streams.core.flows.Record` as a named tuple, the cheapest immutable value."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class BackendError(Exception):
    """The backend cannot continue. A runner propagates it, and the process ends without further commits."""


class NotOwner(BackendError):  # noqa: N818 -- named after what the caller no longer is
    """The partitions were revoked; their new owner consumes uncommitted records again."""


class Fenced(BackendError):  # noqa: N818
    """Another process has taken the partition over, although this one was taken for its owner."""


class TooLarge(BackendError):  # noqa: N818
    """A record exceeds the size limit of its topic. No record of the call was written."""


def checked_size(topic: str, key: bytes, value: bytes | None) -> int:
    """Return the bytes of key and value. Raise `TooLarge` if the record does not fit into a topic."""
    size = len(key) + len(value or b"")
    if size > MAX_RECORD_BYTES:
        raise TooLarge(f"a record of {size} bytes for {topic} is over {MAX_RECORD_BYTES} bytes")
    return size


class NotDurable(Exception):  # noqa: N818 -- named after what the record is not
    """A record was not acknowledged in time. It may still be written; the caller has to send it again."""


class Ownership(Protocol):
    """Whether partitions are owned; `streams.backends.membership.Membership` derives it from the broker's answers."""

    @property
    def joined(self) -> bool:
        """Return false once they are given away; while it is true they may be unproven for some time."""
        ...

    @property
    def proven(self) -> bool:
        """Return whether the group cannot have given them away by now."""
        ...

    @property
    def generation(self) -> int:
        """Return a number that grows whenever they are given away."""
        ...

    def on_end(self, listener: Callable[[], None]) -> None:
        """Call ``listener``, in whatever thread, whenever they are given away."""
        ...


class Listener(Protocol):
    """Receives the rebalances of one consumer. Each revokes all partitions before it assigns any."""

    async def revoked(self, partitions: Collection[Partition]) -> None:
        """Commit for the last time: these partitions are revoked. The whole group waits until this returns."""
        ...

    async def assigned(self, partitions: Collection[Partition]) -> None:
        """Start with these partitions at their committed offsets. It must be fast: heartbeats wait for it."""
        ...


class Consumer(Protocol):
    """A member of a consumer group. Partition *i* of all of its topics is always with the same member."""

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Leave the group without a commit."""
        ...

    async def fetch(self, max_records: int) -> Mapping[Partition, Sequence[Record]]:
        """Wait for records of partitions that are not paused, and return them in the order of their offsets.

        It has to be called continuously to stay in the group. It may be cancelled without losing records.
        """
        ...

    def pause(self, partition: Partition) -> None:
        """Stop fetching a partition until it is resumed or assigned again; ignore one that is not assigned."""
        ...

    def resume(self, partition: Partition) -> None: ...

    def seek(self, partition: Partition, offset: int) -> None:
        """Continue fetching at this offset."""
        ...

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commit the offset after the last finished record of each partition. Raise `NotOwner`."""
        ...

    @property
    def assignment(self) -> frozenset[Partition]: ...

    @property
    def ownership(self) -> Ownership: ...


class Reader(Protocol):
    """Reads all partitions of some topics without a group: every process that has one sees every record."""

    async def start(self) -> None:
        """Connect. Raise `BackendError` if that fails or a topic is missing."""
        ...

    async def stop(self) -> None: ...

    async def fetch(self, max_records: int) -> Mapping[Partition, Sequence[Record]]:
        """Wait for records and return them in the order of their offsets; may return nothing after a while.

        It may be cancelled without losing records. Raise `BackendError` if reading cannot continue.
        """
        ...

    async def ends(self) -> Mapping[Partition, int]:
        """Return the end offset of each partition, as requested from the broker. Raise `BackendError`."""
        ...

    @property
    def positions(self) -> Mapping[Partition, int]:
        """Return the next offset to fetch of each partition."""
        ...


class Producer(Protocol):
    """Produces records."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def send(self, records: Sequence[ProducerRecord], partition: int | None = None) -> None:
        """Produce records in order for each topic and partition; return when all of them are durable.

        Without ``partition`` it is derived from the key. Raise `TooLarge` or `BackendError`.
        """
        ...


class Backend(Protocol):
    """Creates the consumers, readers and producers of one cluster."""

    def consumer(self, group: str, topics: Sequence[str], listener: Listener) -> Consumer: ...

    def producer(self, owner: Ownership | None = None) -> Producer:
        """Return a producer. With an ``owner`` it writes while the ownership is proven, and may raise `NotOwner`."""
        ...

    def reader(self, topics: Sequence[str], positions: Mapping[Partition, int] = NOWHERE) -> Reader:
        """Return a reader that starts at these positions; a partition without one starts at its beginning."""
        ...

    async def read(self, topic: str, partition: int, offsets: Sequence[int]) -> Mapping[int, Record]:
        """Return the records at some offsets, in rising order; without those that the topic has no more.

        Raise `BackendError`.
        """
        ...

    async def last(self, topic: str, partitions: Collection[int], count: int = 1) -> Mapping[int, Sequence[Record]]:
        """Return the last records of each partition, at most ``count``, in the order of their offsets."""
        ...
