"""Writes records for whoever waits for an answer: many requests of one moment share one produce, confirmed by all.

A lane for each partition: while one batch of it is on its way, what comes next gathers, so a busy moment makes larger
batches instead of more. What is not confirmed within the patience of its writer is `NotDurable`, and its writer says
so outside; it may still be written later, as any record that is written at least once. A producer that aiokafka gave
up, or that is silent for too long, is replaced by a new one; nobody has to restart anything when a broker was away.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from schemas import topics
from schemas.base import Model
from schemas.codec import encode
from schemas.partitions import partition_of
from schemas.pms import FetchRequest
from streams.backends.deadlines import Deadlines
from streams.core.flows import Headers
from streams.web.publisher import NotDurable

log = logging.getLogger("streams.backends.producer")

PATIENCE: Final = 7.0
"""Seconds that a writer waits for the confirmation; below the ingress's own limit, which is below its clients'."""
REQUEST_SECONDS: Final = 4.0
"""Seconds after which a request to a broker is made again."""
SILENT_TOO_LONG: Final = 30.0
"""Seconds without an end of one batch after which its producer is replaced."""
MOST_BYTES: Final = 64 << 20
"""Bytes that may wait; from there on writers are turned away at once."""
BATCH_BYTES: Final = 512 * 1024
GATHER: Final = 0.002
"""Seconds of a pause after a batch, in which more gathers; the first record after silence goes at once."""
LOOK_EVERY: Final = 0.2


@dataclass(slots=True, eq=False)
class _Item:
    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes]]
    due: float
    durable: "asyncio.Future[None]"

    def fail(self, why: str) -> None:
        if not self.durable.done():
            self.durable.set_exception(NotDurable(why))


@dataclass(slots=True)
class _Lane:
    """What waits for one partition, and what is on its way."""

    topic: str
    partition: int
    waiting: deque[_Item] = field(default_factory=deque)
    flying: list[_Item] = field(default_factory=list)
    drain: "asyncio.Task[None] | None" = None


class Producer:
    """An idempotent producer that outlives its connection. `start` does not wait for a broker; `write` does."""

    def __init__(
        self, client: Mapping[str, Any], partitions: int, prefix: str = "", patience: float = PATIENCE
    ) -> None:
        """Prepare; ``client`` is what aiokafka's clients take: the servers, the security, a client id."""
        self._client = dict(client)
        self._prefix = prefix
        self._patience = patience
        self._home = lru_cache(maxsize=65_536)(lambda key: partition_of(key, partitions))
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._bytes = 0
        self._producer: Any = None
        self._connected = asyncio.Event()
        self._broken = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._silence = Deadlines(SILENT_TOO_LONG)
        self._trouble = "no broker has answered yet"

    def ready(self) -> tuple[bool, str]:
        """Whether records can be written at the moment, and a sentence on it."""
        return (False, self._trouble) if self._trouble else (True, "records are confirmed")

    async def start(self) -> None:
        """Begin to connect."""
        self._spawn(self._stay_connected())
        self._spawn(self._give_up_in_time())

    async def stop(self, within: float = PATIENCE) -> None:
        """Take nothing more, wait for what is on its way, and close."""
        self._closed = True
        drains = [lane.drain for lane in self._lanes.values() if lane.drain]
        if drains:
            await asyncio.wait(drains, timeout=within)
        for task in (*self._tasks, *drains):
            task.cancel()
        await asyncio.gather(*self._tasks, *drains, return_exceptions=True)
        for lane in self._lanes.values():
            for item in (*lane.flying, *lane.waiting):
                item.fail("the process ends")
        if self._producer is not None:
            await _discard(self._producer)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -------------------------------------------------------------------------------------------------------- writing

    async def write(
        self, topic: str, key: bytes, value: bytes | None, headers: Headers = (), *, home: bytes | None = None
    ) -> None:
        """Return once all replicas have the record. Raises `NotDurable`.

        ``home`` decides the partition where the key is longer than the org; without it the key does.
        """
        size = len(key) + len(value or b"")
        if self._closed:
            raise NotDurable("the process ends")
        if self._bytes + size > MOST_BYTES:
            raise NotDurable(f"more than {MOST_BYTES >> 20} MiB wait already")
        loop = asyncio.get_running_loop()
        place = (topic, self._home(key if home is None else home))
        lane = self._lanes.get(place)
        if lane is None:
            lane = self._lanes[place] = _Lane(self._prefix + topic, place[1])
        durable: asyncio.Future[None] = loop.create_future()
        lane.waiting.append(_Item(key, value, list(headers), loop.time() + self._patience, durable))
        if lane.drain is None:
            lane.drain = loop.create_task(self._drain(lane))
        self._bytes += size
        try:
            await durable
        finally:
            self._bytes -= size

    async def _drain(self, lane: _Lane) -> None:
        """Send what waits in a lane, one batch after the other, until nothing does."""
        try:
            while lane.waiting:
                await self._connected.wait()
                await self._send(lane, self._producer)
                await asyncio.sleep(GATHER)
        finally:
            lane.drain = None

    async def _send(self, lane: _Lane, producer: Any) -> None:
        batch = producer.create_batch()
        while lane.waiting:
            item = lane.waiting[0]
            if not item.durable.done():  # whoever gave up has no use for it any more
                if batch.append(timestamp=None, key=item.key, value=item.value, headers=item.headers) is None:
                    break
                lane.flying.append(item)
            lane.waiting.popleft()
        if not lane.flying:
            return
        batch.close()
        try:
            why = await self._confirmed(lane, producer, batch)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            self._replace(producer, f"{lane.topic}-{lane.partition}: {why}")
        flying, lane.flying = lane.flying, []
        for item in flying:
            if why:
                item.fail(why)
            elif not item.durable.done():
                item.durable.set_result(None)

    async def _confirmed(self, lane: _Lane, producer: Any, batch: Any) -> str:
        """Wait until a batch is confirmed; returns why not. Raises what aiokafka raises."""
        with self._silence.one():
            await (await producer.send_batch(batch, lane.topic, partition=lane.partition))
        self._trouble = ""
        return ""

    # ------------------------------------------------------------------------------------------- staying able to write

    async def _give_up_in_time(self) -> None:
        """Fail what was not confirmed within the patience, sent or not."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            now = loop.time()
            for lane in self._lanes.values():
                late = [item for item in (*lane.flying, *lane.waiting) if item.due <= now]
                if late and not self._trouble:
                    self._trouble = f"no broker confirms within {self._patience:g} s"
                    log.warning("%s-%d: %s", lane.topic, lane.partition, self._trouble)
                for item in late:
                    item.fail(f"no broker confirmed within {self._patience:g} s")
                while lane.waiting and lane.waiting[0].durable.done():
                    lane.waiting.popleft()

    def _replace(self, producer: Any, why: str) -> None:
        """Let a producer go that may have lost its place in a sequence; a new one starts with a new one."""
        if producer is self._producer:
            self._trouble = why
            self._connected.clear()
            self._broken.set()

    async def _stay_connected(self) -> None:
        while True:
            self._producer = await self._connect()
            self._connected.set()
            await self._broken.wait()
            self._broken.clear()
            log.warning("the producer is replaced: %s", self._trouble)
            broken, self._producer = self._producer, None
            self._spawn(_discard(broken))

    async def _connect(self) -> Any:
        pause = 0.2
        while True:
            producer = AIOKafkaProducer(
                **{
                    "acks": "all",
                    "enable_idempotence": True,
                    "linger_ms": 0,
                    "max_batch_size": BATCH_BYTES,
                    "max_request_size": 8 << 20,
                    "request_timeout_ms": round(REQUEST_SECONDS * 1000),
                    "metadata_max_age_ms": 60_000,
                    **self._client,
                }
            )
            try:
                async with asyncio.timeout(3 * REQUEST_SECONDS):
                    await producer.start()
            except Exception as error:
                trouble = f"no connection to Kafka: {str(error) or type(error).__name__}"
                if trouble != self._trouble:
                    self._trouble = trouble
                    log.warning("%s", trouble)
                await _discard(producer)
            except asyncio.CancelledError:
                await _discard(producer)
                raise
            else:
                self._trouble = ""
                return producer
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)


async def _discard(producer: Any, within: float = 2.0) -> None:
    """Close a producer, but do not wait for brokers that are away: then its sender would try for ever."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(within):
            await producer.stop()
            return
    sender = producer._sender.sender_task  # noqa: SLF001 -- aiokafka has no way to stop without a flush
    with contextlib.suppress(Exception):
        if sender is not None:
            sender.cancel()
            await asyncio.wait({sender}, timeout=REQUEST_SECONDS * 2)
        await producer.client.close()


class WebhookPublisher:
    """The ingress's `Publisher`: a notice goes to the org's partition of ``pms.webhooks``."""

    def __init__(self, producer: Producer, encoded: Callable[[Model], bytes] = encode) -> None:
        self._producer = producer
        self._encoded = encoded

    async def publish(self, notice: FetchRequest) -> None:
        await self._producer.write(topics.WEBHOOKS.name, notice.org.encode(), self._encoded(notice))


class OrgWriter:
    """Writes records whose key is longer than the org to the partition of the org (`streams.directory.service`)."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    async def write(self, topic: str, key: bytes, org: str, value: bytes | None) -> None:
        """Return once it is durable. Raise `NotDurable`."""
        await self._producer.write(topic, key, value, home=org.encode())
