"""A client of aiokafka without a broker: what it is given is in its cluster."""

import asyncio
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

from aiokafka.producer.message_accumulator import BatchBuilder

from streams.backends.writer import BatchWriter, Entry


class Cluster:
    """The cluster of fake clients: counts records by topic and partition, and fails as planned."""

    def __init__(self) -> None:
        self.written: list[tuple[str, int, int]] = []
        self.options: list[dict[str, Any]] = []
        self.refused_starts: list[Exception] = []
        self.refused: list[Exception] = []
        self.failed: list[Exception] = []
        self.stopped = 0
        self.sockets = SimpleNamespace(send=self._send, sent=0)
        self.available = asyncio.Event()
        self.available.set()

    async def _send(self, _node: int, _request: object) -> None:
        self.sockets.sent += 1

    def client(self, **options: Any) -> "FakeClient":
        self.options.append(options)
        return FakeClient(self, options)

    @property
    def records(self) -> int:
        return sum(count for _, _, count in self.written)


class FakeClient:
    """An aiokafka producer that writes to a `Cluster`; its batches are aiokafka's own."""

    def __init__(self, cluster: Cluster, options: dict[str, Any]) -> None:
        self._cluster = cluster
        self._options = options
        self.client = cluster.sockets

    async def start(self) -> None:
        if self._cluster.refused_starts:
            raise self._cluster.refused_starts.pop(0)

    async def stop(self) -> None:
        self._cluster.stopped += 1

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(self._options["max_batch_size"], 3)

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> "asyncio.Future[Any]":
        cluster = self._cluster
        if cluster.refused:
            raise cluster.refused.pop(0)
        await self.client.send(0, batch)
        return asyncio.ensure_future(self._acknowledge(batch, topic, partition))

    async def _acknowledge(self, batch: BatchBuilder, topic: str, partition: int) -> SimpleNamespace:
        cluster = self._cluster
        await cluster.available.wait()
        if cluster.failed:
            raise cluster.failed.pop(0)
        cluster.written.append((topic, partition, batch.record_count()))
        return SimpleNamespace(offset=100 * (len(cluster.written) - 1))

    async def partitions_for(self, topic: str) -> Collection[int]:
        if self._cluster.refused:
            raise self._cluster.refused.pop(0)
        return {0, 1, 2}


async def writer(cluster: Cluster) -> BatchWriter:
    made = BatchWriter({"bootstrap_servers": "b:1"}, make=cluster.client)
    await made.start()
    return made


def entries(*values: bytes) -> list[Entry]:
    return [(b"k", value, ()) for value in values]
