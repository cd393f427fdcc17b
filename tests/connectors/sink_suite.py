"""The contract suite of `ListingSink`, which the tests of each connector inherit."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
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
    (409, Rejected),
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
