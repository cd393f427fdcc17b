"""The backend as the runners see it: Kafka, or the one in memory with the same laws (one contract suite for both).

Names of topics and groups stand here without `RENTSTREAM_TOPIC_PREFIX`; an implementation adds and strips it.
"""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from streams.core.flows import Headers, ProducerRecord, Record

MAX_RECORD_BYTES: Final = (8 << 20) - (64 << 10)
"""Bytes of key and value of a record at most: the topics' ``max.message.bytes`` without room for headers, so that
whatever was read can be parked."""


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


NOWHERE: Final[Mapping[Partition, int]] = MappingProxyType({})
"""No positions: from the beginning."""


class ConsumedRecord(NamedTuple):
    """A `streams.core.flows.Record` as it was read; as cheap as an immutable value gets."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class BackendError(Exception):
    """The backend cannot continue. A runner passes it on, and the process stops hard: nothing more is acknowledged."""


class NotOwner(BackendError):  # noqa: N818 -- named after what the caller no longer is
    """The partitions are, or will soon be, another member's, which reads again what was not committed."""


class TooLarge(BackendError):  # noqa: N818
    """A record does not fit into its topic. Nothing of the call was written."""


class NotDurable(Exception):  # noqa: N818 -- named after what the record is not
    """A record was not acknowledged in time: its sender has to send it again. It may still be written."""


class Listener(Protocol):
    """Receives the rebalances of one consumer. Each revokes all partitions before it assigns any."""

    async def revoked(self, partitions: Collection[Partition]) -> None:
        """Commit for the last time: these partitions are revoked. The whole group waits until this returns."""
        ...

    async def assigned(self, partitions: Collection[Partition]) -> None:
        """Begin with these partitions, at their last commits. No heartbeat is sent until this returns: be quick."""
        ...


class Consumer(Protocol):
    """A member of a consumer group. Partition *i* of all of its topics is always with the same member."""

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Leave the group. Commits nothing."""
        ...

    async def fetch(self, max_records: int) -> Mapping[Partition, Sequence[Record]]:
        """Wait for records of partitions that are not paused, and return them in the order of their offsets.

        To be called all the time: it is what keeps a member in its group. May be cancelled without losing anything.
        """
        ...

    def pause(self, partition: Partition) -> None:
        """Fetch nothing of it until it is resumed or assigned again. Ignored for a partition that is not assigned."""
        ...

    def resume(self, partition: Partition) -> None: ...

    def seek(self, partition: Partition, offset: int) -> None:
        """Fetch from this offset on."""
        ...

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Make durable where to continue: the offset after the last one that is finished. Raise `NotOwner`."""
        ...

    @property
    def assignment(self) -> frozenset[Partition]: ...


class Reader(Protocol):
    """Reads all partitions of some topics without a group: every process that has one sees every record."""

    async def start(self) -> None:
        """Connect. Raise `BackendError` if that fails or a topic is missing."""
        ...

    async def stop(self) -> None: ...

    async def fetch(self, max_records: int) -> Mapping[Partition, Sequence[Record]]:
        """Wait for records and return them in the order of their offsets; may return nothing after a while.

        May be cancelled without losing anything. Raise `BackendError` if reading cannot go on.
        """
        ...

    async def ends(self) -> Mapping[Partition, int]:
        """Ask the log for the offset after the last record of each partition. Raise `BackendError`."""
        ...

    @property
    def positions(self) -> Mapping[Partition, int]:
        """Return the offset of each partition that is fetched next."""
        ...


class Producer(Protocol):
    """Writes records."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def send(self, records: Sequence[ProducerRecord], partition: int | None = None) -> None:
        """Return when all are durable; in order, for each topic and partition.

        Without ``partition`` the key decides. Raise `TooLarge` or `BackendError`.
        """
        ...


class Backend(Protocol):
    """Makes the consumers and producers of one cluster."""

    def consumer(self, group: str, topics: Sequence[str], listener: Listener) -> Consumer: ...

    def producer(self) -> Producer: ...

    def reader(self, topics: Sequence[str], positions: Mapping[Partition, int] = NOWHERE) -> Reader:
        """Return a reader that begins at these positions; a partition without one from its beginning."""
        ...

    async def last(self, topic: str, partitions: Collection[int], count: int = 1) -> Mapping[int, Sequence[Record]]:
        """Return the last records of each partition, at most ``count``, in the order of their offsets."""
        ...
