"""The port `connectors.ports.PropertySource` for one Buildium account.

A 404 removes an entity from the rent roll, so it counts only in the form of Buildium's errors, and only after the URL
has proven to be that of Buildium (`_proven`). Pages are sorted by a unique field, because pagination by offset skips
rows of an unsorted list. Every call, retries included, uses the connection's API budget.
"""

import logging
import random as randomness
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import httpx

from connectors.budget import Budget, Limits
from connectors.buildium.auth import BuildiumAuth
from connectors.buildium.calls import TITLE, Calls
from connectors.buildium.mapping import entity_id, read_list, read_one, snapshot, tenant_leases
from connectors.buildium.settings import BuildiumSettings
from connectors.http import OpenClient, Patience, Reply, open_client, read_date
from connectors.ports import (
    Clock,
    Failure,
    Fetched,
    Found,
    Gone,
    Missing,
    PageOf,
    Priority,
    Rejected,
    Unavailable,
)
from schemas.base import EntityKind

_LOG: Final = logging.getLogger(__name__)

PAGE_SIZE: Final = 1000
"""The largest page; Buildium reduces a larger limit to it without an error."""

BUDGET: Final = Limits(in_flight=10, starts=10, window=1.0)
"""Ten concurrent calls and ten calls a second (Buildium, Rate Limiting section)."""

_ENTITY: Final = {
    EntityKind.PROPERTY: "/rentals/{id}",
    EntityKind.UNIT: "/rentals/units/{id}",
    EntityKind.LEASE: "/leases/{id}",
    EntityKind.TENANT: "/leases/tenants/{id}",
    EntityKind.LISTING: "/rentals/units/{id}/listing",
}

_LIST: Final[dict[EntityKind, tuple[str, tuple[tuple[str, str], ...]]]] = {
    EntityKind.PROPERTY: ("/rentals", (("orderby", "Id"),)),
    EntityKind.UNIT: ("/rentals/units", (("orderby", "Id"),)),
    EntityKind.LEASE: ("/leases", (("leasestatuses", "Active"), ("leasestatuses", "Future"), ("orderby", "Id"))),
    EntityKind.LISTING: ("/rentals/units/listings", ()),
}

_OF_PROPERTY: Final[dict[EntityKind, Callable[[int], tuple[tuple[str, str], ...]]]] = {
    EntityKind.UNIT: lambda number: (("propertyids", str(number)),),
    EntityKind.LEASE: lambda number: (("propertyids", str(number)),),
    EntityKind.LISTING: lambda number: (("entitytype", "Property"), ("entityid", str(number))),
}
"""The filter of a list by property."""

_CHANGED: Final = {
    EntityKind.PROPERTY: "/rentals",
    EntityKind.UNIT: "/rentals/units",
    EntityKind.LEASE: "/leases",
}
"""Lists with the filter ``lastupdatedfrom``, inclusive and in UTC. A unit's occupancy and its listing do not count."""

LISTING_ORDERS: Final = ("Unit.Id", "ListingDate,AvailableDate,Rent")
"""Sort orders to try, the first one first: a listing has no id, and sorting by its unit's id is not documented."""


