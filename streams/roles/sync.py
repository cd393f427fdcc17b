"""``rentstream sync``: asks for a full read of the accounts of an org now, or for one property, and reports its end."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from connectors.ports import Clock
from schemas.integrations import IntegrationRole
from streams.core.sweep import covers
from streams.directory.model import IntegrationState
from streams.directory.service import Integrations
from streams.directory.sync import FAILED, SyncState
from streams.roles.manage import ManageFailed, ManageRefused

LOOK: Final = 0.25
"""Seconds between two looks at the status."""

UNSTARTED: Final = 20.0
"""Seconds after which it is worth a line that no worker has begun."""

Echo = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be read."""

    org: str
    connection: str | None = None
    """Null: every enabled connection of the org; of a property: the only one."""
    property_id: int | None = None
    confirm_removals: bool = False
    wait: bool = True
    """Whether to report progress until the end."""


async def sync(integrations: Integrations, request: Request, clock: Clock, echo: Echo) -> bool:
    """Ask for what is wanted; return whether nothing failed.

    Raise `ManageRefused`, `ManageFailed` or `streams.directory.model.IntegrationError`.
    """
    names = _connections(request, await integrations.list(request.org))
    if request.property_id is not None:
        (name,) = names
        await integrations.refresh_property(request.org, name, request.property_id)
        echo(
            f"{name}: property {request.property_id} is read now with its units, leases and listings; "
            "what its receivers do not know follows"
        )
        return True
    sweeps = {}
    for name in names:
        sweeps[name] = await integrations.sweep(request.org, name, confirm_removals=request.confirm_removals)
        echo(f"{name}: a full read is asked for")
    if not request.wait:
        return True
    ended = await asyncio.gather(
        *(_watch(integrations, request.org, name, sweep, clock, echo) for name, sweep in sweeps.items())
    )
    return all(ended)


def _connections(request: Request, states: Sequence[IntegrationState]) -> list[str]:
    sources = [one for one in states if one.role is IntegrationRole.SOURCE]
    if request.connection is not None:
        if all(one.name != request.connection for one in sources):
            raise ManageRefused(f"{request.org} has no connection {request.connection}; it has: {_names(sources)}")
        return [request.connection]
    enabled = [one.name for one in sources if one.enabled]
    if not enabled:
        raise ManageFailed(
            f"{request.org} has no enabled connection; it has: {_names(sources)}. A connection that is "
            "described by the environment needs the same settings here: run the command with those of the workers"
        )
    if request.property_id is not None and len(enabled) > 1:
        raise ManageRefused(f"{request.org} has several connections: add --connection with one of {', '.join(enabled)}")
    return enabled


def _names(sources: Sequence[IntegrationState]) -> str:
    return ", ".join(f"{one.name}{'' if one.enabled else ' (disabled)'}" for one in sources) or "none"


async def _watch(integrations: Integrations, org: str, name: str, sweep: str, clock: Clock, echo: Echo) -> bool:
    """Print each change of a connection's sync until a sweep that a person asked for has ended; return its success."""
    shown, began, hinted = "", clock.monotonic(), False
    while True:
        state = await integrations.get(org, name)
        if state.last_sweep is not None and covers(state.last_sweep, sweep):
            succeeded = state.last_status != FAILED
            echo(f"{name}: {'done' if succeeded else 'failed'}{f' ({state.sync_detail})' if state.sync_detail else ''}")
            return succeeded
        if state.sync_state in (SyncState.DISABLED, SyncState.HELD):
            raise ManageFailed(f"{name} is {state.sync_state}" + (f": {state.hold}" if state.hold else ""))
        text = state.sync_detail if state.sync_state in (SyncState.SYNCING, SyncState.FIRST_SYNC) else None
        if text and text != shown:
            echo(f"{name}: {text}")
            shown = text
        if not shown and not hinted and clock.monotonic() - began >= UNSTARTED:
            echo(f"{name}: no worker has begun yet; the request stays until one does")
            hinted = True
        await clock.sleep(LOOK)
