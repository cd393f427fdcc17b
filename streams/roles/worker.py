"""The stream worker, put together: the engine with its folds and scans, the calls and redeliveries as its services."""

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
from streams.observability.instruments import MeasuredSink, MeasuredSource, PrometheusObserver
from streams.observability.metrics import Metrics
from streams.observability.probes import Probes, ProbesError
from streams.roles.integrations import Known, kafka_backend, known
from streams.runners.global_ import Follow
from streams.runners.service import Runnable, RunnerService
from streams.settings import KafkaSettings, RentStreamSettings
from streams.wiring import Dependencies, calls, folds, redeliveries, scans

log = logging.getLogger("streams.roles.worker")

ALIVE_WITHIN = 30.0
"""Seconds of silence of the event loop after which a worker does not count as alive."""


SAME_EVERY = 10.0
"""Seconds in which aiokafka may say the same thing once."""


class RepeatFilter(logging.Filter):
    """Lets aiokafka say a thing only now and then: with a broker away it says it hundreds of times a second."""

    def __init__(self, every: float = SAME_EVERY) -> None:
        super().__init__()
        self._every = every
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record may be written."""
        if not record.name.startswith("aiokafka"):
            return True
        said, now = (record.name, str(record.msg)), time.monotonic()
        if now - self._said.get(said, float("-inf")) < self._every:
            return False
        self._said[said] = now
        return True


class WorkerFailed(RuntimeError):  # noqa: N818
    """The worker cannot start; the sentence says why and what to do."""


def worker_name() -> str:
    """Name a worker that was given no name: by its machine, so that its state on disk is found again."""
    return socket.gethostname()


def run_worker_role(
    env: Mapping[str, str], settings: RentStreamSettings, kafka: KafkaSettings, name: str | None
) -> int:
    """Run one worker until it is told to stop; returns its exit code.

    Raises `WorkerFailed` and `connectors.settings.SettingsError`.
    """
    clock, name = SystemClock(), name or worker_name()
    integrations = known(env, settings, kafka_backend(settings, kafka, f"{name}-directory"), clock)
    metrics = Metrics()
    engine = build(settings, kafka, integrations, metrics, name)
    seldom = RepeatFilter()
    for handler in logging.getLogger().handlers:
        handler.addFilter(seldom)
    asyncio.run(_look(settings, kafka))
    host, port = settings.worker_admin.rsplit(":", 1)
    pages = Probes(
        host,
        int(port),
        metrics,
        alive=lambda: (
            engine.status.heartbeat_age < ALIVE_WITHIN,
            f"the loop ran {engine.status.heartbeat_age:.1f} s ago",
        ),
        ready=lambda: readiness(engine),
    )
    try:
        pages.start()
    except ProbesError as error:
        raise WorkerFailed(str(error)) from None
    try:
        return run_worker(engine)
    finally:
        pages.stop()


async def _look(settings: RentStreamSettings, kafka: KafkaSettings) -> None:
    """See that Kafka answers and the topics are there, which else every part would find out by itself and crash."""
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
    """Say whether a worker takes part, in a sentence."""
    status = engine.status
    if status.reason:
        return False, status.reason
    if status.stopping:
        return False, "it is stopping"
    if not status.started:
        return False, "it is starting"
    if status.moving:
        return False, "partitions move or tables recover"
    return True, f"it works on {len(status.partitions)} partitions"


def build(
    settings: RentStreamSettings, kafka: KafkaSettings, integrations: Known, metrics: Metrics, name: str
) -> Engine:
    """Return a worker, put together but not running.

    Raise `connectors.settings.SettingsError` if Kafka's certificate cannot be read.
    """
    assert kafka.bootstrap_servers is not None
    clock, directory = SystemClock(), integrations.directory
    observer = PrometheusObserver(metrics, clock, directory.system_of)
    clients = Clients(
        directory,
        clock,
        random.Random(),  # noqa: S311 -- jitter
        source_wrapper=lambda one: MeasuredSource(one, observer, clock),
        sink_wrapper=lambda one: MeasuredSink(one, observer, clock),
    )
    for system in directory.sink_systems:
        metrics.hold(system, held=False)
    metrics.watch(
        "rentstream_api_budget_used_ratio",
        lambda: [((system,), used) for system, used in clients.used_ratios().items()],
    )
    needs = Dependencies(
        directory=directory,
        clients=clients,
        clock=clock,
        observer=observer,
        rungs=settings.rungs,
        partitions=settings.partitions,
        sweep_every=settings.sweep_every,
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
    runners: tuple[Runnable, ...] = (*calls(needs, backend), *redeliveries(needs, backend))
    for runner in runners:
        engine.service(partial(RunnerService, runner))
    return engine


class Following:
    """The global flow beside the engine: no record is consumed before all integrations are known."""

    def __init__(self, follower: Follow, clients: Clients) -> None:
        self._follower = follower
        self._clients = clients

    async def run(self) -> None:
        """Follow the integrations until stopped."""
        await self._follower.run()

    async def ready(self) -> None:
        """Return when all stored integrations are known."""
        await self._follower.caught_up()

    async def stop(self) -> None:
        """Close the clients, and follow no more."""
        await self._clients.aclose()
        await self._follower.stop()
