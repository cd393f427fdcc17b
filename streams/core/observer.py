"""What a worker reports while it runs: one protocol for the engine, the runners, the flows and the measured ports.

The callers know no metrics library. An observer must not wait and must not raise; it is called on the event loop,
`worker_failed` on any thread.
"""

from collections.abc import Mapping
from typing import Protocol

from connectors.ports import Accepted, Failure
from schemas.base import Model
from schemas.delivery import Batch


class Observer(Protocol):
    """Receives what happens in a worker; `NullObserver` documents each method."""

    def record_ended(self, flow: str, verdict: str, seconds: float) -> None: ...
    def dead_letter(self, origin: str, reason: str) -> None: ...
    def record_parked(self, flow: str, delay: str, reason: str) -> None: ...
    def breaker_moved(self, org: str, integration: str, state: str) -> None: ...
    def fold_counted(self, flow: str, record: Model, counts: Mapping[str, int]) -> None: ...

    def port_called(self, port: str, answer: object, seconds: float) -> None: ...
    def delivery_answered(self, batch: Batch, answer: Accepted | Failure) -> None: ...
    def oldest_undelivered(self, sink: str, partition: int, seconds: float) -> None: ...

    def batch_folded(self, flow: str, topic: str, records: int, seconds: float) -> None: ...
    def partition_scanned(self, scan: str, partition: int, effects: int, seconds: float) -> None: ...
    def partitions_assigned(self, partitions: frozenset[int], seconds: float) -> None: ...
    def tables_recovered(self, records: int, seconds: float) -> None: ...
    def lag_measured(self, topic: str, partition: int, records: int) -> None: ...
    def worker_failed(self, code: int, reason: str) -> None: ...


class NullObserver:
    """Does nothing; an observer of some events derives from it."""

    # ------------------------------------------------------------------------------------------------------- runners

    def record_ended(self, flow: str, verdict: str, seconds: float) -> None:
        """A record ended as applied, ignored, duplicate, parked or dead, so many seconds after it was taken."""

    def dead_letter(self, origin: str, reason: str) -> None:
        """A record of the topic ``origin`` (without prefix) was given up."""

    def record_parked(self, flow: str, delay: str, reason: str) -> None:
        """A record waits on the rung of ``delay``."""

    def breaker_moved(self, org: str, integration: str, state: str) -> None:
        """The breaker of an integration is closed, open or half open now."""

    def fold_counted(self, flow: str, record: Model, counts: Mapping[str, int]) -> None:
        """A fold found facts in a record, by names that the flow knows (``missed``, ``held_back``)."""

    # --------------------------------------------------------------------------------------------- ports and delivery

    def port_called(self, port: str, answer: object, seconds: float) -> None:
        """A call of the outside through ``port`` was answered."""

    def delivery_answered(self, batch: Batch, answer: Accepted | Failure) -> None:
        """A receiver answered a batch."""

    def oldest_undelivered(self, sink: str, partition: int, seconds: float) -> None:
        """The oldest change of a partition that a receiver has not acknowledged has this age; 0 if there is none."""

    # -------------------------------------------------------------------------------------------------------- engine

    def batch_folded(self, flow: str, topic: str, records: int, seconds: float) -> None:
        """A batch is durable, so many seconds after it was delivered."""

    def partition_scanned(self, scan: str, partition: int, effects: int, seconds: float) -> None:
        """A scan looked at a partition to its end and emitted so many records."""

    def partitions_assigned(self, partitions: frozenset[int], seconds: float) -> None:
        """A rebalance ended: this worker owns these partitions; the time is that from its first sign to recovery."""

    def tables_recovered(self, records: int, seconds: float) -> None:
        """A recovery ended, which read so many records of changelogs."""

    def lag_measured(self, topic: str, partition: int, records: int) -> None:
        """So many records of an owned partition wait or are being worked on; every few seconds."""

    def worker_failed(self, code: int, reason: str) -> None:
        """The process ends with this exit code when this returns."""
