"""The one way to write records: batches of one partition, acknowledged by all replicas.

`BatchWriter` packs records, hands batches over and waits for the acknowledgements; the engine writes with it as it is.
`GroupCommit` lets the records of many writers of one partition share batches. `ReconnectingProducer` adds what the web
role needs: it starts without a broker, bounds the time that a writer waits, and replaces a producer that failed.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, Final, Protocol

import aiokafka
from aiokafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError, ProducerFenced

from schemas import topics
from schemas.base import Model
from schemas.codec import encode
from schemas.partitions import partition_for
from schemas.pms import FetchRequest
from streams.backends.deadlines import Deadlines, stop_client
from streams.backends.fencing import Identities, forget, install, is_waiting, producer_id
from streams.backends.ports import (
    MAX_RECORD_BYTES,
    BackendError,
    Fenced,
    NotDurable,
    NotOwner,
    Ownership,
    checked_size,
)
from streams.core.flows import Headers

log = logging.getLogger("streams.backends.producer")

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
        self._may_have_gap = False
        """Whether a batch that has a sequence number may have been dropped."""
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
        self._may_have_gap = True
        if self._disowned is not None and not self._disowned.done():
            self._disowned.set_result(None)

    async def owned(self) -> "asyncio.Future[None] | None":
        """Wait until the ownership is proven; return a future that is done when it ends. Raise `NotOwner`."""
        owner = self._owner
        if owner is None:
            return None
        while not owner.proven:
            if not owner.joined:
                raise NotOwner("the partitions are given away")
            await asyncio.sleep(PROOF_SECONDS)
        if self._may_have_gap and not self._takes_over:
            await self._renew()
        if self._disowned is None or self._disowned.done():
            self._disowned = asyncio.get_running_loop().create_future()
        return self._disowned

    async def _renew(self) -> None:
        """Begin new sequences: a batch that has a number was not sent, and the broker accepts none behind a gap."""
        async with self._renewing:
            if self._may_have_gap and self._identities is not None:
                self._may_have_gap = False
                found = await producer_id(self._started.client, None)
                forget(self._started, NotOwner("the partitions were given away before this was sent"))
                self._identities.renew(*found)

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
            await asyncio.wait({sender}, timeout=REQUEST_SECONDS * 2)
        await client.client.close()


# ------------------------------------------------------------------------------------------- writers that share batches

TOGETHER_BYTES: Final = BATCH_BYTES * 3 // 4
"""Bytes of keys and values that are written together; the rest of a batch is for headers and framing."""

WriteTogether = Callable[[str, int, Sequence[Entry]], Awaitable[object]]
"""Writes records of one partition, as `BatchWriter.append` does."""


@dataclass(slots=True, eq=False)
class _Submitted:
    """The records of one writer; a writer that gave up has cancelled the future."""

    entries: Sequence[Entry]
    size: int
    at: float
    durable: "asyncio.Future[None]"

    def fail(self, error: Exception) -> None:
        if not self.durable.done():
            self.durable.set_exception(error)


@dataclass(slots=True)
class _Lane:
    """The records of one partition that wait, and those that are being written."""

    topic: str
    partition: int
    waiting: deque[_Submitted] = field(default_factory=deque)
    in_flight: list[_Submitted] = field(default_factory=list)
    drain: "asyncio.Task[None] | None" = None


class GroupCommit:
    """Lets writers of one partition share batches: records that are submitted during a write form the next batch.

    Load therefore increases the size of batches and not their number. Records keep their order in each partition.
    """

    def __init__(self, write: WriteTogether, prefix: str = "", pause: float = 0.0) -> None:
        """Prepare; ``prefix`` stands before every name of a topic.

        ``pause``: seconds after a write in which more records are collected; without a recent write there is no wait.
        """
        self.connected = asyncio.Event()
        """Records wait while it is not set."""
        self.connected.set()
        self._write = write
        self._prefix = prefix
        self._pause = pause
        self._lanes: dict[tuple[str, int], _Lane] = {}

    def submit(self, topic: str, partition: int, entries: Sequence[Entry], size: int) -> "asyncio.Future[None]":
        """Return a future that is done when the records are durable; if it is cancelled in time, they are not written.

        ``size`` is the sum of their `checked_size`.
        """
        lane = self._lanes.get((topic, partition))
        if lane is None:
            lane = self._lanes[topic, partition] = _Lane(self._prefix + topic, partition)
        loop = asyncio.get_running_loop()
        durable: asyncio.Future[None] = loop.create_future()
        lane.waiting.append(_Submitted(entries, size, loop.time(), durable))
        if lane.drain is None:
            lane.drain = loop.create_task(self._drain(lane))
        return durable

    def expire(self, before: float, error: Exception) -> bool:
        """Fail the records submitted before a time of the event loop's clock; return whether there were any."""
        expired = False
        for lane in self._lanes.values():
            for one in (*lane.in_flight, *lane.waiting):
                if one.at > before:
                    break
                expired = expired or not one.durable.done()
                one.fail(error)
            while lane.waiting and lane.waiting[0].durable.done():
                lane.waiting.popleft()
        return expired

    async def close(self, within: float = 0.0) -> None:
        """Wait at most so many seconds for the submitted records, and fail the rest with `BackendError`."""
        drains = [lane.drain for lane in self._lanes.values() if lane.drain is not None]
        if drains:
            await asyncio.wait(drains, timeout=within)
        for drain in drains:
            drain.cancel()
        await asyncio.gather(*drains, return_exceptions=True)
        for lane in self._lanes.values():
            for one in (*lane.in_flight, *lane.waiting):
                one.fail(BackendError("the producer stops"))

    async def _drain(self, lane: _Lane) -> None:
        """Write what waits in a lane until nothing does."""
        try:
            while lane.waiting:
                await self.connected.wait()
                lane.in_flight = self._take(lane.waiting)
                if lane.in_flight:
                    await self._write_in_flight(lane)
                await asyncio.sleep(self._pause)
        finally:
            lane.drain = None

    @staticmethod
    def _take(waiting: deque[_Submitted]) -> list[_Submitted]:
        taken: list[_Submitted] = []
        size = 0
        while waiting and size < TOGETHER_BYTES:
            one = waiting.popleft()
            if not one.durable.done():
                taken.append(one)
                size += one.size
        return taken

    async def _write_in_flight(self, lane: _Lane) -> None:
        entries = [entry for one in lane.in_flight for entry in one.entries]
        try:
            await self._write(lane.topic, lane.partition, entries)
        except Exception as error:
            for one in lane.in_flight:
                one.fail(error)
        else:
            for one in lane.in_flight:
                if not one.durable.done():
                    one.durable.set_result(None)
        lane.in_flight = []


