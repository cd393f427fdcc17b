"""The one way to write records: batches of one partition, acknowledged by all replicas.

`BatchWriter` packs records, hands batches over and waits for the acknowledgements. With an owner it writes only what
that one may write, and the broker refuses the rest.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol

import aiokafka
from aiokafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    ProducerFenced,
    UnknownTopicOrPartitionError,
)

from streams.backends.deadlines import stop_client
from streams.backends.fencing import Identities, forget, install, is_waiting, producer_id
from streams.backends.ports import (
    MAX_RECORD_BYTES,
    BackendError,
    Fenced,
    NotOwner,
    Ownership,
    checked_size,
)
from streams.core.flows import Headers

log = logging.getLogger("streams.backends.writer")

BATCH_BYTES: Final = 512 * 1024
"""Bytes of one batch before compression; below the topics' ``max.message.bytes``."""

DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": 0,  # records are collected before they reach aiokafka (`GroupCommit`)
        "compression_type": "lz4",
        "max_batch_size": BATCH_BYTES,
        "request_timeout_ms": 40_000,
        "metadata_max_age_ms": 60_000,
    }
)
"""Options of every producer. A caller adds the servers, the security and a client id, and may override any."""

SENDER_SECONDS: Final = 8.0
"""Seconds in which the sender of a client that could not flush has to end."""

PRODUCE: Final = 0
"""Key of the request in Kafka's protocol that carries batches."""

PROOF_SECONDS: Final = 0.05
"""Seconds between two looks whether the ownership is proven again."""

FENCED_SECONDS: Final = 15.0
"""Seconds after a refused write within which the group reports whether the partitions are given away."""

Entry = tuple[bytes, bytes | None, Headers]
"""Key, value and headers of a record to be written."""

Batch = Any
"""aiokafka's ``BatchBuilder``; the package publishes no types."""

_NO_HEADERS: Final[list[tuple[str, bytes]]] = []


class Client(Protocol):
    """What is used of aiokafka's producer, which publishes no types."""

    client: Any

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def create_batch(self) -> Batch: ...

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> "asyncio.Future[Any]":
        """Take a batch over, and return a future of its acknowledgement."""
        ...

    async def partitions_for(self, topic: str) -> Collection[int]: ...


MakeClient = Callable[..., Client]
"""Returns a client for options, as `aiokafka.AIOKafkaProducer` does."""


class _Disowned(KafkaError):  # type: ignore[misc]  # noqa: N818
    """What aiokafka is to fail the batches of a request with that must not be sent any more."""

    retriable = False


@dataclass(frozen=True, slots=True)
class Packed:
    """Records of one partition in batches, each with its number of records."""

    topic: str
    partition: int
    batches: tuple[tuple[int, Batch], ...]


