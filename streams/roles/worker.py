"""The worker role: the engine with its folds and scans, and the calls and redeliveries as its services."""

import asyncio
import logging
import random
import socket
import time
from collections.abc import Mapping
from functools import partial

from connectors.clock import SystemClock
from streams import topology
from streams.backends.admin import TopicAdmin, TopicError
from streams.backends.clients import client_options
from streams.directory.clients import Clients
from streams.engine import Engine, EngineSettings, run_worker
from streams.engine.folder import FolderError, held
from streams.observability.instruments import (
    MeasuredGateway,
    MeasuredSink,
    MeasuredSource,
    PrometheusObserver,
    show_holds,
)
from streams.observability.metrics import Metrics
from streams.observability.probes import Probes, ProbesError
from streams.replays.book import TOPICS as REPLAY_TOPICS
from streams.replays.book import ReplayBook
from streams.roles.integrations import Known, kafka_backend, known
from streams.runners.global_ import Follow
from streams.runners.service import Runnable, RunnerService
from streams.settings import KafkaSettings, RentStreamSettings
from streams.wiring import Dependencies, calls, folds, redeliveries, scans

log = logging.getLogger("streams.roles.worker")

ALIVE_WITHIN = 30.0
"""Seconds without a run of the event loop after which a worker does not count as alive."""

REPEAT_EVERY = 10.0
"""Seconds between two log records of aiokafka with the same message."""


