"""Producer ids by partition, so that the broker refuses what a former owner of a partition still writes.

Every owner of partition *i* asks for the producer id of one transactional id, which raises its epoch, and then writes.
From then on a leader refuses every batch of an older epoch, also one that was under way for long (KIP-98). Nothing is
written in transactions: an epoch costs one request for each partition that is taken over, and nothing for a batch.
"""

import asyncio
import logging
from typing import Any, Final

from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.errors import (
    ConcurrentTransactions,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    KafkaError,
    NodeNotReadyError,
    NotCoordinatorError,
    RequestTimedOutError,
    TransactionalIdAuthorizationFailed,
    for_code,
)
from aiokafka.producer.transaction_manager import PidAndEpoch, TransactionManager
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.structs import TopicPartition

from streams.backends.ports import BackendError

log = logging.getLogger("streams.backends")

PAUSE: Final = 0.2
"""Seconds between two requests for a producer id."""
REPORT_EVERY: Final = 10.0
"""Seconds between two log lines while no producer id can be had."""
TIMEOUT_MS: Final = 60_000
"""Of a transaction, which the request has to name although there is none."""

_LATER: Final = (
    ConcurrentTransactions,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    NodeNotReadyError,
    NotCoordinatorError,
    RequestTimedOutError,
)


class Identities(TransactionManager):  # type: ignore[misc]
    """aiokafka's state of an idempotent producer, with an id and an epoch for each partition number.

    aiokafka asks for the sequence of a batch's partition, and then for the id and the epoch. A partition number without
    an identity of its own has that of the producer.
    """

    def __init__(self) -> None:
        super().__init__(None, 0)
        self._identities: dict[int, Any] = {}
        self._stamped = -1

    def sequence_number(self, tp: Any) -> int:
        self._stamped = tp.partition
        return int(super().sequence_number(tp))

    @property
    def producer_id(self) -> int:
        return int((self._identities.get(self._stamped) or self._pid_and_epoch).pid)

    @property
    def producer_epoch(self) -> int:
        return int((self._identities.get(self._stamped) or self._pid_and_epoch).epoch)

    def renew(self, producer_id: int, epoch: int) -> None:
        """Use another identity for the partition numbers without one of their own; its sequences begin at 0."""
        self._pid_and_epoch = PidAndEpoch(producer_id, epoch)
        for tp in [tp for tp in self._sequence_numbers if tp.partition not in self._identities]:
            del self._sequence_numbers[tp]

    def begin(self, partition: int, producer_id: int, epoch: int) -> None:
        """Use an identity for all topics of a partition number from now on; its sequences begin at 0."""
        self._identities[partition] = PidAndEpoch(producer_id, epoch)
        for tp in [tp for tp in self._sequence_numbers if tp.partition == partition]:
            del self._sequence_numbers[tp]


def install(producer: Any) -> Identities:
    """Give an idempotent producer of aiokafka, before its start, an identity for each partition number."""
    identities = Identities()
    producer._txn_manager = identities  # noqa: SLF001
    producer._message_accumulator._txn_manager = identities  # noqa: SLF001
    producer._sender._txn_manager = identities  # noqa: SLF001
    return identities


def is_waiting(producer: Any, topic: str, partition: int) -> bool:
    """Return whether aiokafka takes a batch of a partition only after it has sent another one."""
    return bool(producer._message_accumulator._batches.get(TopicPartition(topic, partition)))  # noqa: SLF001


def forget(producer: Any, error: Exception, partition: int | None = None) -> None:
    """Fail the batches of a partition number (null: of all) that were never sent; others keep the epoch they have."""
    batches = producer._message_accumulator._batches  # noqa: SLF001
    for tp in [tp for tp in batches if partition in (None, tp.partition)]:
        kept = [batch for batch in batches[tp] if batch.retry_count]
        for batch in batches[tp]:
            if not batch.retry_count:
                batch.failure(error)
                for future in (batch.future, batch._drain_waiter):  # noqa: SLF001
                    future.exception()  # marks it as retrieved: its writer may have given up
        if kept:
            batches[tp].clear()
            batches[tp].extend(kept)
        else:
            del batches[tp]


async def producer_id(client: Any, transactional_id: str | None) -> tuple[int, int]:
    """Return the producer id of a transactional id and its new epoch; wait while the cluster cannot answer.

    Without a transactional id it is a new one. Raise `BackendError` if the cluster refuses.
    """
    loop = asyncio.get_running_loop()
    reported_at = loop.time()
    while True:
        try:
            node, group = client.get_random_node(), ConnectionGroup.DEFAULT
            if transactional_id is not None:
                node = await client.coordinator_lookup(CoordinationType.TRANSACTION, transactional_id)
                group = ConnectionGroup.COORDINATION
            if not await client.ready(node, group=group):
                raise NodeNotReadyError(node)
            answer = await client.send(node, InitProducerIdRequest(transactional_id, TIMEOUT_MS), group=group)
            error = for_code(answer.error_code)
            if not answer.error_code:
                return int(answer.producer_id), int(answer.producer_epoch)
            raise error(transactional_id)
        except TransactionalIdAuthorizationFailed as refused:
            raise BackendError(
                f"the cluster does not permit the transactional id {transactional_id}: grant the operations Write and "
                "Describe on the transactional ids with the prefix of the group"
            ) from refused
        except _LATER as later:
            if loop.time() - reported_at >= REPORT_EVERY:
                reported_at = loop.time()
                log.warning(
                    "No producer id for %s yet (%s). A cluster of fewer than three brokers needs "
                    "transaction.state.log.replication.factor and transaction.state.log.min.isr",
                    transactional_id,
                    type(later).__name__,
                )
        except KafkaError as failed:
            if not failed.retriable:
                raise BackendError(f"no producer id for {transactional_id}: {failed!r}") from failed
        await asyncio.sleep(PAUSE)
