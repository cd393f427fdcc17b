"""Writes the records of integrations over the log's own producer; the command line uses it, and so do tests."""

from schemas.partitions import partition_of
from streams.backends.ports import BackendError, NotDurable, Producer
from streams.core.flows import ProducerRecord


class LogWriter:
    """See `streams.directory.service.Writer`. The web role has `streams.backends.producer.OrgWriter` in its place."""

    def __init__(self, producer: Producer, partitions: int) -> None:
        self._producer = producer
        self._partitions = partitions

    async def write(self, topic: str, key: bytes, org: str, value: bytes | None) -> None:
        """Return once it is durable. Raise `NotDurable`."""
        try:
            await self._producer.send([ProducerRecord(topic, key, value)], partition_of(org.encode(), self._partitions))
        except BackendError as error:
            raise NotDurable(str(error)) from error
