"""Reads of topics by commands: to where they end at the moment."""

from collections.abc import Mapping, Sequence
from typing import Final

from connectors.ports import Clock
from streams.backends.ports import Backend, Partition, Reader
from streams.core.flows import Record
from streams.runners.global_ import within

FETCH_WITHIN: Final = 1.0
"""Seconds after which there are no further records."""

FETCHED: Final = 2000
"""Records of one fetch at most."""


async def ends_of(backend: Backend, clock: Clock, names: Sequence[str]) -> dict[Partition, int]:
    """Return where the partitions of some topics end. Raise `BackendError`."""
    probe = backend.reader(names)
    await probe.start()
    try:
        ends = dict(await probe.ends())
        await fetched(probe, clock)  # aiokafka takes ten seconds to stop a consumer that has fetched nothing
        return ends
    finally:
        await probe.stop()


async def fetched(reader: Reader, clock: Clock) -> Mapping[Partition, Sequence[Record]]:
    """Return the next records; none if there are no further ones. Raise `BackendError`."""
    try:
        return await within(clock, reader.fetch(FETCHED), FETCH_WITHIN)
    except TimeoutError:
        return {}
