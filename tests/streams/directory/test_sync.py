"""Tests of the sync state, which is derived from the last progress and the last result."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas.base import EntityKind
from schemas.integrations import IntegrationRole, SyncProgress, SyncResult
from streams.directory.sync import Sync, SyncState, sync_of

T0 = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def progress(sweep: int, **more: Any) -> SyncProgress:
    began = T0 + sweep * MINUTE
    facts = {"stage": EntityKind.UNIT, "number": 2, "stages": 4, "read": 120, "total": 300, **more}
    return SyncProgress(org="o", name="n", sweep=str(sweep), started_at=began, at=began + MINUTE / 2, **facts)


def result(sweep: int, **more: Any) -> SyncResult:
    began = T0 + sweep * MINUTE
    return SyncResult(
        org="o",
        name="n",
        sweep=str(sweep),
        started_at=began,
        ended_at=began + MINUTE,
        entities=9,
        first_sweep="1",
        **more,
    )


def state(
    progressed: SyncProgress | None,
    done: SyncResult | None,
    role: IntegrationRole = IntegrationRole.SOURCE,
    *,
    enabled_at: datetime | None = T0,
    enabled: bool = True,
    held: bool = False,
) -> Sync:
    return sync_of(role, progressed, done, enabled_at=enabled_at, enabled=enabled, held=held)


STAGE = "stage 2 of 4, units 120 of 300"


@pytest.mark.parametrize(
    ("progressed", "done", "expected"),
    [
        (None, None, Sync(SyncState.NEVER_SYNCED)),
        (progress(1), None, Sync(SyncState.FIRST_SYNC, STAGE)),
        (progress(1, total=None), None, Sync(SyncState.FIRST_SYNC, "stage 2 of 4, units 120")),
        (progress(2), result(1), Sync(SyncState.SYNCING, STAGE, T0 + 2 * MINUTE, "Success", "1")),
        (progress(1), result(1), Sync(SyncState.SYNCED, None, T0 + 2 * MINUTE, "Success", "1")),
        (progress(1), result(2), Sync(SyncState.SYNCED, None, T0 + 3 * MINUTE, "Success", "2")),
        (progress(1, failed="no"), result(2), Sync(SyncState.SYNCED, None, T0 + 3 * MINUTE, "Success", "2")),
        (progress(2, failed="401"), result(1), Sync(SyncState.FAILED, "401", T0 + 2.5 * MINUTE, "Failed", "2")),
        (progress(1, failed="401"), None, Sync(SyncState.FAILED, "401", T0 + 1.5 * MINUTE, "Failed", "1")),
        (
            None,
            result(1, denied=(EntityKind.LISTING,)),
            Sync(
                SyncState.SYNCED,
                "left out, as the credentials may not read them: listings",
                T0 + 2 * MINUTE,
                "Success",
                "1",
            ),
        ),
        (
            None,
            result(1, held_removals=12, denied=(EntityKind.LISTING,)),
            Sync(
                SyncState.SYNCED,
                "left out, as the credentials may not read them: listings; 12 entities no longer exist according to "
                "the system, so many that their removal waits: look whether it still shows the whole account, then "
                "run `rentstream sync --confirm-removals`",
                T0 + 2 * MINUTE,
                "Success",
                "1",
                held_removals=12,
            ),
        ),
        (
            progress(1, denied=(EntityKind.LEASE, EntityKind.LISTING)),
            None,
            Sync(SyncState.FIRST_SYNC, f"{STAGE}; left out, as the credentials may not read them: leases, listings"),
        ),
    ],
)
def test_the_newest_record_counts(progressed: SyncProgress | None, done: SyncResult | None, expected: Sync) -> None:
    assert state(progressed, done) == expected


def test_progress_from_before_an_enabling_is_ignored() -> None:
    assert state(progress(1), None, enabled_at=T0 + 9 * MINUTE).state is SyncState.NEVER_SYNCED
    assert state(progress(1, failed="no"), None, enabled_at=T0 + 9 * MINUTE).state is SyncState.FAILED
    assert state(progress(1), None, enabled_at=None).state is SyncState.FIRST_SYNC


def test_disabled_and_held_come_before_everything_else() -> None:
    assert state(progress(2), result(1), enabled=False) == Sync(
        SyncState.DISABLED, None, T0 + 2 * MINUTE, "Success", "1"
    )
    assert state(progress(2), result(1), enabled=False, held=True).state is SyncState.DISABLED
    assert state(progress(2), result(1), held=True).state is SyncState.HELD


def test_a_receiver_is_active() -> None:
    assert state(None, None, IntegrationRole.SINK) == Sync(SyncState.ACTIVE)
