"""The Faust application: which parts of Faust are replaced, and the settings under which the rest is safe."""
# ruff: noqa: SLF001 - see consumer.py

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import faust
from faust.types import TP

from streams.backends.membership import Membership
from streams.core.observer import Observer
from streams.engine.agents import Waiting
from streams.engine.assignor import Assignor
from streams.engine.consumer import Consumer, Transport
from streams.engine.fatal import Exit, Fatal
from streams.engine.output import Output
from streams.engine.security import broker_credentials
from streams.engine.settings import EngineSettings
from streams.engine.stores import PartitionStore
from streams.engine.tables import RowTable
from streams.engine.watchdog import PartitionVitals, Vitals

POLL_BATCHES = 4
"""Batches of one partition that are taken over at once: less than a queue takes, so that partitions take turns."""


class BatchSchema(faust.Schema):  # type: ignore[misc]
    """Leaves keys and values as the consumer made them: the value of an event is a list of aiokafka's records."""

    def loads_key(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:  # noqa: ARG002
        return message.key

    def loads_value(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:  # noqa: ARG002
        return message.value


def _monitor(fatal: Fatal) -> type:
    class FailStop(faust.Monitor):  # type: ignore[misc]
        """Ends the process if Faust's producer, which the engine does not use, fails: Faust would log it and commit."""

        def on_send_error(self, producer: Any, exc: BaseException, state: Any) -> None:
            super().on_send_error(producer, exc, state)
            fatal(Exit.SEND_FAILED, f"Faust could not send a record: {exc!r}", exc)

    return FailStop


class App(faust.App):  # type: ignore[misc]
    """One member of the consumer group."""

    def __init__(
        self, settings: EngineSettings, observer: Observer, fatal: Fatal, output: Output, membership: Membership
    ) -> None:
        self.settings = settings
        self.output = output
        self.membership = membership
        self.observer = observer
        self.table_of_changelog: dict[str, RowTable] = {}
        self.readers: Counter[str] = Counter()
        self.batch_sizes: dict[str, int] = {}
        """Records in one batch, by topic, for folds that declare a size of their own."""
        self.when_recovered: Callable[[], Awaitable[None]] | None = None
        self.when_moving: tuple[Callable[[bool], None], ...] = ()
        self.ends: dict[TP, int] = {}
        self.stopped: dict[TP, str] = {}
        """Partitions of source topics that are stopped, each with its fold; the worker does not end for that."""
        self.waiting: dict[tuple[str, TP], Waiting] = {}
        """Failed records that wait until others succeed, by fold and partition."""
        self._moving_since: float | None = None
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        super().__init__(
            settings.app_id,
            broker=[f"kafka://{server}" for server in settings.servers],
            broker_credentials=broker_credentials(settings.security),
            broker_client_id=f"{settings.app_id}-{settings.worker}",
            datadir=settings.state_dir / "faust",
            canonical_url=f"http://{settings.worker}:6066",
            store="memory://",  # not used: tables have their own
            Monitor=_monitor(fatal),
            autodiscover=False,
            # Faust's exactly_once writes outside of its transactions. Folds are idempotent instead.
            processing_guarantee="at_least_once",
            stream_wait_empty=True,
            stream_buffer_maxsize=settings.queue_size,
            broker_max_poll_records=settings.batch_size * POLL_BATCHES,
            broker_commit_interval=settings.commit_interval,
            broker_commit_every=1_000_000,
            broker_session_timeout=settings.session_timeout,
            broker_heartbeat_interval=settings.heartbeat_interval,
            broker_rebalance_timeout=settings.rebalance_timeout,
            broker_request_timeout=max(settings.request_timeout, settings.session_timeout + 5),
            consumer_auto_offset_reset="earliest",
            consumer_max_fetch_size=settings.fetch_bytes,
            producer_acks=-1,
            producer_request_timeout=settings.request_timeout,
            topic_partitions=settings.partitions,
            topic_replication_factor=settings.replication_factor,
            topic_allow_declare=False,
            topic_disable_leader=True,
            PartitionAssignor=Assignor,
            table_standby_replicas=settings.standbys,
            web_enabled=False,
            worker_redirect_stdouts=False,
        )
        self.in_worker = True

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)

    def row_table(self, name: str, rows: PartitionStore) -> RowTable:
        table = RowTable(
            self,
            name=name,
            rows=rows,
            partitions=self.settings.partitions,
            key_type=bytes,
            value_type=bytes,
            beacon=self.tables.beacon,
        )
        self.tables.add(table)
        self.table_of_changelog[table.changelog_topic_name] = table
        return table

    def poll_limits(self, topic: str) -> tuple[int, int]:
        """Return how many records of one partition are taken over at once, and about how many bytes of values."""
        settings = self.settings
        if topic in self.table_of_changelog:
            return POLL_BATCHES * settings.batch_size, settings.fetch_bytes
        return POLL_BATCHES * self.batch_sizes.get(topic, settings.batch_size), POLL_BATCHES * settings.batch_bytes

    def batches(self, topics: tuple[str, ...]) -> Any:
        """Return one channel over all topics; its events are batches."""
        self.readers.update(topics)
        schema = BatchSchema(key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
        return self.topic(*topics, schema=schema, partitions=self.settings.partitions)

    # ----------------------------------------------------------------------------------------------------- observing

    @property
    def batch_consumer(self) -> Consumer | None:
        consumer: Consumer | None = self._consumer
        return consumer

    @property
    def moving(self) -> bool:
        """Whether folds may not run: partitions move, tables recover, or the first recovery has not ended."""
        return bool(self.rebalancing or self.in_recovery or not self.tables.actives_ready)

    def owned(self) -> frozenset[TP]:
        """Return the partitions of source topics that are assigned to this worker."""
        consumer = self._consumer
        if consumer is None or consumer._thread._consumer is None:
            return frozenset()
        return frozenset(TP(*tp) for tp in consumer.assignment() if tp.topic in self.readers)

    def standbys(self) -> frozenset[TP]:
        """Return the partitions of changelogs of which this worker keeps standby rows."""
        assignor: Assignor = self.assignor
        return frozenset(tp for tp in assignor.standbys() if tp.topic in self.table_of_changelog)

    def on_rebalance_start(self) -> None:
        if self._moving_since is None:
            self._moving_since = time.monotonic()
        super().on_rebalance_start()
        for call in self.when_moving:
            call(True)

    def on_rebalance_end(self) -> None:
        super().on_rebalance_end()
        consumer: Consumer = self._consumer
        restored, consumer.restored = consumer.restored, 0
        since, self._moving_since = self._moving_since, None
        seconds = time.monotonic() - since if since is not None else 0.0
        self.observer.tables_recovered(restored, seconds)
        self.observer.partitions_assigned(frozenset(tp.partition for tp in self.owned()), seconds)
        for call in self.when_moving:
            call(False)

    async def on_started_init_extra_services(self) -> None:
        await super().on_started_init_extra_services()
        if self.when_recovered is not None:
            await self.when_recovered()

    def vitals(self, beat_age: float, answer_age: float) -> Vitals:
        """Return what the watchdog needs; called from the watchdog's thread, so it only reads."""
        consumer = self._consumer
        if consumer is None:
            return Vitals(moving=True, beat_age=beat_age, answer_age=answer_age)
        thread = consumer._thread
        partitions = {}
        halted = self.stopped.keys() | {tp for _, tp in self.waiting}
        for tp in () if self.moving else self.owned() - halted:
            tracker = consumer.trackers.get(tp)
            partitions[tp] = PartitionVitals(
                done=tracker.done if tracker else None,
                delivered=tracker.delivered if tracker else None,
                position=thread.fetch_position(tp),
                end=self.ends.get(tp),
                waiting=tracker.waiting if tracker else 0,
            )
        works = any(tracker.waiting for tp, tracker in consumer.trackers.items() if tp not in halted)
        return Vitals(
            group_error=thread.group_error(),
            overdue=self.membership.overdue() if works else None,
            moving=self.moving,
            progress=(self.rebalancing_count, consumer.restored, int(self.in_recovery), int(self.rebalancing)),
            partitions=partitions,
            beat_age=beat_age,
            answer_age=answer_age,
        )
