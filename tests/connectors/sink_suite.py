"""The contract suite of `ListingSink`, which the tests of each connector inherit."""

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from connectors.clock import SystemClock
from connectors.ports import Accepted, ListingSink, Missing, Rejected, Throttled, Unauthorized, Unavailable
from connectors.serving import running
from schemas.delivery import Batch, BatchMode, OfferedProperty, OfferedUnit, UnitState

CANARY = "canary-7f3a91-secret"
"""The credential of a sink under test; it must not appear anywhere except in its header."""


def unit(
    unit_id: int = 12345, code: str = "101", state: UnitState = UnitState.AVAILABLE, **more: object
) -> OfferedUnit:
    return OfferedUnit.model_validate(
        {
            "id": unit_id,
            "code": code,
            "state": state,
            "status": "vacant_unrented_ready" if state is UnitState.AVAILABLE else "occupied",
            "is_available": state is UnitState.AVAILABLE,
            "base_rent": Decimal("1500.00"),
            **more,
        }
    )


def batch(*units: OfferedUnit, **more: object) -> Batch:
    return Batch.model_validate(
        {
            "org": "default",
            "connection": "buildium",
            "sink": "rentsync",
            "batch_id": "5f0c1d7e9a",
            "sync_id": "sync-2025-01-15-02-00-00",
            "cut_at": datetime(2025, 1, 15, 2, 0, 0, 123456, tzinfo=UTC),
            "seen_at": datetime(2025, 1, 15, 1, 59, 58, tzinfo=UTC),
            "version": 1,
            "mode": BatchMode.SNAPSHOT,
            "property": OfferedProperty(
                id=101, name="Sunset Apartments", address="123 Main Street, Calgary, AB", is_active=True
            ),
            "units": units or (unit(),),
            **more,
        }
    )


