"""The routes that read the query view: rent roll, deliveries, webhooks and dead letters."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Request, Response, Security
from pydantic import BeforeValidator
from starlette.exceptions import HTTPException

from schemas import topics
from schemas.integrations import IntegrationRole
from streams.core.dead_letters import place_of
from streams.directory.model import IntegrationState
from streams.directory.sync import SyncState
from streams.view.database import ViewUnavailable
from streams.view.queries import BadCursor, DeliveryFilter, Found, LetterFilter, RollFilter, WebhookFilter
from streams.web.api.access import AppParts, Parts, authenticate
from streams.web.api.bodies import JsonRoute
from streams.web.api.moments import moment
from streams.web.api.openapi import headers, problems
from streams.web.api.tokens import Caller
from streams.web.api.view_models import (
    Attempts,
    DeadLetter,
    DeadLetterGroup,
    Deliveries,
    LetterState,
    RentRoll,
    State,
    Webhooks,
)

MOST: Final = 500
"""Rows of one page."""
MOST_AT_ONCE: Final = 100
"""Rows that are read without a thread: about three milliseconds."""

router = APIRouter(prefix="/api", route_class=JsonRoute, tags=["view"])

RollReader = Annotated[Caller, Security(authenticate, scopes=["roll:read"])]
SyncReader = Annotated[Caller, Security(authenticate, scopes=["sync:read"])]

LetterReader = Annotated[Caller, Security(authenticate, scopes=["replay:read"])]

Limit = Annotated[int, Query(ge=1, le=MOST)]

_NAME: Final = "[a-z0-9-]{1,64}"
_ID: Final = r"\d{1,18}"
_COUNT: Final = r"\d{1,9}"
_MICROSECONDS: Final = r"\d{1,17}"


def _cursor(*parts: str) -> Any:
    """Return the declaration of a cursor: the place of the last row of a page, by what its list is ordered by."""
    return Query(pattern=rf"^{r'[.]'.join(parts)}$", description="`nextCursor` of the page before.")


UnitCursor = Annotated[str | None, _cursor(_NAME, _ID)]
DeliveryCursor = Annotated[str | None, _cursor(_NAME, _NAME, _ID)]
AttemptCursor = Annotated[str | None, _cursor(_MICROSECONDS, _NAME, _ID, _COUNT, _COUNT)]
WebhookCursor = Annotated[str | None, _cursor(_MICROSECONDS, _COUNT, _ID)]
LetterCursor = Annotated[str | None, _cursor(_MICROSECONDS, _COUNT, _ID)]
Name = Annotated[str | None, Query(pattern=r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$")]
PropertyId = Annotated[int | None, Query(alias="property", ge=0, le=2**63 - 1, description="The PMS's id.")]


Since = Annotated[
    datetime | None,
    BeforeValidator(moment),
    Query(alias="changedSince", description="With its time zone, such as `2026-03-01T12:00:00Z`."),
]
Text = Annotated[str | None, Query(alias="q", max_length=100, description="Part of a code, a name or an address.")]

_ALWAYS: Final = (401, 403, 422, 500, 503)
_PAGE: Final[dict[int | str, dict[str, Any]]] = problems(
    *_ALWAYS, s503="The database of the view cannot be used at the moment."
)

_ORDER: Final = (
    SyncState.NEVER_SYNCED,
    SyncState.FIRST_SYNC,
    SyncState.HELD,
    SyncState.FAILED,
    SyncState.DISABLED,
    SyncState.SYNCING,
    SyncState.SYNCED,
)
"""From the least complete state to the most complete one."""


@router.get(
    "/rent-roll",
    operation_id="getRentRoll",
    summary="Read the current rent roll",
    response_model=RentRoll,
    responses={
        200: {"headers": headers("ETag")},
        304: {"description": "Nothing has changed since the ETag of If-None-Match."},
        **_PAGE,
    },
)
async def get_rent_roll(
    caller: RollReader,
    parts: AppParts,
    connection: Name = None,
    property_id: PropertyId = None,
    state: Annotated[list[State] | None, Query(description="By default all but `removed`.")] = None,
    changed_since: Since = None,
    text: Text = None,
    limit: Limit = 100,
    cursor: UnitCursor = None,
    if_none_match: Annotated[str | None, Header(alias="If-None-Match")] = None,
) -> Response:
    """Return units with their state, and what each receiver knows of them; the org is that of the token."""
    known = await parts.service.list(caller.org)
    receivers = [one.name for one in known if one.role is IntegrationRole.SINK]
    chosen = {} if state is None else {"states": [one.value for one in state]}
    wanted = RollFilter(
        connection=connection,
        property_id=property_id,
        changed_since=changed_since,
        text=text,
        **chosen,
    )
    found = await _read(
        parts,
        lambda: parts.view.rent_roll(caller.org, wanted, receivers, limit, cursor),
        limit,
        scans=bool(text) or changed_since is not None,
    )
    sources = [one for one in known if one.role is IntegrationRole.SOURCE and connection in (None, one.name)]
    head = {
        "syncState": _least(sources),
        "connections": [
            {"connection": one.name, "syncState": one.sync_state, "syncDetail": one.sync_detail} for one in sources
        ],
    }
    # Weak: the body also has a time, which is another one with every answer.
    tag = f'W/"{found.digest()}-{head["syncState"]}"'
    if if_none_match is not None and tag in [one.strip() for one in if_none_match.split(",")]:
        return Response(status_code=304, headers={"ETag": tag})
    response = _answer(found, head)
    response.headers["ETag"] = tag
    return response


@router.get(
    "/deliveries",
    operation_id="listDeliveries",
    summary="Read what each receiver knows of each property",
    response_model=Deliveries,
    responses=_PAGE,
)
async def list_deliveries(
    caller: SyncReader,
    parts: AppParts,
    receiver: Name = None,
    property_id: PropertyId = None,
    failed: Annotated[bool, Query(description="Only what waits for another attempt, or was given up.")] = False,
    limit: Limit = 100,
    cursor: DeliveryCursor = None,
) -> Response:
    """Return the delivery of each property to each receiver: whether it got there, and if not, why."""
    wanted = DeliveryFilter(receiver=receiver, property_id=property_id, failed=failed)
    return _answer(await _read(parts, lambda: parts.view.deliveries(caller.org, wanted, limit, cursor), limit))


@router.get(
    "/deliveries/attempts",
    operation_id="listDeliveryAttempts",
    summary="Read the batches of the last days, newest first",
    response_model=Attempts,
    responses=_PAGE,
)
async def list_attempts(
    caller: SyncReader,
    parts: AppParts,
    receiver: Name = None,
    property_id: PropertyId = None,
    failed: Annotated[bool, Query(description="Only those that were not acknowledged.")] = False,
    changed_since: Since = None,
    limit: Limit = 100,
    cursor: AttemptCursor = None,
) -> Response:
    """Return each batch that was sent, with the answer of its receiver."""
    wanted = DeliveryFilter(receiver=receiver, property_id=property_id, failed=failed, changed_since=changed_since)
    return _answer(await _read(parts, lambda: parts.view.attempts(caller.org, wanted, limit, cursor), limit))


@router.get(
    "/webhooks",
    operation_id="listWebhooks",
    summary="Read the webhooks of the last days, newest first",
    response_model=Webhooks,
    responses=_PAGE,
)
async def list_webhooks(
    caller: SyncReader,
    parts: AppParts,
    connection: Name = None,
    event: Annotated[str | None, Query(max_length=100, examples=["Rental.Updated"])] = None,
    entity: Annotated[int | None, Query(ge=0, le=2**63 - 1)] = None,
    changed_since: Since = None,
    limit: Limit = 100,
    cursor: WebhookCursor = None,
) -> Response:
    """Return the webhooks that were accepted, with why one led to nothing."""
    wanted = WebhookFilter(connection=connection, event=event, entity=entity, changed_since=changed_since)
    return _answer(await _read(parts, lambda: parts.view.webhooks(caller.org, wanted, limit, cursor), limit))


# --------------------------------------------------------------------------------------------------------- dead letters


def _wanted_letters(
    state: Annotated[LetterState | None, Query(description="By default both states are in the answer.")] = None,
    since: Annotated[datetime | None, BeforeValidator(moment), Query()] = None,
    until: Annotated[datetime | None, BeforeValidator(moment), Query()] = None,
    origin: Annotated[str | None, Query(max_length=200, examples=[topics.BATCHES.name])] = None,
    reason: Annotated[str | None, Query(max_length=100, examples=["rejected"])] = None,
    fingerprint: Annotated[str | None, Query(pattern="^[0-9a-f]{1,64}$")] = None,
    entity: Annotated[str | None, Query(max_length=200, examples=["property:1001"])] = None,
    integration: Name = None,
    letter: Annotated[str | None, Query(alias="id", pattern=r"^\d{1,5}-\d{1,18}$", examples=["3-1042"])] = None,
) -> LetterFilter:
    """Return which dead letters are wanted."""
    return LetterFilter(
        open=None if state is None else state is LetterState.OPEN,
        place=None if letter is None else place_of(letter),
        since=since,
        until=until,
        origin=origin,
        reason=reason,
        fingerprint=fingerprint,
        entity=entity,
        integration=integration,
    )


WantedLetters = Annotated[LetterFilter, Depends(_wanted_letters)]


@router.get(
    "/dead-letters",
    operation_id="listDeadLetters",
    summary="Read what was given up in the last 30 days, newest first",
    response_model=list[DeadLetter],
    responses={200: {"headers": headers("Link", "X-As-Of")}, **_PAGE},
)
async def list_dead_letters(
    request: Request,
    caller: LetterReader,
    parts: AppParts,
    wanted: WantedLetters,
    limit: Limit = 100,
    cursor: LetterCursor = None,
) -> Response:
    """Return the dead letters of the token's org; the next page is in the header `Link`."""
    found = await _read(parts, lambda: parts.view.dead_letters(caller.org, wanted, limit, cursor), limit, scans=True)
    response = _list(found)
    if found.next_cursor is not None:
        following = request.url.include_query_params(cursor=found.next_cursor)
        response.headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    return response


