"""Tests of RentSync as a `ListingSink` and of its stand-in, over a real connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse

from connectors.clock import SystemClock
from connectors.ports import Accepted, ListingSink, Rejected, Throttled, Unauthorized, Unavailable
from connectors.rentsync.answers import MAX_EXPLANATION
from connectors.rentsync.settings import RentSyncSettings
from connectors.rentsync.sink import RentSyncSink
from connectors.rentsync.standin import PATH, RentSyncStandIn
from connectors.serving import running
from schemas.delivery import BatchMode, UnitState
from tests.connectors.sink_suite import CANARY, Receiver, SinkSuite, batch, unit


@asynccontextmanager
async def opened(url: str, key: str = CANARY) -> AsyncIterator[RentSyncSink]:
    env = {"RENTSYNC_URL": url, "RENTSYNC_API_KEY": key, "RENTSTREAM_ALLOW_PRIVATE": "1"}
    sink = RentSyncSink(RentSyncSettings.read(env), SystemClock())
    try:
        yield sink
    finally:
        await sink.aclose()


class TestRentSync(SinkSuite):
    """The contract of every sink, for RentSync."""

    @asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[ListingSink]:
        async with opened(url) as sink:
            yield sink

    async def test_the_key_is_sent_as_x_api_key(self) -> None:
        """The header X-API-Key contains the key without a prefix."""
        receiver = Receiver(lambda: JSONResponse({}))
        async with running(receiver) as url, self.open(url) as sink:
            await sink.deliver(batch())

        assert receiver.headers[0]["x-api-key"] == CANARY

    async def test_a_rejection_contains_the_receivers_error_text(self) -> None:
        """The text of a 4xx is part of the detail, short and on one line; that of a 5xx is not."""
        problem = {"detail": "bad\nroll", "errors": [{"pointer": "#/units/0", "detail": "x" * 999}, "also this", 7]}
        for status, expected in ((422, "bad roll; #/units/0 xxx"), (500, None)):
            receiver = Receiver(lambda status=status: JSONResponse(problem, status))  # type: ignore[misc]
            async with running(receiver) as url, self.open(url) as sink:
                outcome = await sink.deliver(batch())

            assert isinstance(outcome, Rejected | Unavailable)
            assert (expected is None) or expected in outcome.detail
            assert (expected is None) == ("xxx" not in outcome.detail)
            assert len(outcome.detail) < MAX_EXPLANATION + 60

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (
                {"detail": [{"type": "missing", "loc": ["body", "units", 0, "base_rent"], "msg": "Field required"}]},
                "body.units.0.base_rent Field required",
            ),
            (
                {"title": "One or more validation errors occurred.", "errors": {"Units[0].Rent": ["must be positive"]}},
                "One or more validation errors occurred.; Units[0].Rent: must be positive",
            ),
            ({"error": {"code": 7, "message": "no such project"}}, "no such project"),
            ({"errors": ["first", "second"]}, "first; second"),
        ],
    )
    async def test_error_texts_are_read_in_the_forms_of_web_frameworks(
        self, content: dict[str, Any], expected: str
    ) -> None:
        receiver = Receiver(lambda: JSONResponse(content, 422))
        async with running(receiver) as url, self.open(url) as sink:
            outcome = await sink.deliver(batch())

        assert isinstance(outcome, Rejected)
        assert outcome.detail == f"RentSync answered 422 {HTTPStatus(422).phrase}: {expected}"


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[RentSyncStandIn, RentSyncSink, str]]:
    standin = RentSyncStandIn(CANARY, SystemClock())
    async with running(standin.app) as url, opened(url + PATH) as sink:
        yield standin, sink, url


async def test_a_snapshot_replaces_all_units_and_a_delta_updates_some() -> None:
    """A snapshot removes units that it does not contain, a delta does not."""
    async with pair() as (standin, sink, url):
        await sink.deliver(batch(unit(1), unit(2, "102", UnitState.RENTED)))
        delta = batch(unit(2, "102"), mode=BatchMode.DELTA, batch_id="b2", sync_id="sync-2025-01-15-02-00-01")
        await sink.deliver(delta)
        after_delta = {one: listed.status_name for one, listed in standin.state.items()}
        await sink.deliver(batch(unit(1), batch_id="b3", sync_id="sync-2025-01-15-02-00-02"))
        async with httpx.AsyncClient() as client:
            roll = (await client.get(url + "/v1/rent-roll")).json()

    assert after_delta == {1: "Available", 2: "Available"}
    assert list(standin.state) == [1]
    assert [sent.mode for sent in standin.accepted] == ["snapshot", "delta", "snapshot"]
    assert roll["requests"] == 3
    assert [one["unit_id"] for one in roll["units"]] == [1]


async def test_a_repeated_batch_is_accepted_once() -> None:
    """The stand-in repeats the first result; the same key with another body is rejected."""
    async with pair() as (standin, sink, _):
        assert isinstance(await sink.deliver(batch()), Accepted)
        assert isinstance(await sink.deliver(batch()), Accepted)
        other = await sink.deliver(batch(unit(base_rent=Decimal(1))))

    assert isinstance(other, Rejected)
    assert "with another body before" in other.detail
    assert len(standin.accepted) == 1
    assert standin.statuses == [200, 200, 422]


async def test_planned_faults_apply_in_their_order() -> None:
    """Each request consumes one planned fault; later requests succeed."""
    async with pair() as (standin, sink, _):
        standin.answer_next(500, times=2)
        standin.answer_next(429, retry_after="3")
        standin.drop_next()
        standin.delay_next(0.01)
        outcomes = [await sink.deliver(batch()) for _ in range(4)]

    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable, Throttled, Accepted]
    assert standin.statuses == [500, 500, 429, 0, 200]
    assert len(standin.accepted) == 1, "the request before the closed connection was accepted; its retry was recognised"


async def test_planned_faults_can_be_removed() -> None:
    """`recover` removes every planned fault."""
    async with pair() as (standin, sink, _):
        standin.answer_next(500, times=100)
        standin.recover()

        assert isinstance(await sink.deliver(batch()), Accepted)


async def test_wait_for_returns_or_times_out() -> None:
    """`wait_for` returns when its condition is true, and raises at its timeout."""
    async with pair() as (standin, sink, _):
        with pytest.raises(TimeoutError):
            await standin.wait_for(lambda seen: len(seen.accepted) == 1, timeout=0.05)
        waiting = asyncio.create_task(standin.wait_for(lambda seen: len(seen.accepted) == 1, timeout=5))
        await sink.deliver(batch())
        await waiting


async def test_a_wrong_key_is_unauthorized() -> None:
    """The stand-in accepts one key only."""
    standin = RentSyncStandIn("right", SystemClock())
    async with running(standin.app) as url, opened(url + PATH, key="wrong") as sink:
        outcome = await sink.deliver(batch())

    assert isinstance(outcome, Unauthorized)
    assert standin.accepted == []


GOOD = {
    "sync_metadata": {
        "sync_id": "sync-2025-01-15-02-00-00",
        "sync_timestamp": "2025-01-15T02:00:00Z",
        "source": "s",
    },
    "property": {"project_id": 1, "project_name": "n", "address": ""},
    "units": [{"unit_id": 1, "unit_code": "", "status_name": "Rented", "is_available": False, "base_rent": None}],
}
HEADERS = {
    "x-api-key": CANARY,
    "idempotency-key": '"k"',
    "x-aigent-sync-id": "sync-2025-01-15-02-00-00",
    "x-aigent-sync-mode": "delta",
}


@pytest.mark.parametrize(
    ("change", "headers", "status", "pointers"),
    [
        ({}, {}, 200, []),
        ({}, {"content-type": "text/plain"}, 415, []),
        ({}, {"idempotency-key": "k"}, 400, []),
        ({}, {"x-aigent-sync-mode": "some"}, 422, ["#"]),
        ({}, {"x-aigent-sync-id": "sync-2025-01-15"}, 422, ["#/sync_metadata/sync_id"]),
        ({"units": None}, {}, 422, ["#/units"]),
        ({"units": [1]}, {}, 422, ["#/units/0"]),
        ({"units": GOOD["units"] * 2}, {}, 422, ["#/units/1/unit_id"]),  # type: ignore[operator]
        (
            {"property": {"project_id": "1", "address": ""}},
            {},
            422,
            ["#/property/project_id", "#/property/project_name"],
        ),
        ({"more/less": 1}, {}, 422, ["#/more~1less"]),
        ({"units": [{"unit_id": [], "unit_code": "a"}] * 2}, {}, 422, None),
    ],
)
async def test_the_stand_in_reports_every_invalid_member(
    change: dict[str, object], headers: dict[str, str], status: int, pointers: list[str] | None
) -> None:
    """An invalid body is answered with 422 and a pointer to each invalid member."""
    standin = RentSyncStandIn(CANARY, SystemClock())
    async with running(standin.app) as url, httpx.AsyncClient() as client:
        answer = await client.post(url + PATH, json=GOOD | change, headers=HEADERS | headers)

    assert answer.status_code == status
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json"
    if pointers is not None:
        assert [error["pointer"] for error in answer.json().get("errors", [])] == pointers
    assert len(standin.accepted) == (status == 200)


async def test_the_stand_in_answers_bodies_that_are_not_valid() -> None:
    """Invalid JSON, an array and deep nesting are answered with an error."""
    standin = RentSyncStandIn(CANARY, SystemClock())
    headers = HEADERS | {"content-type": "application/json"}
    async with running(standin.app) as url, httpx.AsyncClient() as client:
        answers = [
            (await client.post(url + PATH, content=body, headers=headers)).status_code
            for body in (b"\xff", b"[]", b"[" * 100_000, b"")
        ]

    assert answers == [400, 422, 400, 400]
