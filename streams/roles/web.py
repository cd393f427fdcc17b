"""The web role: webhooks, the API and the console on one port, and metrics with the consumer lag of all groups."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Literal
from urllib.parse import urlsplit

from starlette.types import ASGIApp

from connectors.clock import SystemClock
from connectors.http import open_client
from connectors.registry import webhook_url
from streams import __version__, topology
from streams.backends.clients import client_options
from streams.backends.producer import OrgWriter, ReconnectingProducer, WebhookPublisher
from streams.local.kept_secrets import console_password, encryption_keys, jwt_secret
from streams.local.processes import ProcessSpec, Supervisor
from streams.observability.instruments import show_holds
from streams.observability.lag import LagExporter
from streams.observability.metrics import Metrics
from streams.observability.probes import Heartbeat, Probes, ProbesError
from streams.replays.book import TOPICS as REPLAY_TOPICS
from streams.replays.book import ReplayBook
from streams.replays.planner import Planner
from streams.replays.service import Replays
from streams.roles.integrations import Known, kafka_backend, known
from streams.runners.global_ import Follow
from streams.settings import KafkaSettings, RentStreamSettings
from streams.syncs.book import SyncBook
from streams.syncs.service import Syncs
from streams.view.database import Database, ViewUnavailable, url_of
from streams.view.queries import Queries
from streams.web.answers import RequestIds
from streams.web.api.access import Health
from streams.web.api.app import build_api
from streams.web.api.tokens import Keys, SharedSecret, TokenVerifier, jwks
from streams.web.console.app import Console
from streams.web.console.sessions import Sessions
from streams.web.ingress import Count, build_ingress
from streams.web.server import WebError, run_http

log = logging.getLogger("streams.roles.web")

REFILL_SECONDS = 30.0
"""Seconds until the process of the query view is started again after it failed several times."""


class WebFailed(RuntimeError):  # noqa: N818
    """The web role cannot start; the text states the reason and what to do."""


Part = Literal["ingress", "console"]


def run_web(
    env: Mapping[str, str], settings: RentStreamSettings, kafka: KafkaSettings, only: Part | None = None
) -> None:
    """Run until stopped by a signal. Raise `WebFailed` and `connectors.settings.SettingsError`.

    ``only``: the ingress runs without the console and does not fill the query view, so that nothing else uses its
    processor; the console runs without webhooks. Both have the API.
    """
    clock = SystemClock()
    integrations = known(env, settings, kafka_backend(settings, kafka, "web-directory"), clock)
    book, followed = SyncBook(), tuple(topic.name for topic in topology.flow("follow_syncs").reads)
    syncing = Follow(kafka_backend(settings, kafka, "web-syncs"), followed, book, clock)
    backend, replays = kafka_backend(settings, kafka, "web-replays"), ReplayBook()
    replaying = Follow(backend, REPLAY_TOPICS, replays, clock)
    client = {
        "bootstrap_servers": kafka.bootstrap_servers,
        "client_id": f"{settings.prefix}web",
        **client_options(kafka),
    }
    followers = (
        (integrations.directory, integrations.follower, "the integrations"),
        (book, syncing, "the commands"),
        (replays, replaying, "the replays"),
    )
    metrics, heartbeat = Metrics(), Heartbeat()
    signing = SharedSecret(jwt_secret(settings)) if settings.jwt_jwks is None else None
    database = Database(url_of(settings))
    queries = Queries(database)
    metrics.watch("rentstream_view_age_seconds", lambda: _age(queries, clock))
    show_holds(metrics, integrations.directory.sink_systems, integrations.directory.held_systems)
    sessions = Sessions(console_password(settings), encryption_keys(settings)[0].key, clock)
    public_url = _public_url(env)
    producer: ReconnectingProducer | None = None

    tasks: list[asyncio.Task[None]] = []

    def alive() -> tuple[bool, str]:
        if producer is not None and producer.ended:
            return False, producer.ended
        ended = [task.get_name() for task in tasks if task.done()]
        return (False, f"{', '.join(ended)} ended") if ended else heartbeat.check()

    def ready() -> tuple[bool, str]:
        for memory, follower, what in followers:
            if not memory.caught_up:
                return False, follower.problem or f"{what} are being read"
        return producer.ready() if producer is not None else (False, "it is starting")

    @contextlib.asynccontextmanager
    async def parts() -> AsyncIterator[ASGIApp]:
        nonlocal producer
        producer = ReconnectingProducer(client, settings.prefix)
        await producer.start()
        lag = LagExporter(
            client, topology.groups(settings.delays), settings.partitions, metrics, clock, settings.prefix
        )
        tasks.extend(
            asyncio.create_task(run, name=name)
            for name, run in (
                ("the heartbeat", heartbeat.run()),
                ("the export of the lag", lag.run()),
                *((f"the follower of {what}", follower.run()) for _, follower, what in followers),
                *((("the query view", _fill_view(env)),) if only != "ingress" else ()),
            )
        )
        try:
            async with _keys(settings, signing, clock) as keys:
                writer = OrgWriter(producer, settings.partitions)
                yield _app(
                    only,
                    integrations,
                    writer,
                    Syncs(book, syncing, writer, integrations.directory, clock),
                    queries,
                    Replays(replays, replaying, writer, Planner(queries, backend, settings.partitions, clock), clock),
                    TokenVerifier(keys, clock),
                    sessions,
                    WebhookPublisher(producer, settings.partitions),
                    health=ready,
                    public_url=public_url,
                    count=metrics.webhook,
                )
        finally:
            running = tasks.copy()
            tasks.clear()
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await producer.stop()
            database.close()

    host, port = settings.http.rsplit(":", 1)
    admin_host, admin_port = settings.web_admin.rsplit(":", 1)
    try:
        with Probes(admin_host, int(admin_port), metrics, alive=alive, ready=ready):
            run_http(parts, host, int(port))
    except (ProbesError, WebError) as error:
        raise WebFailed(str(error)) from None


def _app(
    only: Part | None,
    integrations: Known,
    writer: OrgWriter,
    syncs: Syncs,
    view: Queries,
    replays: Replays,
    verifier: TokenVerifier,
    sessions: Sessions,
    publisher: WebhookPublisher,
    *,
    health: Health,
    public_url: str | None,
    count: Count,
) -> ASGIApp:
    """Return the app: webhooks in front of the console in front of the API."""
    clock = SystemClock()
    service = integrations.service(writer, clock)
    app = build_api(service, syncs, view, replays, verifier, version=__version__, health=health, public_url=public_url)
    if only != "ingress":
        secure = public_url is not None and public_url.startswith("https:")
        app = Console(app, service, syncs, sessions, clock, secure=secure)
    if only == "console":
        return RequestIds(app)
    return build_ingress(integrations.directory, publisher, clock, count=count, others=app)


async def _fill_view(env: Mapping[str, str]) -> None:
    """Keep a process running that fills the query view: it may use a whole core, and requests must not notice."""
    while True:
        children = Supervisor(lambda line: log.warning("%s", line))
        try:
            children.start(ProcessSpec("the process of the query view", ["view", "fill"], env))
            log.error("The query view is not filled: %s", await children.failed)
        finally:
            await children.stop()
        await asyncio.sleep(REFILL_SECONDS)


def _age(queries: Queries, clock: SystemClock) -> list[tuple[tuple[str, ...], float]]:
    """Return the age of the view, for the metric; nothing while it is not known."""
    try:
        as_of = queries.as_of()
    except ViewUnavailable:
        return []
    return [] if as_of is None else [((), max(0.0, (clock.now() - as_of).total_seconds()))]


@contextlib.asynccontextmanager
async def _keys(settings: RentStreamSettings, signing: SharedSecret | None, clock: SystemClock) -> AsyncIterator[Keys]:
    """Yield the keys that verify tokens: the shared secret, else those of the JWKS."""
    if signing is not None:
        yield signing
        return
    assert settings.jwt_jwks is not None
    # An identity provider may well have a private address.
    async with open_client(allow_private=settings.allow_private, any_address=True) as client:
        keys = jwks(settings.jwt_jwks, client, clock, allow_private=settings.allow_private)
        try:
            yield keys
        finally:
            await keys.aclose()


def _public_url(env: Mapping[str, str]) -> str | None:
    """Return the public URL of this role; null if the environment has none."""
    url = webhook_url(env)
    if url is None:
        return None
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