class BuildiumSource:
    """Reads properties, units, leases and listings of one Buildium connection."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        base_url: str,
        clock: Clock,
        *,
        budget: Budget | None = None,
        patience: Patience | None = None,
        auth: httpx.Auth | None = None,
        random: randomness.Random | None = None,
    ) -> None:
        self._owns_budget = budget is None
        self.calls: Final = Calls(
            client,
            base_url,
            clock,
            budget=budget or Budget(clock, BUDGET),
            patience=patience or Patience(),
            auth=auth,
            random=random or randomness.Random(),  # noqa: S311 - jitter, not a secret
        )
        self._proven = False
        self._listing_order = 0

    @classmethod
    def open(
        cls,
        settings: BuildiumSettings,
        clock: Clock,
        *,
        budget: Budget | None = None,
        user_agent: str = "RentStream",
        random: randomness.Random | None = None,
        client: OpenClient = open_client,
    ) -> "BuildiumSource":
        """Return a source with a new client, and with a new budget unless the ports of a connection share one."""
        auth = (
            BuildiumAuth(settings.client_id, settings.client_secret)
            if settings.client_id and settings.client_secret
            else None
        )
        return cls(
            client(
                user_agent=user_agent,
                seconds=settings.patience.timeout,
                connections=BUDGET.in_flight,
                allow_private=settings.allow_private,
            ),
            settings.base_url,
            clock,
            budget=budget,
            patience=settings.patience,
            auth=auth,
            random=random,
        )

    @property
    def page_size(self) -> int:
        return PAGE_SIZE

    @property
    def budget(self) -> Budget:
        return self.calls.budget

    async def aclose(self) -> None:
        if self._owns_budget:
            await self.calls.budget.aclose()
        await self.calls.aclose()

    async def probe(self, priority: Priority = Priority.COMMAND) -> Failure | None:
        """Test URL and API key with one cheap call; return the failure, or null if both are valid."""
        answer = await self.calls.get("/rentals", (("limit", "1"),), priority)
        if isinstance(answer, Reply):
            if read_list(EntityKind.PROPERTY, answer.body) is None:
                return Missing(f"{TITLE}: the server at the configured URL does not answer like its API", answer.status)
            self._proven = True
            return None
        return answer

    async def fetch(self, kind: EntityKind, entity: int, priority: Priority = Priority.WEBHOOK) -> Fetched | Failure:
        """Return the current state of an entity; for a tenant, of its leases.

        A lease is returned without its unit, whose flags depend on it: the rent roll fetches the unit in a separate
        call with its own fetch sequence.
        """
        if kind is EntityKind.TENANT:
            return await self._fetch_tenant(entity, priority)
        one = await self._fetch_one(kind, entity, priority)
        return Fetched((one,)) if isinstance(one, (Found, Gone)) else one

    async def page(self, kind: EntityKind, offset: int, priority: Priority = Priority.SWEEP) -> PageOf | Failure:
        """Return a page of a list, ordered by id (listings: by one of `LISTING_ORDERS`)."""
        if kind not in _LIST:
            return Rejected(f"{TITLE} has no list of kind {kind} that a sweep could read")
        return await self._window(kind, (), offset, priority)

    async def _window(
        self, kind: EntityKind, by: Sequence[tuple[str, str]], offset: int, priority: Priority
    ) -> PageOf | Failure:
        """Return a page of a list with a further filter."""
        path, query = _LIST[kind]
        window = (*by, ("offset", str(offset)), ("limit", str(PAGE_SIZE)))
        if kind is not EntityKind.LISTING:
            return self._page(kind, await self.calls.get(path, (*query, *window), priority))
        while True:
            tried = self._listing_order
            order = ("orderby", LISTING_ORDERS[tried])
            answer = await self.calls.get(path, (*query, order, *window), priority)
            if not isinstance(answer, Rejected) or tried + 1 == len(LISTING_ORDERS):
                return self._page(kind, answer)
            _LOG.warning("Buildium does not sort listings by %s; trying the next sort order", order[1])
            self._listing_order = max(self._listing_order, tried + 1)

    async def changed(
        self, kind: EntityKind, since: datetime, offset: int, priority: Priority = Priority.WEBHOOK
    ) -> PageOf | Failure:
        """Return a page of the entities that were updated since then, past leases included, ordered by id."""
        if kind not in _CHANGED:
            return Rejected(f"{TITLE} has no list of kind {kind} by the time of its last update")
        query = (
            ("lastupdatedfrom", f"{since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"),
            ("orderby", "Id"),
            ("offset", str(offset)),
            ("limit", str(PAGE_SIZE)),
        )
        return self._page(kind, await self.calls.get(_CHANGED[kind], query, priority))

    async def all_of(
        self, kind: EntityKind, property_id: int, priority: Priority = Priority.WEBHOOK
    ) -> Fetched | Failure:
        """Return the units, the active and future leases, or the listings of a property, usually in one call."""
        if kind not in _OF_PROPERTY:
            return Rejected(f"{TITLE} has no list of kind {kind} by property")
        found: list[Found] = []
        offset = 0
        while True:
            page = await self._window(kind, _OF_PROPERTY[kind](property_id), offset, priority)
            if not isinstance(page, PageOf):
                return page
            found += page.items
            offset += page.rows
            if page.rows == 0 or (page.total is not None and offset >= page.total):
                return Fetched(tuple(found))

    # ------------------------------------------------------------------------------------------------------- one entity

    async def _fetch_one(self, kind: EntityKind, entity: int, priority: Priority) -> Found | Gone | Failure:
        row = await self._read(kind, entity, priority)
        if not isinstance(row, dict):
            return row
        if kind is EntityKind.LISTING and not isinstance(row.get("Unit"), dict):
            row = {**row, "Unit": {"Id": entity}}
        found = snapshot(kind, row)
        if found is None:
            return Rejected(f"{TITLE} sent {kind} {entity} without the ids that it needs", 200)
        if entity_id(found) != entity:
            return Unavailable(f"{TITLE} sent {kind} {entity_id(found)} instead of {entity}", 200)
        return Found(kind, entity, found)

    async def _fetch_tenant(self, tenant: int, priority: Priority) -> Fetched | Failure:
        row = await self._read(EntityKind.TENANT, tenant, priority)
        if isinstance(row, Gone):
            return Fetched(())
        if not isinstance(row, dict):
            return row
        complete, incomplete = tenant_leases(row)
        items: list[Found | Gone] = [Found(EntityKind.LEASE, lease.id, lease) for lease in complete]
        for lease in incomplete:
            one = await self._fetch_one(EntityKind.LEASE, lease, priority)
            if not isinstance(one, (Found, Gone)):
                return one
            items.append(one)
        return Fetched(tuple(items))

    async def _read(self, kind: EntityKind, entity: int, priority: Priority) -> dict[str, Any] | Gone | Failure:
        if kind not in _ENTITY:
            return Rejected(f"{TITLE} has no entity of kind {kind}")
        answer = await self.calls.get(_ENTITY[kind].format(id=entity), (), priority, one=True)
        if not isinstance(answer, Reply):
            return answer
        if answer.status == 404:
            return await self._gone(kind, entity, priority)
        row = read_one(kind, answer.body)
        if row is None:
            return Unavailable(f"{TITLE} did not send a JSON object for {kind} {entity}", answer.status)
        self._proven = True
        return dict(row)

    async def _gone(self, kind: EntityKind, entity: int, priority: Priority) -> Gone | Failure:
        """Return `Gone` for a 404 of Buildium, after a probe unless the URL has proven to be that of Buildium."""
        failure = None if self._proven else await self.probe(priority)
        return failure or Gone(kind, entity)

    # ----------------------------------------------------------------------------------------------------------- a page

    def _page(self, kind: EntityKind, answer: Reply | Failure) -> PageOf | Failure:
        if not isinstance(answer, Reply):
            return answer
        rows = read_list(kind, answer.body)
        total = answer.headers.get("x-total-count")
        if rows is None:
            return Unavailable(f"{TITLE} did not send a list of kind {kind}", answer.status)
        if total is not None and (not (total.isascii() and total.isdigit()) or len(total) > 15):
            return Unavailable(f"{TITLE} sent no valid X-Total-Count of the list of kind {kind}", answer.status)
        self._proven = True
        found = [one for row in rows if (one := snapshot(kind, row)) is not None]
        if len(found) < len(rows):
            _LOG.warning("Buildium sent %d rows of kind %s without usable ids", len(rows) - len(found), kind)
        at = read_date(answer.headers.get("date"))
        count = None if total is None else int(total)
        return PageOf(tuple(Found(kind, entity_id(one), one) for one in found), len(rows), count, at)
