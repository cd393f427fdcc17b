"""The producer of the web role: it starts without a broker, bounds how long a write waits, and replaces what failed."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Final

import aiokafka

from schemas import topics
from schemas.base import Model
from schemas.codec import encode
from schemas.partitions import partition_for
from schemas.pms import FetchRequest
from streams.backends.deadlines import Deadlines
from streams.backends.group_commit import GroupCommit
from streams.backends.ports import (
    BackendError,
    NotDurable,
    checked_size,
)
from streams.backends.writer import BatchWriter, Entry, MakeClient
from streams.core.flows import Headers

log = logging.getLogger("streams.backends.producer")

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
                log.warning("Records are not confirmed: %s", problem)

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
