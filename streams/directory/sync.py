"""How far an integration is with its work, concluded from its last records of progress and result."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from schemas.base import EntityKind
from schemas.integrations import IntegrationRole, SyncProgress, SyncResult

SUCCESS: Final = "Success"
FAILED: Final = "Failed"

_PLURAL: Final = {
    EntityKind.PROPERTY: "properties",
    EntityKind.UNIT: "units",
    EntityKind.LEASE: "leases",
    EntityKind.TENANT: "tenants",
    EntityKind.LISTING: "listings",
}


class SyncState(StrEnum):
    """The sync state of an integration."""

    DISABLED = "disabled"
    HELD = "held"
    """It is enabled, but cannot be used; ``hold`` names the reason."""
    ACTIVE = "active"
    """An enabled receiver."""
    NEVER_SYNCED = "never_synced"
    FIRST_SYNC = "first_sync"
    SYNCING = "syncing"
    SYNCED = "synced"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Sync:
    """The state of an integration's work, and how its last full sync ended."""

    state: SyncState
    detail: str | None = None
    last_ran: datetime | None = None
    last_status: str | None = None
    last_sweep: str | None = None
    held_removals: int = 0
    """Entities whose removal waits until a person confirms it."""


def sync_of(
    role: IntegrationRole,
    progress: SyncProgress | None,
    result: SyncResult | None,
    *,
    enabled_at: datetime | None,
    enabled: bool,
    held: bool,
) -> Sync:
    """Return the state. Progress from before a newer result or a later enabling is ignored."""
    if progress and result and (progress.sweep == result.sweep or progress.started_at <= result.started_at):
        progress = None
    ran, status, sweep = (result.ended_at, SUCCESS, result.sweep) if result else (None, None, None)
    if progress and progress.failed is not None:
        ran, status, sweep = progress.at, FAILED, progress.sweep
    elif progress and enabled_at and progress.at < enabled_at:
        progress = None
    if not enabled:
        state, detail = SyncState.DISABLED, None
    elif held:
        state, detail = SyncState.HELD, None
    elif role is not IntegrationRole.SOURCE:
        state, detail = SyncState.ACTIVE, None
    else:
        state, detail = _of_source(progress, result)
    return Sync(state, detail, ran, status, sweep, result.held_removals if result and enabled else 0)


def _of_source(progress: SyncProgress | None, result: SyncResult | None) -> tuple[SyncState, str | None]:
    if progress and progress.failed is not None:
        return SyncState.FAILED, progress.failed
    if progress:
        kind = _PLURAL.get(progress.stage, "entities")
        of = f" of {progress.total}" if progress.total is not None else ""
        where = f"stage {progress.number} of {progress.stages}, {kind} {progress.read}{of}"
        return (SyncState.SYNCING if result else SyncState.FIRST_SYNC), where + _left_out(progress.denied)
    if result:
        return SyncState.SYNCED, (_left_out(result.denied) + _held(result.held_removals)).removeprefix("; ") or None
    return SyncState.NEVER_SYNCED, None


def _held(removals: int) -> str:
    if not removals:
        return ""
    return (
        f"; {removals} entities no longer exist according to the system, so many that their removal waits: "
        "look whether it still shows the whole account, then run `rentstream sync --confirm-removals`"
    )


def _left_out(denied: tuple[EntityKind, ...]) -> str:
    if not denied:
        return ""
    return f"; left out, as the credentials may not read them: {', '.join(_PLURAL.get(one, one) for one in denied)}"
