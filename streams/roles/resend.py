"""``rentstream resend``: has receivers sent all of what they should know again, a snapshot of each property."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from connectors.ports import Clock
from streams.directory.service import Integrations
from streams.roles.manage import ManageFailed
from streams.roles.view import opened
from streams.settings import RentStreamSettings
from streams.view.database import ViewUnavailable
from streams.view.queries import DeliveryFilter, Queries

PAGE: Final = 500
"""Rows of one query."""

AT_ONCE: Final = 50
"""Requests that are written together."""

A_SECOND: Final = 200
"""Requests that are written in a second, so that changes go on in between."""

Echo = Callable[[str], None]


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """A property that a receiver was sent before."""

    receiver: str
    connection: str
    property_id: int


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be sent again; null: all."""

    org: str
    receiver: str | None = None
    connection: str | None = None
    property_id: int | None = None


def targets(settings: RentStreamSettings, request: Request) -> list[Target]:
    """Return what is to be sent again, from the query view. Raise `ManageFailed` and `SettingsError`."""
    with opened(settings) as queries:
        try:
            found = [one for one in _targets(queries, request) if request.connection in (None, one.connection)]
        except ViewUnavailable as error:
            raise ManageFailed(f"{error}: check DATABASE_URL, or that the web role has run, which fills it") from None
    if not found:
        raise ManageFailed(f"no receiver of {request.org} was sent anything like that yet, so nothing is sent again")
    return found


def _targets(queries: Queries, request: Request) -> Iterator[Target]:
    wanted = DeliveryFilter(receiver=request.receiver, property_id=request.property_id)
    cursor = None
    while True:
        page = queries.deliveries(request.org, wanted, PAGE, cursor)
        yield from (Target(row["receiver"], row["connection"], row["propertyId"]) for row in page.items)
        cursor = page.next_cursor
        if cursor is None:
            return


async def resend(integrations: Integrations, org: str, chosen: Sequence[Target], clock: Clock, echo: Echo) -> None:
    """Ask for a snapshot of each; return when all requests are durable.

    A request that is repeated later is another one. Raise `streams.directory.model.IntegrationError`.
    """
    at = clock.now()
    for begin in range(0, len(chosen), AT_ONCE):
        some = chosen[begin : begin + AT_ONCE]
        await asyncio.gather(
            *(integrations.resend(org, one.receiver, one.connection, one.property_id, at) for one in some)
        )
        written = begin + len(some)
        if written < len(chosen):
            echo(f"  {written:,} of {len(chosen):,} are asked for")
            await clock.sleep(AT_ONCE / A_SECOND)
    echo(f"asked for {_counted(len(chosen))}; `rentstream status` shows what waits")


def lines(chosen: Sequence[Target]) -> list[str]:
    """Return what would be sent again, for people."""
    counts = Counter((one.receiver, one.connection) for one in chosen)
    return [
        f"{receiver}: {_counted(number)} of {connection}" for (receiver, connection), number in sorted(counts.items())
    ]


def _counted(number: int) -> str:
    return f"a snapshot of {number:,} {'property' if number == 1 else 'properties'}"