class BatchWriter:
    """Writes batches with one idempotent producer, in order, and retries while brokers are unavailable.

    With an ``owner`` nothing is sent while the ownership is not proven, which is decided in the very step in which
    bytes are sent, so that it also holds for aiokafka's own retries. A write waits for the proof, and ends with
    `NotOwner` if the partitions are given away; `disown` has to be called then. Whether what was sent before is written
    is open, unless the next owner has taken over by `take_over`.
    """

    def __init__(
        self,
        client: Mapping[str, Any],
        make: MakeClient = aiokafka.AIOKafkaProducer,
        owner: Ownership | None = None,
    ) -> None:
        """Prepare; ``client`` are aiokafka's options beside, or instead of, `DEFAULTS`."""
        self._options = {**DEFAULTS, **client}
        self._make = make
        self._owner = owner
        self._client: Client | None = None
        self._identities: Identities | None = None
        self._takes_over = False
        """Whether partitions are taken over: then each has an identity of its own, and begins its sequences with it."""
        self._ended = self._renewed = 0
        """How often the ownership has ended, and how often it had when the last sequences began: a batch that has a
        sequence number may have been dropped since."""
        self._renewing = asyncio.Lock()
        self._disowned: asyncio.Future[None] | None = None
        """Done when the partitions of the present generation are given away."""

    async def start(self) -> None:
        """Connect. Raise `BackendError` if no broker answers."""
        self._client = self._make(**self._options)
        if self._owner is not None:
            self._identities = install(self._client)
        try:
            await self._client.start()
        except KafkaError as error:
            await self.stop()
            raise BackendError(f"the producer cannot start: {error!r}") from error
        except BaseException:
            await self.stop()
            raise
        if self._owner is not None:
            self._hold_back(self._client.client, self._owner)

    async def stop(self, within: float = 10.0) -> None:
        """Write the batches passed to aiokafka and disconnect, within a limited time as brokers may be unavailable."""
        client, self._client = self._client, None
        if client is not None and not await stop_client(client, within):
            await _disconnect(client)

    async def partitions(self, topic: str) -> int:
        """Return the number of partitions of a topic. Raise `BackendError` if it is missing."""
        try:
            return len(await self._started.partitions_for(topic))
        except KafkaError as error:
            raise _failure(topic, error) from error

    def pack(self, topic: str, partition: int, entries: Sequence[Entry]) -> Packed:
        """Pack records, in their order, into as few batches as possible. Raise `TooLarge` if a record does not fit."""
        create = self._started.create_batch
        batches = []
        at = 0
        while at < len(entries):
            batch = create()
            count = _fill(batch, entries, at)
            if count == 1:  # a record that is larger than a batch is alone in one
                key, value, _ = entries[at]
                checked_size(topic, key, value)
            batches.append((count, batch))
            at += count
        return Packed(topic, partition, tuple(batches))

    async def write(self, packed: Packed) -> int | None:
        """Return, once all replicas have all records, the offset of the last one (null if the broker gave none).

        Raise `BackendError` if a broker refuses them, or `NotOwner`.
        """
        sent = []
        last = None
        disowned = await self.owned()
        try:
            for count, batch in packed.batches:
                sent.append((count, await self._hand_over(batch, packed, disowned)))
            for count, acknowledgement in sent:
                if disowned is not None:
                    await _first(acknowledgement, disowned)
                base = (await acknowledgement).offset
                last = base + count - 1 if base is not None and base >= 0 else None
        except ProducerFenced as error:
            await self._until_given_away()
            raise _failure(packed.topic, error) from error
        except KafkaError as error:
            raise _failure(packed.topic, error) from error
        return last

    async def append(self, topic: str, partition: int, entries: Sequence[Entry]) -> int | None:
        """Pack and write. Raise `TooLarge`, with nothing written, or `BackendError`."""
        return await self.write(self.pack(topic, partition, entries))

    async def take_over(self, topics: Mapping[int, Sequence[str]], name: str, mark: bytes) -> None:
        """Take partitions over, by their numbers: fence off their former owners.

        ``name`` is the beginning of the transactional ids. A tombstone with the key ``mark`` is written to each of the
        topics: from then on the broker refuses there what former owners write. Raise `NotOwner`.
        """
        client, identities = self._started.client, self._identities
        assert identities is not None, "only a writer with an owner can take over"
        self._takes_over = True
        await self.owned()

        async def one(number: int) -> None:
            found = await producer_id(client, f"{name}-{number}")
            forget(self._started, NotOwner("the partition was given away before this was sent"), number)
            identities.begin(number, *found)
            await asyncio.gather(*(self.append(topic, number, [(mark, None, ())]) for topic in topics[number]))

        await asyncio.gather(*map(one, topics))

    def disown(self) -> None:
        """End the writes that are under way: the partitions are given away."""
        self._ended += 1
        if self._disowned is not None and not self._disowned.done():
            self._disowned.set_result(None)

    async def owned(self) -> "asyncio.Future[None] | None":
        """Wait until the ownership is proven; return a future that is done when it ends. Raise `NotOwner`."""
        owner = self._owner
        if owner is None:
            return None
        while not owner.proven or not self._is_renewed:
            if not owner.joined:
                raise NotOwner("the partitions are given away")
            if owner.proven:
                await self._renew()
            else:
                await asyncio.sleep(PROOF_SECONDS)
        if self._disowned is None or self._disowned.done():
            self._disowned = asyncio.get_running_loop().create_future()
        return self._disowned

    @property
    def _is_renewed(self) -> bool:
        return self._takes_over or self._renewed == self._ended

    async def _renew(self) -> None:
        """Begin new sequences: a batch that has a number was not sent, and the broker accepts none behind a gap.

        Until then no write goes on, since it would continue the former sequences.
        """
        async with self._renewing:
            if not self._is_renewed and self._identities is not None:
                ended = self._ended
                found = await producer_id(self._started.client, None)
                forget(self._started, NotOwner("the partitions were given away before this was sent"))
                self._identities.renew(*found)
                self._renewed = ended

    async def _until_given_away(self) -> None:
        """Wait, after a write was refused, for the group to report that the partitions are given away.

        Raise `NotOwner` if it does. If it does not, the other process is not the owner either: return.
        """
        owner, loop = self._owner, asyncio.get_running_loop()
        until = loop.time() + FENCED_SECONDS
        while owner is not None and loop.time() < until:
            if not owner.joined:
                raise NotOwner("the partitions were given away, and their next owner writes")
            await asyncio.sleep(PROOF_SECONDS)

    async def _hand_over(
        self, batch: Batch, packed: Packed, disowned: "asyncio.Future[None] | None"
    ) -> "asyncio.Future[Any]":
        """Hand a batch over to aiokafka, which then retries until it succeeds; until then wait for brokers."""
        while True:
            try:
                taking = self._started.send_batch(batch, packed.topic, partition=packed.partition)
                if disowned is None or not is_waiting(self._started, packed.topic, packed.partition):
                    return await taking
                return await _unless(disowned, asyncio.ensure_future(taking))
            except KafkaTimeoutError:  # nothing was taken over, so another attempt duplicates nothing
                log.warning("No broker takes records for %s-%d; retrying", packed.topic, packed.partition)

    def _hold_back(self, client: Any, owner: Ownership) -> None:
        """Let aiokafka's client send batches only while the ownership is proven; those of an ended one fail."""
        send = client.send

        async def send_if_owned(node: int, request: Any, **options: Any) -> Any:
            if request.API_KEY == PRODUCE:
                generation = owner.generation
                while not owner.proven and owner.joined:  # noqa: ASYNC110 -- time ends a proof, and no event
                    await asyncio.sleep(PROOF_SECONDS)
                if owner.generation != generation or not owner.joined:
                    raise _Disowned
            return await send(node, request, **options)

        client.send = send_if_owned

    @property
    def _started(self) -> Client:
        if self._client is None:
            raise BackendError("the producer is not connected: it was not started, or is stopped")
        return self._client


