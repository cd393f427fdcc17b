"""Tells in plain words what the streams do, by listening to the topics: nothing is told that did not happen there."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas import topics
from schemas.base import EntityKind, Model
from schemas.codec import DecodeError, decode
from schemas.delivery import Batch, DeliveryOutcome, DeliveryResult
from schemas.pms import SweepStep
from schemas.rent_roll import SweepEnd

PLURAL = {
    EntityKind.PROPERTY: "properties",
    EntityKind.UNIT: "units",
    EntityKind.LEASE: "leases",
    EntityKind.LISTING: "listings",
}
NAMES = {"rentsync": "RentSync"}
"""Receivers by the names that people know."""

GATHER = 0.7
"""Seconds of silence after which what was acknowledged is summed up in one line."""


class ProgressReporter:
    """Hears sweeps and deliveries, and says a line for each thing that a person would want to know."""

    def __init__(self, say: Callable[[str], None], page_size: int = 1000) -> None:
        self._say = say
        self._page_size = page_size
        self._units: dict[tuple[str, int, int], int] = {}
        self._sums: dict[str, list[int]] = {}
        self._first: set[str] = set()
        self.swept = asyncio.Event()
        """Set once a sweep is complete."""
        self.delivered = asyncio.Event()
        """Set once something was acknowledged."""

    def hear(self, said: Model) -> None:
        """Take in one record of a topic."""
        match said:
            case SweepStep(stage=stage, total=None):
                if self.swept.is_set():
                    return  # the first one is watched step by step; of the others the end is told
                part = list(PLURAL).index(stage) + 1
                self._say(f"sweep: part {part} of {len(PLURAL)}, {PLURAL[stage]}; {said.entities} entities so far")
            case SweepStep(stage=stage, offset=offset, total=int(total)) if offset < total:
                pages = -(-total // self._page_size)
                self._say(f"sweep: {PLURAL[stage]}, {offset // self._page_size} of {pages} pages, {offset} of {total}")
            case SweepEnd(entities=entities):
                self._say(f"sweep complete: {entities} entities read")
                self.swept.set()
            case Batch():
                self._units[said.sink, said.property.id, said.version] = len(said.units)
            case DeliveryOutcome(result=DeliveryResult.ACKNOWLEDGED):
                sums = self._sums.setdefault(said.sink, [0, 0])
                sums[0] += 1
                sums[1] += self._units.pop((said.sink, said.property_id, said.version), 0)
            case DeliveryOutcome(result=DeliveryResult.WAITING):
                self._say(
                    f"{_name(said.sink)} did not take property {said.property_id}, it is tried again: {said.detail}"
                )
            case DeliveryOutcome(result=DeliveryResult.DEAD):
                self._say(f"{_name(said.sink)} refused property {said.property_id}, given up: {said.detail}")
            case _:
                pass

    def sum_up(self) -> None:
        """Say what was acknowledged since the last time."""
        for sink, (batches, units) in self._sums.items():
            which = "batches" if sink in self._first else "first batches"
            self._first.add(sink)
            self._say(
                f"{which}: {_count(batches, 'property')} and {_count(units, 'unit')} acknowledged by {_name(sink)}"
            )
        if self._sums:
            self.delivered.set()
        self._sums.clear()


def _name(sink: str) -> str:
    return NAMES.get(sink, sink)


def _count(number: int, what: str) -> str:
    plural = what.removesuffix("y") + "ies" if what.endswith("y") else what + "s"
    return f"{number} {what if number == 1 else plural}"


async def report_progress(
    reporter: ProgressReporter,
    servers: str,
    security: dict[str, Any],
    prefix: str,
    partitions: int,
    ready: asyncio.Event,
) -> None:
    """Listen from now on, until cancelled; ``ready`` is set as soon as nothing more is missed."""
    heard = (topics.SWEEPS, topics.CHANGES, topics.BATCHES, topics.OUTCOMES)
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False, fetch_max_wait_ms=100, **security)
    await consumer.start()
    try:
        consumer.assign(
            [TopicPartition(prefix + topic.name, number) for topic in heard for number in range(partitions)]
        )
        await consumer.seek_to_end()
        for partition in consumer.assignment():
            await consumer.position(partition)
        ready.set()
        quiet_since = time.monotonic()
        while True:
            found = await consumer.getmany(timeout_ms=200)
            for records in found.values():
                for record in records:
                    try:
                        reporter.hear(decode(record.value))
                    except DecodeError:
                        continue
            if found:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > GATHER:
                reporter.sum_up()
    finally:
        await consumer.stop()
