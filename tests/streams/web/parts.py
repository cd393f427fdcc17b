"""Fakes and a raw HTTP client for the tests of the ingress."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from starlette.types import ASGIApp

from connectors.ports import Refused, WebhookReader
from connectors.serving import PromptServer
from schemas.base import EntityKind
from schemas.pms import FetchOrigin, FetchRequest
from streams.backends.ports import NotDurable
from streams.web.ingress import build_ingress
from streams.web.server import Connection, Server, config, listen

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class FixedClock:
    """A clock that always shows noon."""

    def now(self) -> datetime:
        return NOON

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


@dataclass
class Reader:
    """A webhook reader that accepts the signature `yes`."""

    org: str = "default"
    ignored: str | None = None

    def read(self, headers: Sequence[tuple[bytes, bytes]], body: bytes, now: datetime) -> FetchRequest | Refused:
        if (b"signature", b"yes") not in headers:
            return Refused(401, "not signed")
        if body == b"bug":
            raise RuntimeError("a bug")
        try:
            event = json.loads(body)["EventName"]
        except (ValueError, KeyError, TypeError):
            return Refused(400, "not an event")
        return FetchRequest(
            org=self.org,
            connection="buildium",
            origin=FetchOrigin.WEBHOOK,
            event=event,
            kind=EntityKind.PROPERTY,
            entity=23,
            received_at=now,
            ignored=self.ignored,
            body=body,
        )


@dataclass
class Readers:
    """A directory of webhook readers by the last part of the path, all of the system ``buildium``."""

    by_token: Mapping[str | None, Sequence[WebhookReader]] = field(default_factory=lambda: {None: (Reader(),)})
    caught_up: bool = True
    webhook_systems: frozenset[str] = frozenset({"buildium"})

    def readers(self, system: str, token: str | None, body: bytes) -> Sequence[WebhookReader]:
        del body
        return self.by_token.get(token, ()) if system in self.webhook_systems else ()


@dataclass
class MemoryPublisher:
    """A publisher in memory; `hold` delays its confirmations, `away` makes it raise `NotDurable`."""

    webhooks: list[FetchRequest] = field(default_factory=list)
    away: bool = False
    hold: asyncio.Event | None = None

    async def publish(self, webhook: FetchRequest) -> None:
        if self.away:
            raise NotDurable("Kafka is unreachable")
        if self.hold is not None:
            await self.hold.wait()
        self.webhooks.append(webhook)


@dataclass
class Site:
    """A running ingress, its publisher, and the results that it counted."""

    port: int
    publisher: MemoryPublisher
    counts: list[tuple[str, str]]

    async def ask(self, request: bytes, patience: float = 5.0) -> "Reply":
        """Send a raw request on a new connection and return the reply."""
        async with connected(self.port) as (reader, writer):
            writer.write(request)
            return await read_reply(reader, patience)


@dataclass
class Reply:
    """A parsed HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def is_problem(self, status: int) -> bool:
        """Return whether this is a complete problem document with this status and a request id."""
        problem = self.json
        return (
            self.status == status == problem["status"]
            and self.headers["content-type"] == "application/problem+json"
            and problem["type"] == "about:blank"
            and bool(problem["title"])
            and bool(problem["detail"])
            and bool(self.headers["x-request-id"])
        )


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def read_reply(reader: asyncio.StreamReader, patience: float = 5.0) -> Reply:
    async with asyncio.timeout(patience):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Reply(int(head[0].split()[1]), headers, body)


def post(path: str = "/api/webhooks/buildium", body: bytes = b'{"EventName":"Rental.Updated"}', *more: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "host: x", "signature: yes", f"content-length: {len(body)}", *more]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


class _Server(PromptServer, Server):
    """The server of the web role, which the test stops."""


@asynccontextmanager
async def served(app: ASGIApp, connection: type[Connection] = Connection) -> AsyncIterator[int]:
    """Serve an app as the web role does; yield its port."""
    sock = listen("127.0.0.1", 0)
    started = asyncio.Event()

    async def on_started() -> None:
        started.set()

    server = _Server(config(app, connection), on_started)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        await started.wait()
        yield sock.getsockname()[1]
    finally:
        server.stop()
        await serving
        sock.close()


@asynccontextmanager
async def site(
    within: float = 8.0, tokens: Mapping[str | None, Sequence[WebhookReader]] | None = None, **more: Any
) -> AsyncIterator[Site]:
    publisher, counts = MemoryPublisher(), []
    readers = Readers({None: (Reader(),), "main": (Reader(),), "off": (Reader(ignored="disabled"),), **(tokens or {})})

    def count(system: str, result: str) -> None:
        counts.append((system, result))

    app = build_ingress(readers, publisher, FixedClock(), count=count, within=within, **more)
    async with served(app) as port:
        yield Site(port, publisher, counts)