def _fill(batch: Batch, entries: Sequence[Entry], at: int) -> int:
    """Append records from ``at`` on until the batch is full; return how many."""
    append = batch.append
    count = 0
    for index in range(at, len(entries)):
        key, value, headers = entries[index]
        if append(timestamp=None, key=key, value=value, headers=[*headers] if headers else _NO_HEADERS) is None:
            break
        count += 1
    batch.close()
    return count


def _failure(topic: str, error: KafkaError) -> BackendError:
    if isinstance(error, _Disowned):
        return NotOwner(f"the partitions were given away before records for {topic} were sent")
    if isinstance(error, ProducerFenced):
        return Fenced(f"records for {topic} are refused: another process has taken the partition over")
    if isinstance(error, MessageSizeTooLargeError):
        return BackendError(
            f"{topic} refuses a batch: its max.message.bytes is too low; it must be above {BATCH_BYTES} and hold a "
            f"record of {MAX_RECORD_BYTES} bytes with its headers"
        )
    if isinstance(error, UnknownTopicOrPartitionError):
        return BackendError(f"{topic} does not exist: create it with `rentstream topics --apply`")
    return BackendError(f"records for {topic} could not be written: {error!r}")


async def _first(acknowledgement: "asyncio.Future[Any]", disowned: "asyncio.Future[None]") -> None:
    """Wait for an acknowledgement. Raise `NotOwner` if the partitions are given away before it comes."""
    if not acknowledgement.done():
        await asyncio.wait((acknowledgement, disowned), return_when=asyncio.FIRST_COMPLETED)
    if not acknowledgement.done():
        acknowledgement.add_done_callback(_retrieve)
        raise NotOwner("the partitions were given away before the write was acknowledged")


async def _unless(
    disowned: "asyncio.Future[None]", taking: "asyncio.Task[asyncio.Future[Any]]"
) -> "asyncio.Future[Any]":
    """Return the result of a task. Cancel it and raise `NotOwner` if the partitions are given away before."""
    try:
        await asyncio.wait((taking, disowned), return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not taking.done():
            taking.cancel()
    if disowned.done() and not (taking.done() and not taking.cancelled()):
        raise NotOwner("the partitions were given away before a batch was taken over")
    return await taking


def _retrieve(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()


async def _disconnect(client: Any) -> None:
    """Close a producer that could not flush: aiokafka has no stop without a flush, and its sender would go on."""
    with contextlib.suppress(Exception):
        sender = client._sender.sender_task  # noqa: SLF001
        if sender is not None:
            sender.cancel()
            await asyncio.wait({sender}, timeout=SENDER_SECONDS)
        await client.client.close()
