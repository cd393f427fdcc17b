"""What folds and scans write to Kafka: through one idempotent producer, and only while the fence allows it."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from streams.backends.producer import BatchWriter, Entry
from streams.core.flows import ProducerRecord
from streams.engine.fence import Fence
from streams.engine.settings import EngineSettings


class Output:
    """Appends records to partitions and returns when they are durable; the fence is checked before and after."""

    def __init__(self, settings: EngineSettings, fence: Fence) -> None:
        self._writer = BatchWriter(
            {
                "bootstrap_servers": settings.servers,
                "client_id": f"{settings.app_id}-{settings.worker}",
                "request_timeout_ms": round(settings.request_timeout * 1000),
                **settings.security,
            },
            check=fence.check,
        )

    async def start(self) -> None:
        await self._writer.start()

    async def stop(self) -> None:
        await self._writer.stop()

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
