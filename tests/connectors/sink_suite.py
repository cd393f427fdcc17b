"""What every `ListingSink` has to do, whoever its receiver is: a connector's tests inherit `SinkSuite`."""

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
"""The credential that a sink under test is opened with; it must not turn up anywhere but in its header."""


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
    """A receiver that answers what the test says, and remembers what came."""

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
    """The promises of the port, over a real connection."""

    @abstractmethod
    def open(self, url: str) -> AbstractAsyncContextManager[ListingSink]:
        """A sink that POSTs to ``url`` with `CANARY` as its credential."""

    @pytest.mark.parametrize(("status", "meaning"), ANSWERS)
    async def test_an_answer_means_the_same_for_every_receiver(self, status: int, meaning: type) -> None:
        """A status of the receiver becomes the outcome that the flows know, with the status kept."""
        receiver = Receiver(lambda: Response(status_code=status, headers={"location": "https://example.com/"}))
        async with running(receiver) as url, self.open(url) as sink:
            outcome = await sink.deliver(batch())

        assert isinstance(outcome, meaning)
        assert outcome.status == status
        assert len(receiver.bodies) == 1, "patience is not the sink's business: one deliver is one POST"

    async def test_a_throttled_sink_says_how_long(self) -> None:
        """Seconds of Retry-After come through, for 429 and for 503."""
        for status, kind in ((429, Throttled), (503, Unavailable)):
            receiver = Receiver(lambda status=status: Response(status_code=status, headers={"retry-after": "7"}))  # type: ignore[misc]
            async with running(receiver) as url, self.open(url) as sink:
                outcome = await sink.deliver(batch())

            assert isinstance(outcome, kind)
            assert outcome.retry_after == 7.0

    async def test_nobody_there_is_a_value(self) -> None:
        """A refused connection is an outcome, not an exception."""
        async with running(Receiver(Response)) as url:
            gone = url
        async with self.open(gone) as sink:
            outcome = await sink.deliver(batch())

        assert isinstance(outcome, Unavailable)
        assert outcome.status is None

    async def test_an_answer_that_breaks_off_is_no_acknowledgement(self) -> None:
        """Half an answer leaves the outcome unknown: it has to be tried again."""

        async def half(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"64")]})
            await send({"type": "http.response.body", "body": b"{", "more_body": True})

        async with running(half) as url, self.open(url) as sink:
            outcome = await sink.deliver(batch())

        assert isinstance(outcome, Unavailable)

    async def test_the_same_batch_is_the_same_request(self) -> None:
        """A repeated batch repeats its bytes and its key; another batch has another key."""
        receiver = Receiver(Response)
        async with running(receiver) as url, self.open(url) as sink:
            await sink.deliver(batch())
            await sink.deliver(batch(attempt=2))
            await sink.deliver(batch(batch_id="other", sync_id="sync-2025-01-15-02-00-01"))

        first, again, other = receiver.headers
        assert receiver.bodies[0] == receiver.bodies[1]
        assert first["idempotency-key"] == again["idempotency-key"] == '"5f0c1d7e9a"'
        assert other["idempotency-key"] == '"other"'

    async def test_a_batch_says_what_it_is(self) -> None:
        """Who sends, what it is, and whether it is everything, stand in the headers."""
        receiver = Receiver(Response)
        async with running(receiver) as url, self.open(url) as sink:
            await sink.deliver(batch())
            await sink.deliver(batch(mode=BatchMode.DELTA))

        assert [sent["x-aigent-sync-mode"] for sent in receiver.headers] == ["snapshot", "delta"]
        assert all(sent["content-type"] == "application/json" for sent in receiver.headers)
        assert all(sent["x-aigent-sync-id"] == "sync-2025-01-15-02-00-00" for sent in receiver.headers)
        assert all(re.fullmatch(r"RentStream/\d+\.\d+\.\d+", sent["user-agent"]) for sent in receiver.headers)

    async def test_the_credential_stays_in_its_header(self, caplog: pytest.LogCaptureFixture) -> None:
        """A receiver that repeats the credential does not get it into an outcome, a log or a repr."""
        caplog.set_level(0)
        receiver = Receiver(lambda: PlainTextResponse(f'{{"detail":"bad key {CANARY}"}}', 401))
        async with running(receiver) as url, self.open(url) as sink:
            outcome = await sink.deliver(batch())
            shown = repr(outcome) + repr(sink) + repr(vars(sink)) + caplog.text

        assert CANARY not in shown
        assert any(CANARY in value for value in receiver.headers[0].values())
        assert CANARY.encode() not in receiver.bodies[0]

    async def test_a_name_in_any_script_arrives(self) -> None:
        """Bodies are UTF-8."""
        receiver = Receiver(Response)
        place = OfferedProperty(id=1, name="Élysée 東 \u2028", address="", is_active=True)
        async with running(receiver) as url, self.open(url) as sink:
            outcome = await sink.deliver(batch(property=place))

        assert isinstance(outcome, Accepted)
        assert "Élysée 東" in receiver.bodies[0].decode()


CLOCK = SystemClock()
