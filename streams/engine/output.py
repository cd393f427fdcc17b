"""What folds and scans write to Kafka: through one idempotent producer, while the ownership is proven."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence

from streams.backends.membership import Membership
from streams.backends.writer import BatchWriter, Entry
from streams.core.flows import ProducerRecord
from streams.engine.settings import EngineSettings

MARK = b"\xff\xffowner"
"""Key of the tombstone by which an owner fences a changelog off; no row has it."""


class Output:
    """Appends records to owned partitions and returns when they are durable; see `BatchWriter` with an owner."""

    def __init__(self, settings: EngineSettings, membership: Membership) -> None:
        self._app_id = settings.app_id
        self._writer = BatchWriter(
            {
                "bootstrap_servers": settings.servers,
                "client_id": f"{settings.app_id}-{settings.worker}",
                "request_timeout_ms": round(settings.request_timeout * 1000),
                **settings.security,
            },
            owner=membership,
        )

    async def start(self) -> None:
        await self._writer.start()

    async def stop(self) -> None:
        await self._writer.stop()

    async def take_over(self, changelogs: Mapping[int, Sequence[str]]) -> None:
        """Take partitions over, by their numbers, with their changelogs; see `BatchWriter.take_over`."""
        await self._writer.take_over(changelogs, self._app_id, MARK)

    async def owned(self) -> None:
        """Return once the ownership is proven. Raise `NotOwner` if the partitions are given away."""
        await self._writer.owned()

    def disown(self) -> None:
        """End the writes that are under way, because the partitions are given away."""
        self._writer.disown()

    async def append(self, topic: str, partition: int, entries: Sequence[Entry]) -> int | None:
        """Write in order; return the offset of the last record (null if the broker gave none)."""
        return await self._writer.append(topic, partition, entries)

    async def effects(self, partition: int, effects: Sequence[ProducerRecord]) -> dict[str, int]:
        """Write all, in order per topic, to the same partition of their topics; return how many went to each.

        Raise `streams.backends.ports.TooLarge`, with nothing written, if one of them does not fit.
        """
        by_topic: defaultdict[str, list[Entry]] = defaultdict(list)
        for effect in effects:
            by_topic[effect.topic].append((effect.key, effect.value, effect.headers))
        packed = [self._writer.pack(topic, partition, entries) for topic, entries in by_topic.items()]
        if len(packed) == 1:
            await self._writer.write(packed[0])
        else:
            await asyncio.gather(*map(self._writer.write, packed))
        return {topic: len(entries) for topic, entries in by_topic.items()}