@dataclass
class Receiver:
    """A receiver that returns the response of the test and records the requests."""

    answer: Callable[[], Response]

    def __post_init__(self) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []

    async def __call__(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        request = Request(scope, receive)
        self.bodies.append(await request.body())
        self.headers.append(dict(request.headers))
        await self.answer()(scope, receive, send)


ANSWERS = [
    (200, Accepted),
    (201, Accepted),
    (202, Accepted),
    (204, Accepted),
    (301, Missing),
    (400, Rejected),
    (401, Unauthorized),
    (403, Unauthorized),
    (404, Missing),
    (408, Unavailable),
    (409, Unavailable),
    (410, Missing),
    (413, Rejected),
    (422, Rejected),
    (425, Unavailable),
    (429, Throttled),
    (500, Unavailable),
    (502, Unavailable),
    (503, Unavailable),
    (504, Unavailable),
]


JSON = "application/json"
CONFIRMATIONS = [
    (b"", None),
    (b"", "text/html"),
    (b"OK", "text/plain"),
    (b"{}", JSON),
    (b"[]", JSON),
    (b"null", JSON),
    (b"{not json", JSON),
    (b'{"success": true, "errors": [], "error": null, "status": "accepted"}', JSON),
    (b'{"status": 200, "results": [{"unit_id": 1, "status": "ok"}]}', JSON),
]
DENIALS = [
    (200, b"<html><body>Sign in</body></html>", "text/html; charset=utf-8", "a page instead of a confirmation"),
    (200, b"\n <!DOCTYPE html>", "text/plain", "a page instead of a confirmation"),
    (200, b'{"success": false, "message": "the roll is locked"}', JSON, "the roll is locked"),
    (202, b'{"ok": false}', JSON, "the body reports a failure"),
    (200, b'{"status": "error", "error": {"message": "no such project"}}', JSON, "no such project"),
    (200, b'{"status": 500, "title": "Internal error"}', JSON, "Internal error"),
    (207, b'{"errors": [{"unit_id": 7, "message": "no rent"}]}', JSON, "7 no rent"),
    (207, b'{"results": [{"unit_id": 7, "status": "ok"}, {"unit_id": 8, "status": 422, "error": "no beds"}]}', JSON,
     "8 no beds"),
    (200, b'{"title": "Busy"}', "application/problem+json", "Busy"),
]  # fmt: skip


@asynccontextmanager
async def closing_kept_connections(requests: int = 1) -> AsyncIterator[tuple[str, list[tuple[int, bytes]]]]:
    """Serve so many requests of each connection, and close it at the next one without an answer.

    Yield the URL, and the number of the connection and the bytes of each request.
    """
    seen: list[tuple[int, bytes]] = []
    opened = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        number, answered = opened, 0
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
                seen.append((number, head + await reader.readexactly(length)))
                if answered == requests:
                    break
                answered += 1
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    connections: set[asyncio.Task[None]] = set()
    server = await asyncio.start_server(
        lambda reader, writer: connections.add(asyncio.create_task(serve(reader, writer))), "127.0.0.1", 0
    )
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
        await asyncio.gather(*connections)


class SinkSuite(ABC):
    """The contract of `ListingSink`, over a real connection."""

    @abstractmethod
    def open(self, url: str) -> AbstractAsyncContextManager[ListingSink]:
        """Open a sink that POSTs to ``url`` with `CANARY` as its credential."""

    @pytest.mark.parametrize(("status", "meaning"), ANSWERS)
    async def test_a_status_has_the_same_meaning_for_every_receiver(self, status: int, meaning: type) -> None:
        """A status becomes the outcome of the port, which contains the status."""
        receiver = Receiver(lambda: Response(status_code=status, headers={"location": "https://example.com/"}))
        async with running(receiver) as url, self.open(url) as sink:
            outcome = await sink.deliver(batch())

        assert isinstance(outcome, meaning)
        assert outcome.status == status
        assert len(receiver.bodies) == 1, "a sink does not retry: one call of deliver is one POST"

    @pytest.mark.parametrize("location", ["http://xn--a/", "http://[", "//", "\xff"])
    async def test_a_redirect_to_nowhere_is_a_redirect(self, location: str) -> None:
        """It is not followed, so it is not parsed either."""
        receiver = Receiver(lambda: Response(status_code=302, headers={"location": location}))
        async with running(receiver) as url, self.open(url) as sink:
            outcome = await sink.deliver(batch())

        assert isinstance(outcome, Missing)
        assert outcome.status == 302

    @pytest.mark.parametrize(("body", "kind"), CONFIRMATIONS)
    async def test_a_success_may_have_any_body(self, body: bytes, kind: str | None) -> None:
        receiver = Receiver(lambda: Response(body, media_type=kind))
        async with running(receiver) as url, self.open(url) as sink:
            assert isinstance(await sink.deliver(batch()), Accepted)

    @pytest.mark.parametrize(("status", "body", "kind", "words"), DENIALS)
    async def test_a_denial_is_no_success_whatever_its_status(
        self, status: int, body: bytes, kind: str, words: str
    ) -> None:
        """It is tried again, and its words are part of the outcome."""
        receiver = Receiver(lambda: Response(body, status, media_type=kind))
        async with running(receiver) as url, self.open(url) as sink:
            outcome = await sink.deliver(batch())

        assert isinstance(outcome, Unavailable)
        assert outcome.status == status
        assert words in outcome.detail

    async def test_a_kept_connection_that_is_closed_is_replaced_at_once(self) -> None:
        """The same request is sent again on a new one, with the same key."""
        async with closing_kept_connections() as (url, heads), self.open(url) as sink:
            outcomes = [await sink.deliver(batch()) for _ in range(2)]

        assert all(isinstance(one, Accepted) for one in outcomes)
        assert [number for number, _ in heads] == [1, 1, 2]
        assert heads[1][1] == heads[2][1]

    async def test_a_new_connection_that_is_closed_is_a_failed_attempt(self) -> None:
        async with closing_kept_connections(requests=0) as (url, heads), self.open(url) as sink:
            outcome = await sink.deliver(batch())

        assert isinstance(outcome, Unavailable)
        assert len(heads) == 1

    async def test_retry_after_is_returned(self) -> None:
        """The seconds of Retry-After are part of the outcome of 429 and 503."""
        for status, kind in ((429, Throttled), (503, Unavailable)):
            receiver = Receiver(lambda status=status: Response(status_code=status, headers={"retry-after": "7"}))  # type: ignore[misc]
            async with running(receiver) as url, self.open(url) as sink:
                outcome = await sink.deliver(batch())

            assert isinstance(outcome, kind)
            assert outcome.retry_after == 7.0

    async def test_a_refused_connection_is_returned_and_not_raised(self) -> None:
        """A refused connection is an outcome, not an exception."""
        async with running(Receiver(Response)) as url:
            closed = url
        async with self.open(closed) as sink:
            outcome = await sink.deliver(batch())

        assert isinstance(outcome, Unavailable)
        assert outcome.status is None

    async def test_a_truncated_response_is_no_acknowledgement(self) -> None:
        """After half of a response the outcome is unknown, so the batch has to be sent again."""

        async def half(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"64")]})
            await send({"type": "http.response.body", "body": b"{", "more_body": True})

        async with running(half) as url, self.open(url) as sink:
            outcome = await sink.deliver(batch())

        assert isinstance(outcome, Unavailable)

    async def test_the_same_batch_is_the_same_request(self) -> None:
        """A retry has the same bytes and the same key; another batch has another key."""
        receiver = Receiver(Response)
        async with running(receiver) as url, self.open(url) as sink:
            await sink.deliver(batch())
            await sink.deliver(batch(attempt=2))
            await sink.deliver(batch(batch_id="other", sync_id="sync-2025-01-15-02-00-01"))

        first, again, other = receiver.headers
        assert receiver.bodies[0] == receiver.bodies[1]
        assert first["idempotency-key"] == again["idempotency-key"] == '"5f0c1d7e9a"'
        assert other["idempotency-key"] == '"other"'

    async def test_headers_describe_the_batch(self) -> None:
        """Headers contain the sync id, the mode, the content type and the user agent."""
        receiver = Receiver(Response)
        async with running(receiver) as url, self.open(url) as sink:
            await sink.deliver(batch())
            await sink.deliver(batch(mode=BatchMode.DELTA))

        assert [sent["x-aigent-sync-mode"] for sent in receiver.headers] == ["snapshot", "delta"]
        assert all(sent["content-type"] == "application/json" for sent in receiver.headers)
        assert all(sent["x-aigent-sync-id"] == "sync-2025-01-15-02-00-00" for sent in receiver.headers)
        assert all(re.fullmatch(r"RentStream/\d+\.\d+\.\d+", sent["user-agent"]) for sent in receiver.headers)

    async def test_the_credential_appears_in_its_header_only(self, caplog: pytest.LogCaptureFixture) -> None:
        """A credential that the receiver repeats does not appear in an outcome, a log or a repr."""
        caplog.set_level(0)
        receiver = Receiver(lambda: PlainTextResponse(f'{{"detail":"bad key {CANARY}"}}', 401))
        async with running(receiver) as url, self.open(url) as sink:
            outcome = await sink.deliver(batch())
            shown = repr(outcome) + repr(sink) + repr(vars(sink)) + caplog.text

        assert CANARY not in shown
        assert any(CANARY in value for value in receiver.headers[0].values())
        assert CANARY.encode() not in receiver.bodies[0]

    async def test_bodies_are_utf_8(self) -> None:
        """A property name in any script is sent as UTF-8."""
        receiver = Receiver(Response)
        place = OfferedProperty(id=1, name="Élysée 東 \u2028", address="", is_active=True)
        async with running(receiver) as url, self.open(url) as sink:
            outcome = await sink.deliver(batch(property=place))

        assert isinstance(outcome, Accepted)
        assert "Élysée 東" in receiver.bodies[0].decode()


CLOCK = SystemClock()