@router.get(
    "/dead-letters/groups",
    operation_id="listDeadLetterGroups",
    summary="Read what was given up, one item for each cause",
    response_model=list[DeadLetterGroup],
    responses={200: {"headers": headers("X-As-Of")}, **_PAGE},
)
async def list_dead_letter_groups(
    caller: LetterReader, parts: AppParts, wanted: WantedLetters, limit: Limit = 100
) -> Response:
    """Return the dead letters of the token's org by their fingerprint, the cause with the newest one first."""
    return _list(
        await _read(parts, lambda: parts.view.dead_letter_groups(caller.org, wanted, limit), limit, scans=True)
    )


# --------------------------------------------------------------------------------------------------------------- shared


async def _read(parts: Parts, query: Callable[[], Found], rows: int, *, scans: bool = False) -> Found:
    """Return the result of a query. Raise 422 or 503.

    It is made in a thread, unless it takes so short that the thread would cost more: of SQLite, in a file of this
    machine, for few ``rows``. ``scans``: it looks at rows that it does not return.
    """
    try:
        if parts.view.local and rows <= MOST_AT_ONCE and not scans:
            return query()
        return await asyncio.to_thread(query)
    except BadCursor:
        raise HTTPException(422, "The query parameter cursor is none that this list gave out.") from None
    except ViewUnavailable as error:
        raise HTTPException(503, f"The query view cannot be read: {error}.", {"Retry-After": "5"}) from None


def _answer(found: Found, head: dict[str, Any] | None = None) -> Response:
    """Return a page; its rows have the members of the models already, so they are not validated."""
    content = {"asOf": found.as_of, "nextCursor": found.next_cursor, **(head or {}), "items": found.items}
    return Response(_ENCODER.encode(content), media_type="application/json")


def _list(found: Found) -> Response:
    """Return a page as a plain list, with what is known of it in headers."""
    response = Response(_ENCODER.encode(found.items), media_type="application/json")
    if found.as_of is not None:
        response.headers["X-As-Of"] = found.as_of.isoformat().replace("+00:00", "Z")
    return response


_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")


def _least(sources: Sequence[IntegrationState]) -> str:
    """Return the least complete state of some connections."""
    found = {one.sync_state for one in sources}
    return next((state.value for state in _ORDER if state in found), "none")
