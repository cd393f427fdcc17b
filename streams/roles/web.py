"""The web role, put together: webhooks come in, and the lag of all groups goes out."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

from starlette.types import ASGIApp

from connectors.clock import SystemClock
from connectors.registry import readers
from streams import __version__, topology
from streams.backends.producer import ReconnectingProducer, WebhookPublisher
from streams.observability.lag import LagExporter
from streams.observability.metrics import Metrics
from streams.observability.probes import Heartbeat, Probes, ProbesError
from streams.settings import KafkaSettings, RentStreamSettings
from streams.web.ingress import build_ingress
from streams.web.server import WebError, run_http


class WebFailed(RuntimeError):  # noqa: N818
    """The web role cannot start; the sentence says why and what to do."""


def run_web(env: Mapping[str, str], settings: RentStreamSettings, kafka: KafkaSettings) -> None:
    """Run until told to stop. Raises `WebFailed` and `connectors.settings.SettingsError`."""
    known = readers(env)
    metrics, heartbeat = Metrics(), Heartbeat()
    host, port = settings.http.rsplit(":", 1)
    admin_host, admin_port = (settings.admin or "127.0.0.1:9464").rsplit(":", 1)
    producer: ReconnectingProducer | None = None

    def ready() -> tuple[bool, str]:
        return producer.ready() if producer is not None else (False, "it is starting")

    @contextlib.asynccontextmanager
    async def parts() -> AsyncIterator[ASGIApp]:
        nonlocal producer
        client = {
            "bootstrap_servers": kafka.bootstrap_servers,
            "client_id": f"{settings.prefix}web",
            **kafka.security(),
        }
        producer = ReconnectingProducer(client, settings.prefix)
        await producer.start()
        lag = LagExporter(
            client, topology.groups(settings.delays), settings.partitions, metrics, SystemClock(), settings.prefix
        )
        tasks = [asyncio.create_task(heartbeat.run()), asyncio.create_task(lag.run())]
        try:
            publisher = WebhookPublisher(producer, settings.partitions)
            yield build_ingress(known, publisher, SystemClock(), count=metrics.webhook, version=__version__)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await producer.stop()

    try:
        with Probes(admin_host, int(admin_port), metrics, alive=heartbeat.check, ready=ready):
            run_http(parts, host, int(port))
    except (ProbesError, WebError) as error:
        raise WebFailed(str(error)) from None
