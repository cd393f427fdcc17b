"""Tests of the stand-in's webhooks: signatures, retries and suspension as documented by Buildium."""

import json
from datetime import UTC, datetime
from typing import Any

import httpx
from pydantic import SecretStr

from connectors.buildium.standin import Event, Webhooks, seed_portfolio
from connectors.buildium.webhook import BuildiumWebhooks
from schemas.base import EntityKind
from schemas.pms import FetchRequest
from tests.connectors.buildium.test_standin import SetClock

HAPPENED = datetime(2025, 11, 22, 11, 59, 1, 123456, UTC)


class Receiver:
    """Verifies webhooks like the ingress, and answers with planned statuses."""

    def __init__(self, clock: SetClock, *statuses: int | None) -> None:
        self.clock = clock
        self.statuses = list(statuses)
        self.accepted: list[FetchRequest] = []
        self.at: list[datetime] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        reader = BuildiumWebhooks("acme", "buildium", (SecretStr("hush"),))
        self.at.append(self.clock.now())
        status = self.statuses.pop(0) if self.statuses else 202
        if status is None:
            raise httpx.ReadTimeout("late")
        fetch = reader.read([(k.lower(), v) for k, v in request.headers.raw], request.content, self.clock.now())
        assert isinstance(fetch, FetchRequest), fetch
        if status < 300:
            self.accepted.append(fetch)
        return httpx.Response(status)


def events(count: int) -> list[Event]:
    return [Event("RentalUnit.Updated", {"UnitId": n}, HAPPENED) for n in range(1, count + 1)]


def hooks(receiver: Receiver, **more: Any) -> Webhooks:
    url = "https://rent.example/api/webhooks/buildium"
    return Webhooks(url, "hush", receiver.clock, transport=httpx.MockTransport(receiver), **more)


async def test_an_edit_is_sent_as_a_webhook_of_its_entity() -> None:
    clock = SetClock()
    receiver = Receiver(clock)
    portfolio = seed_portfolio(clock)
    sender = hooks(receiver)
    unit = portfolio.ids(EntityKind.UNIT)[0]
    await sender.send(portfolio.set_rent(unit, 1500))
    await sender.aclose()

    (fetch,) = receiver.accepted
    assert (fetch.event, fetch.kind, fetch.entity) == ("RentalUnit.Updated", EntityKind.UNIT, unit)
    assert fetch.occurred_at == clock.now()
    assert json.loads(fetch.body)["AccountId"] == 123_456


def test_a_body_is_a_flat_compact_object_with_seven_digits_of_seconds() -> None:
    (event,) = events(1)

    assert event.body(9) == (
        b'{"EventName":"RentalUnit.Updated","EventDateTime":"2025-11-22T11:59:01.1234560Z","AccountId":9,"UnitId":1}'
    )


async def test_a_failed_webhook_is_retried_after_a_minute_ten_minutes_and_an_hour() -> None:
    receiver = Receiver(SetClock(), 503, None, 500)
    sender = hooks(receiver)
    await sender.send(events(1))
    await sender.settle()

    assert [(at - receiver.at[0]).total_seconds() for at in receiver.at] == [0, 60, 660, 4260]
    assert (sender.delivered, len(receiver.accepted), sender.statuses) == (1, 1, [503, None, 500, 202])
    await sender.aclose()


async def test_a_webhook_is_dropped_after_the_last_retry() -> None:
    sender = hooks(Receiver(SetClock(), 500, 500, 500), schedule=(1, 1))
    await sender.send(events(1))
    await sender.settle()

    assert (sender.delivered, len(sender.dropped)) == (0, 1)
    await sender.aclose()


async def test_twenty_consecutive_failures_suspend_the_subscription() -> None:
    receiver = Receiver(SetClock(), *[500] * 30)
    sender = hooks(receiver, schedule=())
    await sender.send(events(25))
    await sender.settle()

    assert sender.suspended
    assert len(receiver.at) == 20
    await sender.aclose()


async def test_events_can_be_duplicated_and_reordered() -> None:
    receiver = Receiver(SetClock())
    sender = hooks(receiver, copies=2, shuffled=True)
    await sender.send(events(10))
    await sender.aclose()

    came = [fetch.entity for fetch in receiver.accepted]
    assert sorted(came, key=str) == sorted([n for n in range(1, 11) for _ in range(2)], key=str)
    assert came != sorted(came, key=str)
