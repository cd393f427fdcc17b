"""Throughput of webhooks: the ingress with acknowledged writes to Kafka, relative to a bare ASGI app.

    python -m benchmarks.ingress [--seconds 5] [--connections 64] [--kafka host:port]

Both run in separate processes with the same server settings and are measured in alternating turns. Only the ratio of
one run is meaningful, because absolute numbers depend on the machine.
"""

import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from pydantic import SecretBytes, SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from connectors.clock import SystemClock
from connectors.registry import systems
from schemas import topics
from schemas.codec import encode
from schemas.integrations import Integration, IntegrationMode, IntegrationRole
from streams.backends.producer import ReconnectingProducer, WebhookPublisher
from streams.directory.directory import Directory
from streams.directory.keyring import KeyRing
from streams.local.embedded_kafka import EmbeddedKafka
from streams.observability.metrics import Metrics
from streams.settings import EncryptionKey
from streams.web.ingress import build_ingress
from streams.web.server import run_http

SECRET = "benchmark-secret"
PARTITIONS = 12
ORGS = 8
PREFIX = "bench."

# ------------------------------------------------------------------------------------------------------------ servers


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """The minimum of an ASGI app for a POST: read the body and answer 200."""
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"11")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"ok":true}'})


@asynccontextmanager
async def open_bare() -> AsyncIterator[ASGIApp]:
    yield bare


def directory() -> Directory:
    """Return a directory with one stored Buildium integration for each org, its webhook token ``c<number>``."""
    keyring = KeyRing([EncryptionKey("bench", SecretBytes(b"k" * 32))])
    made = Directory(systems({}), {}, environment_enabled=False, keyring=keyring)
    now = datetime.now(UTC)
    for number in range(ORGS):
        org = f"org-{number}"
        secrets = tuple(
            keyring.seal(
                SecretStr(value), org=org, integration="buildium", name=name, added_at=now, nonce=os.urandom(12)
            )
            for name, value in (("clientId", "id"), ("clientSecret", "secret"), ("webhookSecret", SECRET))
        )
        record = Integration(
            org=org,
            name="buildium",
            system="buildium",
            role=IntegrationRole.SOURCE,
            mode=IntegrationMode.SANDBOX,
            enabled=True,
            secrets=secrets,
            webhook_token=f"c{number}",
            created_at=now,
            changed_at=now,
            changed_by="benchmark",
            enabled_at=now,
        )
        made.apply(topics.INTEGRATIONS.name, f"{org}/buildium".encode(), encode(record))
    made.caught_up = True
    return made


def open_ingress(kafka: str) -> Callable[[], "AsyncIterator[ASGIApp]"]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[ASGIApp]:
        producer = ReconnectingProducer({"bootstrap_servers": kafka, "client_id": "bench"}, PREFIX)
        await producer.start()
        metrics = Metrics()
        try:
            publisher = WebhookPublisher(producer, PARTITIONS)
            yield build_ingress(directory(), publisher, SystemClock(), count=metrics.webhook)
        finally:
            await producer.stop()

    return opened  # type: ignore[return-value]


def serve(name: str, port: int, kafka: str) -> None:
    run_http(open_bare if name == "bare" else open_ingress(kafka), "127.0.0.1", port)  # type: ignore[arg-type]


@contextmanager
def server(name: str, kafka: str):  # type: ignore[no-untyped-def]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.ingress", "--serve", name, "--port", str(port),
                                "--kafka", kafka])  # fmt: skip
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


# --------------------------------------------------------------------------------------------------------------- load


def request(org: int) -> bytes:
    body = json.dumps(
        {"EventName": "Rental.Updated", "EventDateTime": "2026-01-15T02:00:00Z", "AccountId": 1, "PropertyId": org + 1},
        separators=(",", ":"),
    ).encode()
    sent = str(int(time.time())).encode()
    signature = base64.b64encode(hmac.digest(SECRET.encode(), sent + b"." + body, hashlib.sha256))
    return (
        b"POST /api/webhooks/buildium/c%d HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"user-agent: Buildium\r\nbuildium-webhook-timestamp: %b\r\nbuildium-webhook-signature: %b\r\n"
        b"content-length: %d\r\n\r\n%b" % (org, sent, signature, len(body), body)
    )