class RepeatFilter(logging.Filter):
    """Drops repeated messages of aiokafka, which logs hundreds of them per second while a broker is unavailable."""

    def __init__(self, every: float = REPEAT_EVERY) -> None:
        super().__init__()
        self._every = every
        self._logged_at: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is to be logged."""
        if not record.name.startswith("aiokafka"):
            return True
        message, now = (record.name, str(record.msg)), time.monotonic()
        if now - self._logged_at.get(message, float("-inf")) < self._every:
            return False
        self._logged_at[message] = now
        return True


class WorkerFailed(RuntimeError):  # noqa: N818
    """The worker cannot start; the text states the reason and what to do."""


def worker_name() -> str:
    """Return the default name of a worker, that of its machine, so that a restart finds its state on disk."""
    return socket.gethostname()


def run_worker_role(
    env: Mapping[str, str], settings: RentStreamSettings, kafka: KafkaSettings, name: str | None
) -> int:
    """Run one worker until it is stopped; return its exit code.

    Raise `WorkerFailed` and `connectors.settings.SettingsError`.
    """
    clock, name = SystemClock(), name or worker_name()
    integrations = known(env, settings, kafka_backend(settings, kafka, f"{name}-directory"), clock)
    metrics = Metrics()
    engine = build(settings, kafka, integrations, metrics, name)
    repeat_filter = RepeatFilter()
    for handler in logging.getLogger().handlers:
        handler.addFilter(repeat_filter)
    asyncio.run(_check_topics(settings, kafka))
    host, port = settings.worker_admin.rsplit(":", 1)
    probes = Probes(
        host,
        int(port),
        metrics,
        alive=lambda: (
            engine.status.heartbeat_age < ALIVE_WITHIN,
            f"the event loop ran {engine.status.heartbeat_age:.1f} s ago",
        ),
        ready=lambda: readiness(engine),
    )
    try:
        with held(engine.settings.state_dir):
            probes.start()
            try:
                return run_worker(engine)
            finally:
                probes.stop()
    except (FolderError, ProbesError) as error:
        raise WorkerFailed(str(error)) from None


async def _check_topics(settings: RentStreamSettings, kafka: KafkaSettings) -> None:
    """Check that Kafka answers and the topics exist, so that a problem is one error. Raise `WorkerFailed`."""
    admin = TopicAdmin(
        kafka.bootstrap_servers or "",
        prefix=settings.prefix,
        partitions=settings.partitions,
        security=client_options(kafka),
    )
    try:
        async with admin:
            wrong = await admin.unusable(topology.all_topics(settings.delays))
    except TopicError as error:
        raise WorkerFailed(str(error)) from None
    if wrong:
        raise WorkerFailed("\n  ".join(wrong))


def readiness(engine: Engine) -> tuple[bool, str]:
    """Return whether a worker processes records, and a sentence with the reason."""
    status = engine.status
    if status.reason:
        return False, status.reason
    if status.stopping:
        return False, "it is stopping"
    if not status.started:
        return False, "it is starting"
    if status.moving:
        return False, "a rebalance or a recovery of tables is in progress"
    return True, f"it owns {len(status.partitions)} partitions"


def build(
    settings: RentStreamSettings, kafka: KafkaSettings, integrations: Known, metrics: Metrics, name: str
) -> Engine:
    """Return the engine of a worker, which is not running yet.

    Raise `connectors.settings.SettingsError` if Kafka's certificate cannot be read.
    """
    assert kafka.bootstrap_servers is not None
    clock, directory = SystemClock(), integrations.directory
    observer = PrometheusObserver(metrics, clock, directory.system_of, settings.prefix)
    clients = Clients(
        directory,
        clock,
        random.Random(),  # noqa: S311 -- jitter
        source_wrapper=lambda one: MeasuredSource(one, observer, clock),
        gateway_wrapper=lambda one: MeasuredGateway(one, observer, clock),
        sink_wrapper=lambda one: MeasuredSink(one, observer, clock),
    )
    show_holds(metrics, directory.sink_systems, directory.held_systems)
    metrics.watch(
        "rentstream_api_budget_used_ratio",
        lambda: [((system,), used) for system, used in clients.used_ratios().items()],
    )
    replays = ReplayBook()
    replaying = Follow(kafka_backend(settings, kafka, f"{name}-replays"), REPLAY_TOPICS, replays, clock)
    needs = Dependencies(
        directory=directory,
        replays=replays,
        clients=clients,
        clock=clock,
        observer=observer,
        rungs=settings.rungs,
        partitions=settings.partitions,
        sweep_every=settings.sweep_every,
        pulse_every=settings.pulse_every,
        linger=settings.linger,
    )
    engine = Engine(
        EngineSettings(
            bootstrap_servers=kafka.bootstrap_servers,
            security=client_options(kafka),
            app_id=settings.prefix + topology.APP,
            worker=name,
            data_dir=settings.data / "workers",
            partitions=settings.partitions,
            replication_factor=kafka.replication_factor,
            store=settings.store,
            session_timeout=settings.session_timeout,
        ),
        observer,
    )
    engine.background(Following(integrations.follower, clients))
    engine.background(Following(replaying))
    tables = {table: engine.table(table) for table in topology.tables()}
    for part in folds(needs):
        assert part.flow.table is not None
        engine.fold(
            part.flow.name,
            [settings.prefix + topic.name for topic in part.flow.reads],
            tables[part.flow.table],
            part.runner(needs, settings.prefix),
            reads=[tables[table] for table in part.flow.views],
            batch_size=part.flow.batch_size,
        )
    for scan in scans(needs):
        engine.scan(
            scan.flow.name,
            scan.every,
            scan.runner(settings.prefix),
            reads=[tables[table] for table in scan.flow.views],
            on_assigned=True,
        )
    backend = kafka_backend(settings, kafka, name)
    calling = calls(needs, backend)
    for one in calling:
        engine.when_moving(one.hold_background)
    runners: tuple[Runnable, ...] = (*calling, *redeliveries(needs, backend))
    for runner in runners:
        engine.service(partial(RunnerService, runner))
    return engine


class Following:
    """A global flow: the engine consumes no record before all that it follows is read."""

    def __init__(self, follower: Follow, clients: Clients | None = None) -> None:
        """``clients``: those of the integrations, which are closed at the end."""
        self._follower = follower
        self._clients = clients

    async def run(self) -> None:
        """Follow until stopped."""
        await self._follower.run()

    async def ready(self) -> None:
        """Wait until all is read that was written before the start."""
        await self._follower.caught_up()

    async def stop(self) -> None:
        """Close the clients and stop following."""
        if self._clients is not None:
            await self._clients.aclose()
        await self._follower.stop()