# ------------------------------------------------------------------------------------------------------ the web role's

PATIENCE: Final = 7.0
"""Seconds that a writer waits for the acknowledgement; below the ingress's limit, which is below its clients'."""
REQUEST_SECONDS: Final = 4.0
"""Seconds after which a request to a broker is repeated."""
SILENT_SECONDS: Final = 30.0
"""Seconds without an answer to a write after which its producer is replaced."""
MAX_WAITING_BYTES: Final = 64 << 20
"""Bytes that may wait; above that, writers are refused at once."""
EXPIRE_SECONDS: Final = 0.2
"""Seconds between two checks for records that have waited too long."""
GATHER_SECONDS: Final = 0.002
"""Seconds after a write in which more records are collected."""
RECONNECT_SECONDS: Final = (0.2, 1.0)
"""Seconds between two attempts to connect, at first and at most."""
DISCARD_SECONDS: Final = 2.0
"""Seconds that a producer which is replaced, or no longer needed, may take to disconnect."""


class ReconnectingProducer:
    """A producer that reconnects: `start` does not wait for a broker, and `write` waits a limited time.

    A record that was not acknowledged in time is `NotDurable`; it may still be written later (at least once). A
    producer that failed, or received no answer for too long, is replaced, so that no restart is needed after an outage
    of the brokers.
    """

    def __init__(
        self,
        client: Mapping[str, Any],
        prefix: str = "",
        patience: float = PATIENCE,
        make: MakeClient = aiokafka.AIOKafkaProducer,
    ) -> None:
        """Prepare; ``client`` are aiokafka's options: the servers, the security, a client id."""
        self._options = {"request_timeout_ms": round(REQUEST_SECONDS * 1000), **client}
        self._make = make
        self._patience = patience
        self._silence = Deadlines(SILENT_SECONDS)
        self._writer: BatchWriter | None = None
        self._failed = asyncio.Event()
        self._group = GroupCommit(self._append, prefix, GATHER_SECONDS)
        self._group.connected.clear()
        self._bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._problem = "no broker has answered yet"
        self._ended: str | None = None
        """Why a task ended that is needed as long as this producer runs; null while all of them run."""

    @property
    def ended(self) -> str | None:
        """Return why nothing will be written any more without a restart of the process; null if that is not so."""
        return self._ended

    def ready(self) -> tuple[bool, str]:
        """Return whether records can be written at the moment, and a sentence on it."""
        problem = self._ended or self._problem
        return (False, problem) if problem else (True, "records are acknowledged")

    async def start(self) -> None:
        """Start to connect in the background."""
        for what, work in (("the connection to Kafka", self._stay_connected()), ("the time limit", self._expire())):
            self._spawn(work).add_done_callback(partial(self._note_end, what))

    async def stop(self, within: float = PATIENCE) -> None:
        """Accept no more records, wait for the accepted ones, and disconnect."""
        self._closed = True
        await self._group.close(within)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._writer is not None:
            await self._writer.stop(DISCARD_SECONDS)

    async def write(
        self, topic: str, key: bytes, value: bytes | None, *, partition: int, headers: Headers = ()
    ) -> None:
        """Return once all replicas have the record. Raise `NotDurable`, or `TooLarge` with nothing written.

        ``topic`` stands without the prefix. ``partition`` is that of the org, whose key may be finer than the org.
        """
        size = checked_size(topic, key, value)
        if self._closed:
            raise NotDurable("the process ends")
        if self._bytes + size > MAX_WAITING_BYTES:
            raise NotDurable(f"more than {MAX_WAITING_BYTES >> 20} MiB wait already")
        self._bytes += size
        try:
            await self._group.submit(topic, partition, ((key, value, headers),), size)
        except BackendError as error:
            raise NotDurable(str(error)) from error
        finally:
            self._bytes -= size

    async def _expire(self) -> None:
        """Fail what was not acknowledged in time; one timer for all records is cheaper than one for each."""
        problem = f"no broker acknowledged within {self._patience:g} s"
        while True:
            await asyncio.sleep(EXPIRE_SECONDS)
            before = asyncio.get_running_loop().time() - self._patience
            if self._group.expire(before, BackendError(problem)) and not self._problem:
                self._problem = problem
                log.warning("Records wait in vain: %s", problem)

    async def _append(self, topic: str, partition: int, entries: Sequence[Entry]) -> None:
        writer = self._writer
        assert writer is not None, "nothing is written while no producer is connected"
        try:
            with self._silence.one():
                await writer.append(topic, partition, entries)
        except Exception as error:
            why = f"{topic}-{partition}: {str(error) or type(error).__name__}"
            self._replace(writer, why)
            raise BackendError(why) from error
        self._problem = ""

    # ------------------------------------------------------------------------------------------------------ connecting

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _note_end(self, what: str, task: "asyncio.Task[None]") -> None:
        """Note the end of a task that runs as long as this producer; records that wait for it fail in time."""
        if self._closed:
            return
        error = None if task.cancelled() else task.exception()
        self._ended = f"{what} ended ({type(error).__name__ if error else 'cancelled'}): restart this process"
        log.error("%s", self._ended, exc_info=error)

    def _replace(self, writer: BatchWriter, why: str) -> None:
        """Give up a producer that may have lost its place in a sequence; a new one begins a new sequence."""
        if writer is self._writer:
            self._problem = why
            self._group.connected.clear()
            self._failed.set()

    async def _stay_connected(self) -> None:
        while True:
            self._writer = await self._connect()
            self._group.connected.set()
            await self._failed.wait()
            self._failed.clear()
            log.warning("The producer is replaced: %s", self._problem)
            failed, self._writer = self._writer, None
            self._spawn(failed.stop(DISCARD_SECONDS))

    async def _connect(self) -> BatchWriter:
        pause, longest = RECONNECT_SECONDS
        while True:
            writer = BatchWriter(self._options, make=self._make)
            try:
                async with asyncio.timeout(3 * REQUEST_SECONDS):
                    await writer.start()
            except Exception as error:
                problem = f"no connection to Kafka: {str(error) or type(error).__name__}"
                if problem != self._problem:
                    self._problem = problem
                    log.warning("%s", problem)
            else:
                self._problem = ""
                return writer
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)


class WebhookPublisher:
    """The ingress's `Publisher`: a webhook is written to its org's partition of ``pms.webhooks``."""

    def __init__(
        self, producer: ReconnectingProducer, partitions: int, encoded: Callable[[Model], bytes] = encode
    ) -> None:
        self._producer = producer
        self._encoded = encoded
        self._partition = lru_cache(maxsize=65_536)(lambda org: partition_for(org, partitions))

    async def publish(self, webhook: FetchRequest) -> None:
        """Return once it is durable. Raise `NotDurable`."""
        await self._producer.write(
            topics.WEBHOOKS.name,
            topics.WEBHOOKS.key_of(webhook),
            self._encoded(webhook),
            partition=self._partition(webhook.org),
        )


class OrgWriter:
    """Writes records, whose keys may be finer than the org, to the partition of their org."""

    def __init__(self, producer: ReconnectingProducer, partitions: int) -> None:
        self._producer = producer
        self._partitions = partitions

    async def write(self, topic: str, key: bytes, org: str, value: bytes | None) -> None:
        """Return once it is durable. Raise `NotDurable`."""
        await self._producer.write(topic, key, value, partition=partition_for(org, self._partitions))
