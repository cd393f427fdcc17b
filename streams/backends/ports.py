"""The log as the shells see it: Kafka, or the one in memory that keeps the same laws (one contract suite for both).

Names of topics and groups stand here without `RENTSTREAM_TOPIC_PREFIX`; an implementation adds and strips it.
"""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from streams.core.flows import Headers, ProducerRecord, Record


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


NOWHERE: Final[Mapping[Partition, int]] = MappingProxyType({})
"""No positions: from the beginning."""


class ConsumedRecord(NamedTuple):
    """A `streams.core.flows.Record` as it came off the log; as cheap as an immutable thing gets."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class BackendError(Exception):
    """The log cannot go on. A shell passes it up, and the process stops hard: nothing more is acknowledged."""


class NotOwner(BackendError):  # noqa: N818 -- it says what the caller no longer is
    """The partitions have gone, or are going, to another member. What was not committed comes again, there."""


class TooLarge(BackendError):  # noqa: N818
    """A record does not fit into the log. Nothing of the call was written."""


class Listener(Protocol):
    """Is told of what a rebalance does to one consumer. Every rebalance takes all partitions away before it gives."""

    async def revoked(self, partitions: Collection[Partition]) -> None:
        """These partitions are going: the last moment to commit. The whole group waits for the answer."""
        ...

    async def assigned(self, partitions: Collection[Partition]) -> None:
        """These partitions are ours, from the last commit on. No heartbeat goes out meanwhile, so be quick."""
        ...


class Consumer(Protocol):
    """A member of a consumer group. Partition *i* of all of its topics is always with the same member."""

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Leave the group. Commits nothing."""
        ...

    async def fetch(self, max_records: int) -> Mapping[Partition, Sequence[Record]]:
        """Wait until there are records of partitions that are not paused; give them in the order of their offsets.

        To be called all the time: it is what keeps a member in its group. May be cancelled without losing anything.
        """
        ...

    def pause(self, partition: Partition) -> None:
        """Fetch nothing of it, until it is resumed or assigned anew. A partition that is not ours is left alone."""
        ...

    def resume(self, partition: Partition) -> None: ...

    def seek(self, partition: Partition, offset: int) -> None:
        """Go on from this offset."""
        ...

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Make durable where to go on: the offset after the last one that is finished. Raises `NotOwner`."""
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

        Without ``partition`` the key decides. Raises `TooLarge` or `BackendError`.
        """
        ...


class Backend(Protocol):
    """Gives consumers and producers of one log."""

    def consumer(self, group: str, topics: Sequence[str], listener: Listener) -> Consumer: ...

    def producer(self) -> Producer: ...

    def reader(self, topics: Sequence[str], positions: Mapping[Partition, int] = NOWHERE) -> Reader:
        """Return a reader that begins at these positions; a partition without one from its beginning."""
        ...

    async def last(self, topic: str, partitions: Collection[int], count: int = 1) -> Mapping[int, Sequence[Record]]:
        """Give the last records of each partition, at most ``count``, in the order of their offsets."""
        ...
