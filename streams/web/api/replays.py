"""The routes of replays: HTTP in front of `streams.replays.service.Replays`."""

import asyncio
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Response, Security

from schemas.replay import ReplayWish
from streams.replays.book import Replay as KnownReplay
from streams.view.database import ViewUnavailable
from streams.web.api.access import AppParts, Parts, authenticate
from streams.web.api.bodies import JsonRoute
from streams.web.api.openapi import headers, problems
from streams.web.api.replay_models import Replay, ReplayInput, ReplayList
from streams.web.api.tokens import Caller

router = APIRouter(prefix="/api", route_class=JsonRoute, tags=["replays"])

ReplayReader = Annotated[Caller, Security(authenticate, scopes=["replay:read"])]
ReplayWriter = Annotated[Caller, Security(authenticate, scopes=["replay:write"])]

ReplayId = Annotated[str, Path(pattern="^[A-Za-z0-9-]{1,64}$")]

SHOWN: Final = 100
"""Replays of a list."""

_ALWAYS: Final = (401, 403, 500, 503)
_NOT_FOUND: Final = "The org has no such replay."
_ORDER: Final[dict[int | str, dict[str, Any]]] = problems(
    *_ALWAYS, 404, 409, 422, s404=_NOT_FOUND, s409="The replay has ended or was cancelled."
)


@router.post(
    "/replays",
    operation_id="planReplay",
    summary="Plan a replay",
    status_code=201,
    responses={
        201: {"headers": headers("Location")},
        **problems(*_ALWAYS, 400, 409, 413, 415, 422, s409="The plan would have too many records."),
    },
)
async def plan_replay(body: ReplayInput, caller: ReplayWriter, parts: AppParts, response: Response) -> Replay:
    """Return which records a replay would process again; nothing is processed before its approval."""
    found = await parts.replays.plan(body.request(caller.org), caller.subject)
    response.headers["Location"] = f"/api/replays/{found.plan.id}"
    return Replay.of(found, 0)


@router.get(
    "/replays",
    operation_id="listReplays",
    summary="List the replays, the newest first",
    responses=problems(*_ALWAYS),
)
async def list_replays(caller: ReplayReader, parts: AppParts) -> ReplayList:
    """Return the last hundred replays of the token's org."""
    found = [await _shown(parts, one) for one in parts.replays.list(caller.org)[:SHOWN]]
    return ReplayList(items=tuple(found))


@router.get(
    "/replays/{id}",
    operation_id="getReplay",
    summary="Show a replay: its plan, its state and its report",
    responses=problems(*_ALWAYS, 404, 422, s404=_NOT_FOUND),
)
async def get_replay(replay: Annotated[ReplayId, Path(alias="id")], caller: ReplayReader, parts: AppParts) -> Replay:
    """Return a replay of the token's org."""
    return await _shown(parts, await parts.replays.get(caller.org, replay))


@router.post(
    "/replays/{id}/approve",
    operation_id="approveReplay",
    summary="Begin a replay, or go on with a paused one",
    responses=_ORDER,
)
async def approve_replay(
    replay: Annotated[ReplayId, Path(alias="id")], caller: ReplayWriter, parts: AppParts
) -> Replay:
    """Have exactly the plan carried out."""
    return await _ordered(parts, caller, replay, ReplayWish.RUN)


@router.post(
    "/replays/{id}/pause",
    operation_id="pauseReplay",
    summary="Pause a replay",
    responses=_ORDER,
)
async def pause_replay(replay: Annotated[ReplayId, Path(alias="id")], caller: ReplayWriter, parts: AppParts) -> Replay:
    """Have it stop after the step that is being made; an approval has it go on."""
    return await _ordered(parts, caller, replay, ReplayWish.PAUSE)


@router.post(
    "/replays/{id}/cancel",
    operation_id="cancelReplay",
    summary="End a replay without the rest of its plan",
    responses=_ORDER,
)
async def cancel_replay(replay: Annotated[ReplayId, Path(alias="id")], caller: ReplayWriter, parts: AppParts) -> Replay:
    """Have it end after the step that is being made."""
    return await _ordered(parts, caller, replay, ReplayWish.CANCEL)


async def _ordered(parts: Parts, caller: Caller, replay: str, wish: ReplayWish) -> Replay:
    return await _shown(parts, await parts.replays.order(caller.org, replay, wish, caller.subject))


async def _shown(parts: Parts, known: KnownReplay) -> Replay:
    """Return a replay with what became of its records, as far as the query view can be read."""
    try:
        again = await asyncio.to_thread(parts.view.given_up_again, known.plan.org, known.plan.id)
    except ViewUnavailable:
        again = None
    return Replay.of(known, again)
