"""The events that a worker reports, as one protocol for the engine, the runners, the flows and the ports.

The callers do not depend on a metrics library. An observer must not block or raise. It is called on the event loop;
`worker_failed` may be called in any thread.
"""

from collections.abc import Mapping
from typing import Protocol

from connectors.ports import Accepted, Failure
from schemas.base import Model
from schemas.delivery import Batch, Doubt
from streams.core.flows import DoubtChange


class Observer(Protocol):
    """Receives the events of a worker; each method is documented in `NullObserver`."""

    def record_ended(self, flow: str, verdict: str, seconds: float) -> None: ...
    def dead_letter(self, origin: str, reason: str) -> None: ...
    def record_parked(self, flow: str, delay: str, reason: str) -> None: ...
    def breaker_moved(self, org: str, integration: str, state: str) -> None: ...
    def fold_counted(self, flow: str, record: Model, counts: Mapping[str, int]) -> None: ...

    def port_called(self, port: str, answer: object, seconds: float) -> None: ...
    def delivery_answered(self, batch: Batch, answer: Accepted | Failure) -> None: ...
    def oldest_undelivered(self, sink: str, partition: int, seconds: float) -> None: ...
    def dead_letters_open(self, partition: int, counts: Mapping[str, int]) -> None: ...
    def doubt_changed(self, change: DoubtChange) -> None: ...
    def doubts_counted(self, partition: int, counts: Mapping[Doubt, int]) -> None: ...
    def removals_counted(self, partition: int, counts: Mapping[str, int]) -> None: ...
    def unswept_counted(self, partition: int, counts: Mapping[str, int]) -> None: ...

    def batch_folded(self, flow: str, topic: str, records: int, seconds: float) -> None: ...
    def partition_scanned(self, scan: str, partition: int, effects: int, seconds: float) -> None: ...
    def partitions_assigned(self, partitions: frozenset[int], seconds: float) -> None: ...
    def partitions_stopped(self, counts: Mapping[str, int]) -> None: ...
    def records_lost(self, topic: str, records: int) -> None: ...
    def tables_recovered(self, records: int, seconds: float) -> None: ...
    def standbys_measured(self, records: int) -> None: ...
    def lag_measured(self, topic: str, partition: int, records: int) -> None: ...
    def worker_failed(self, code: int, reason: str) -> None: ...


class NullObserver:
    """Ignores every event; an observer of some events derives from it."""

    # ------------------------------------------------------------------------------------------------------- runners

    def record_ended(self, flow: str, verdict: str, seconds: float) -> None:
        """Report the end of a record: applied, ignored, duplicate, parked or dead, and its duration."""

    def dead_letter(self, origin: str, reason: str) -> None:
        """Report a dead letter of the topic ``origin`` (without prefix)."""

    def record_parked(self, flow: str, delay: str, reason: str) -> None:
        """Report a record that was parked on the rung of ``delay``."""

    def breaker_moved(self, org: str, integration: str, state: str) -> None:
        """Report the new state of the breaker of an integration: closed, open, half_open or ramping."""

    def fold_counted(self, flow: str, record: Model, counts: Mapping[str, int]) -> None:
        """Report the counts of a fold for one record, by names that the flow defines (``missed``, ``closed``)."""

    # --------------------------------------------------------------------------------------------- ports and delivery

    def port_called(self, port: str, answer: object, seconds: float) -> None:
        """Report a call of an external system through ``port``, with its answer and its duration."""

    def delivery_answered(self, batch: Batch, answer: Accepted | Failure) -> None:
        """Report the answer of a receiver to a batch."""

    def oldest_undelivered(self, sink: str, partition: int, seconds: float) -> None:
        """Report the age of a partition's oldest change that a receiver has not acknowledged; 0 if there is none."""

    def dead_letters_open(self, partition: int, counts: Mapping[str, int]) -> None:
        """Report how many deliveries of a partition have an open dead letter, by system of the receiver."""

    def doubt_changed(self, change: DoubtChange) -> None:
        """Report a doubt about the data of a PMS that appeared or ended."""

    def doubts_counted(self, partition: int, counts: Mapping[Doubt, int]) -> None:
        """Report how many units (of `NO_TIME_ZONE`: connections) of a partition have each doubt."""

    def removals_counted(self, partition: int, counts: Mapping[str, int]) -> None:
        """Report how many removals of a partition wait for a person, by system."""

    def unswept_counted(self, partition: int, counts: Mapping[str, int]) -> None:
        """Report how many enabled connections of a partition have no complete sweep yet, by system."""

    # -------------------------------------------------------------------------------------------------------- engine

    def batch_folded(self, flow: str, topic: str, records: int, seconds: float) -> None:
        """Report a batch that is durable, and the seconds since it was fetched."""

    def partition_scanned(self, scan: str, partition: int, effects: int, seconds: float) -> None:
        """Report a completed scan of a partition, with the number of emitted records and the seconds of computing."""

    def partitions_assigned(self, partitions: frozenset[int], seconds: float) -> None:
        """Report the end of a rebalance with the owned partitions, and its duration including recovery."""

    def partitions_stopped(self, counts: Mapping[str, int]) -> None:
        """Report how many partitions are stopped because a newer release wrote to them, by fold."""

    def records_lost(self, topic: str, records: int) -> None:
        """Report how many records of a topic Kafka may have lost before a group had read them."""

    def tables_recovered(self, records: int, seconds: float) -> None:
        """Report the end of a recovery, with the number of changelog records and its duration."""

    def standbys_measured(self, records: int) -> None:
        """Report how many records of changelogs the standby rows of this worker do not contain yet."""

    def lag_measured(self, topic: str, partition: int, records: int) -> None:
        """Report the number of records of an owned partition that are not processed yet; called every few seconds."""

    def worker_failed(self, code: int, reason: str) -> None:
        """Report a fatal error; the process ends with this exit code after the method returns."""
