"""The routes of commands and syncs: HTTP in front of `streams.syncs.service.Syncs`."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Final

from fastapi import APIRouter, Header, Path, Query, Response, Security

from schemas.commands import OwnerBody, PropertyBody, SyncEntity, SyncState
from streams.directory.model import NotFound
from streams.web.api.access import AppParts, Parts, authenticate
from streams.web.api.bodies import JsonRequest, JsonRoute
from streams.web.api.command_models import (
    HREF,
    AcceptedCommand,
    EntityType,
    FailedSyncs,
    OwnerInput,
    PropertyInput,
    Retried,
    RetryInput,
    Sync,
)
from streams.web.api.command_models import Operation as ShownOperation
from streams.web.api.openapi import headers, problems
from streams.web.api.tokens import Caller

MOST: Final = 200
"""Entities on one page."""

CURSOR: Final = r"^\d{1,17}\.[A-Za-z0-9_-]{1,64}$"
"""The place of the last entity of a page: when it changed, in microseconds since the epoch, and its id.

So the next page is right even if entities have changed since.
"""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class CommandRequest(JsonRequest):
    """A request with a command, which may have many units."""

    most_bytes: ClassVar[int] = 1024 * 1024


class CommandRoute(JsonRoute):
    """A route for commands."""

    request_class: ClassVar[type[JsonRequest]] = CommandRequest


router = APIRouter(prefix="/api", route_class=CommandRoute, tags=["commands"])

Commander = Annotated[Caller, Security(authenticate, scopes=["commands:write"])]
SyncReader = Annotated[Caller, Security(authenticate, scopes=["sync:read"])]
SyncWriter = Annotated[Caller, Security(authenticate, scopes=["sync:write"])]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="The same key with the same request has the same answer for 7 days, and is one operation; with "
        "another request it is refused with 422.",
    ),
]
OwnId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Our id, as the answer to the POST has it.")]
ConnectionName = Annotated[
    str | None,
    Query(max_length=64, description="Name of the connection, where an org has several of them."),
]

_ALWAYS: Final = (401, 403, 500, 503)
_NOT_FOUND: Final = "The org has no such property or owner."
_WRONG: Final = "Members of the body are wrong, every one is named; or the Idempotency-Key was used before."
_COMMAND: Final[dict[int | str, dict[str, Any]]] = {
    202: {"headers": headers("Location")},
    **problems(
        *_ALWAYS, 400, 404, 409, 413, 415, 422,
        s404="The org has no such connection, property or owner.",
        s409="The org has no connection, or several of which none is named.",
        s413="A body has at most 1024 KiB.",
        s422=_WRONG,
    ),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- commands


@router.post(
    "/properties",
    operation_id="createProperty",
    summary="Create a property",
    status_code=202,
    responses=_COMMAND,
)
async def create_property(
    body: PropertyInput,
    caller: Commander,
    parts: AppParts,
    response: Response,
    key: IdempotencyKey = None,
    connection: ConnectionName = None,
) -> AcceptedCommand:
    """Accept a property, durably; it is created in Buildium afterwards."""
    return await _accept(parts, caller, body.body(), response, key=key, connection=connection)


@router.put(
    "/properties/{id}",
    operation_id="changeProperty",
    summary="Change a property",
    status_code=202,
    responses=_COMMAND,
)
async def change_property(
    own_id: Annotated[OwnId, Path(alias="id")],
    body: PropertyInput,
    caller: Commander,
    parts: AppParts,
    response: Response,
    key: IdempotencyKey = None,
) -> AcceptedCommand:
    """Accept the property as it is to be; what Buildium has besides is kept. Units are added, never removed."""
    return await _accept(parts, caller, body.body(), response, own_id=own_id, key=key)


@router.post(
    "/owners",
    operation_id="createOwner",
    summary="Create an owner",
    status_code=202,
    responses=_COMMAND,
)
async def create_owner(
    body: OwnerInput,
    caller: Commander,
    parts: AppParts,
    response: Response,
    key: IdempotencyKey = None,
    connection: ConnectionName = None,
) -> AcceptedCommand:
    """Accept an owner, durably; it is created in Buildium once its properties are there."""
    return await _accept(parts, caller, body.body(), response, key=key, connection=connection)


@router.put(
    "/owners/{id}",
    operation_id="changeOwner",
    summary="Change an owner",
    status_code=202,
    responses=_COMMAND,
)
async def change_owner(
    own_id: Annotated[OwnId, Path(alias="id")],
    body: OwnerInput,
    caller: Commander,
    parts: AppParts,
    response: Response,
    key: IdempotencyKey = None,
) -> AcceptedCommand:
    """Accept the owner as it is to be; what Buildium has besides is kept."""
    return await _accept(parts, caller, body.body(), response, own_id=own_id, key=key)


# ---------------------------------------------------------------------------------------------------------------- syncs


@router.get(
    "/buildium/sync",
    operation_id="getSync",
    summary="Show what became of a property or an owner, or what failed",
    responses=problems(*_ALWAYS, 404, 422, s404=_NOT_FOUND),
)
async def get_sync(
    caller: SyncReader,
    parts: AppParts,
    entity_type: Annotated[EntityType | None, Query(alias="entityType")] = None,
    entity_id: Annotated[str | None, Query(alias="entityId", max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 50,
    cursor: Annotated[str | None, Query(pattern=CURSOR, description="`nextCursor` of the page before.")] = None,
) -> Sync | FailedSyncs:
    """Return the sync of one entity; without `entityId` those that failed, newest first."""
    if entity_id is not None:
        return Sync.of(await _state(parts, caller.org, entity_type, entity_id))
    after = None if cursor is None else _read_cursor(cursor)
    failed = [
        one
        for one in parts.syncs.failed(caller.org)
        if (entity_type is None or one.entity is entity_type.entity) and (after is None or _place(one) < after)
    ]
    more = len(failed) > limit
    return FailedSyncs(
        items=tuple(Sync.of(one) for one in failed[:limit]),
        next_cursor=_cursor(failed[limit - 1]) if more else None,
    )


@router.post(
    "/buildium/sync",
    operation_id="retrySyncs",
    summary="Try again what failed",
    status_code=202,
    responses=problems(*_ALWAYS, 400, 404, 413, 415, 422, s404=_NOT_FOUND),
)
async def retry_syncs(body: RetryInput, caller: SyncWriter, parts: AppParts) -> Retried:
    """Try again now what failed, of a kind or of one entity."""
    entity = body.entity_type.entity
    operations = await parts.syncs.retry(caller.org, caller.subject, entity, body.entity_id)
    return Retried(retried=len(operations), operations=tuple(ShownOperation.of(one) for one in operations))


# --------------------------------------------------------------------------------------------------------------- shared


async def _accept(
    parts: Parts,
    caller: Caller,
    body: PropertyBody | OwnerBody,
    response: Response,
    *,
    own_id: str | None = None,
    key: str | None = None,
    connection: str | None = None,
) -> AcceptedCommand:
    receipt = await parts.syncs.submit(caller.org, caller.subject, body, own_id=own_id, key=key, connection=connection)
    response.headers["Location"] = HREF.format(entity=receipt.entity, id=receipt.id)
    return AcceptedCommand.of(receipt)


async def _state(parts: Parts, org: str, entity_type: EntityType | None, own_id: str) -> SyncState:
    """Return the state of an entity; without a type that of whichever has the id. Raise `NotFound`."""
    if entity_type is not None:
        return await parts.syncs.state(org, entity_type.entity, own_id)
    try:
        return await parts.syncs.state(org, SyncEntity.PROPERTY, own_id)
    except NotFound:
        return await parts.syncs.state(org, SyncEntity.OWNER, own_id)


def _place(state: SyncState) -> tuple[datetime, str]:
    return state.updated_at, state.id


def _cursor(state: SyncState) -> str:
    return f"{(state.updated_at - _EPOCH) // timedelta(microseconds=1)}.{state.id}"


def _read_cursor(text: str) -> tuple[datetime, str]:
    micros, _, own_id = text.partition(".")
    return _EPOCH + timedelta(microseconds=int(micros)), own_id