@dataclass
class Load:
    """Measurement of one turn."""

    seconds: float = 0.0
    answers: int = 0
    failures: int = 0
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.answers / self.seconds

    @property
    def p99(self) -> float:
        return sorted(self.latencies)[int(len(self.latencies) * 0.99)]


class Client(asyncio.Protocol):
    """A keep-alive connection that always has one request in progress."""

    def __init__(self, sent: bytes, load: Load) -> None:
        self._sent = sent
        self._load = load
        self._buffer = b""
        self._started = 0.0
        self._stopped = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:  # uvloop transports are not an asyncio.Transport
        self._transport = transport
        self._request()

    def _request(self) -> None:
        self._started = time.perf_counter()
        self._transport.write(self._sent)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        length = self._buffer.find(b"content-length: ") + 16
        if len(self._buffer) < head + 4 + int(self._buffer[length : self._buffer.find(b"\r\n", length)]):
            return
        self._load.latencies.append(time.perf_counter() - self._started)
        if self._buffer[9:10] == b"2":
            self._load.answers += 1
        else:
            self._load.failures += 1
        self._buffer = b""
        if self._stopped:
            self._transport.close()
        else:
            self._request()

    def stop(self) -> None:
        self._stopped = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)


async def generate_load(port: int, connections: int, seconds: float) -> Load:
    """Load a server over some connections; return the measurement after a short warm-up."""
    load = Load()
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda org=number % ORGS: Client(request(org), load), "127.0.0.1", port))[1]  # type: ignore[misc]
        for number in range(connections)
    ]
    await asyncio.sleep(0.5)
    load.answers, load.latencies = 0, []
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    load.seconds = time.perf_counter() - started
    measured = Load(load.seconds, load.answers, load.failures, list(load.latencies))
    for client in clients:
        client.stop()
    await asyncio.gather(*(client.closed for client in clients))
    return measured


# -------------------------------------------------------------------------------------------------------------- report


async def make_topic(kafka: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(PREFIX + topics.WEBHOOKS.name, PARTITIONS, 1)])
    finally:
        await admin.close()


def run(loading: Awaitable[Load]) -> Load:
    return uvloop.run(_awaited(loading))


async def _awaited(loading: Awaitable[Load]) -> Load:
    return await loading


def compare(kafka: str, connections: int, seconds: float, turns: int) -> float:
    asyncio.run(make_topic(kafka))
    totals: dict[str, list[Load]] = {"bare": [], "ingress": []}
    with server("bare", kafka) as bare_port, server("ingress", kafka) as ingress_port:
        ports = {"bare": bare_port, "ingress": ingress_port}
        for turn in range(turns + 1):
            for name, port in ports.items():
                load = run(generate_load(port, connections, seconds if turn else 1.0))
                if turn:  # the first turn is a warm-up
                    totals[name].append(load)
    for name, loads in totals.items():
        rate = sum(load.answers for load in loads) / sum(load.seconds for load in loads)
        p99 = max(load.p99 for load in loads)
        failures = sum(load.failures for load in loads)
        print(f"{name:8} {rate:8.0f} requests/s   p99 {p99 * 1000:6.1f} ms   {failures} failed")
    ratios = [
        ingress.rate / reference.rate for reference, ingress in zip(totals["bare"], totals["ingress"], strict=True)
    ]
    median = sorted(ratios)[len(ratios) // 2]
    p99 = max(load.p99 for load in totals["ingress"]) / max(load.p99 for load in totals["bare"])
    print(f"ratio    {median:.2f} of the rate of the bare app (turns: {', '.join(f'{ratio:.2f}' for ratio in ratios)})")
    print(f"         {p99:.1f} times its p99")
    return median


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--kafka", default="")
    parser.add_argument("--serve", choices=["bare", "ingress"])
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.port, options.kafka)
        return
    if options.kafka:
        compare(options.kafka, options.connections, options.seconds, options.turns)
        return
    with tempfile.TemporaryDirectory() as folder, EmbeddedKafka(Path(folder) / "kafka") as broker:
        compare(broker.bootstrap_servers, options.connections, options.seconds, options.turns)


if __name__ == "__main__":
    main()
