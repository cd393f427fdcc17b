"""The stand-in's webhooks: believed by our reader, repeated as Buildium repeats, given up as Buildium gives up."""

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
    """Reads webhooks as the ingress does and answers what it is told to."""

    def __init__(self, clock: SetClock, *statuses: int | None) -> None:
        self.clock = clock
        self.statuses = list(statuses)
        self.notices: list[FetchRequest] = []
        self.at: list[datetime] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        reader = BuildiumWebhooks("acme", "buildium", (SecretStr("hush"),))
        self.at.append(self.clock.now())
        status = self.statuses.pop(0) if self.statuses else 202
        if status is None:
            raise httpx.ReadTimeout("late")
        notice = reader.read([(k.lower(), v) for k, v in request.headers.raw], request.content, self.clock.now())
        assert isinstance(notice, FetchRequest), notice
        if status < 300:
            self.notices.append(notice)
        return httpx.Response(status)


def events(count: int) -> list[Event]:
    return [Event("RentalUnit.Updated", {"UnitId": n}, HAPPENED) for n in range(1, count + 1)]


def hooks(receiver: Receiver, **more: Any) -> Webhooks:
    url = "https://rent.example/api/webhooks/buildium"
    return Webhooks(url, "hush", receiver.clock, transport=httpx.MockTransport(receiver), **more)


async def test_an_edit_arrives_as_a_notice_of_its_entity() -> None:
    clock = SetClock()
    receiver = Receiver(clock)
    portfolio = seed_portfolio(clock)
    sender = hooks(receiver)
    unit = portfolio.ids(EntityKind.UNIT)[0]
    await sender.send(portfolio.set_rent(unit, 1500))
    await sender.aclose()

    (notice,) = receiver.notices
    assert (notice.event, notice.kind, notice.entity) == ("RentalUnit.Updated", EntityKind.UNIT, unit)
    assert notice.occurred_at == clock.now()
    assert json.loads(notice.body)["AccountId"] == 123_456


def test_a_webhook_is_one_flat_compact_object_with_seven_digits() -> None:
    (event,) = events(1)

    assert event.body(9) == (
        b'{"EventName":"RentalUnit.Updated","EventDateTime":"2025-11-22T11:59:01.1234560Z","AccountId":9,"UnitId":1}'
    )


async def test_what_was_not_taken_is_repeated_after_a_minute_ten_and_an_hour() -> None:
    receiver = Receiver(SetClock(), 503, None, 500)
    sender = hooks(receiver)
    await sender.send(events(1))
    await sender.settle()

    assert [(at - receiver.at[0]).total_seconds() for at in receiver.at] == [0, 60, 660, 4260]
    assert (sender.delivered, len(receiver.notices), sender.statuses) == (1, 1, [503, None, 500, 202])
    await sender.aclose()


async def test_after_the_last_repetition_it_is_dropped() -> None:
    sender = hooks(Receiver(SetClock(), 500, 500, 500), schedule=(1, 1))
    await sender.send(events(1))
    await sender.settle()

    assert (sender.delivered, len(sender.dropped)) == (0, 1)
    await sender.aclose()


async def test_twenty_failures_in_a_row_suspend_the_subscription() -> None:
    receiver = Receiver(SetClock(), *[500] * 30)
    sender = hooks(receiver, schedule=())
    await sender.send(events(25))
    await sender.settle()

    assert sender.suspended
    assert len(receiver.at) == 20
    await sender.aclose()


async def test_events_may_come_twice_and_in_any_order() -> None:
    receiver = Receiver(SetClock())
    sender = hooks(receiver, copies=2, shuffled=True)
    await sender.send(events(10))
    await sender.aclose()

    came = [notice.entity for notice in receiver.notices]
    assert sorted(came, key=str) == sorted([n for n in range(1, 11) for _ in range(2)], key=str)
    assert came != sorted(came, key=str)
