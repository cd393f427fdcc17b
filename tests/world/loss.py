"""A record that is lost or damaged on its way into the log."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from schemas.topics import TopicSpec
from streams.core.flows import ProducerRecord
from tests.world.memory import MemoryWorld


class Loss:
    """Loses one record of a topic that belongs to the org ``default``, or damages it."""

    def __init__(self, world: MemoryWorld, topic: TopicSpec, *, damages: bool) -> None:
        self.happened = False
        append: Callable[..., Any] = world.broker.append

        def losing(record: ProducerRecord, partition: int | None = None) -> Any:
            if self.happened or record.topic != topic.name or not record.key.startswith(b"default"):
                return append(record, partition)
            self.happened = True
            return append(replace(record, value=b"\x00damaged"), partition) if damages else None

        world.broker.append = losing  # type: ignore[method-assign]
