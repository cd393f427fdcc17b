"""What a batch carries: which units, the digest of its content, and its ids."""

import hashlib
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from schemas.delivery import (
    Acknowledged,
    BatchMode,
    DeliveryRow,
    OfferedProperty,
    OfferedUnit,
    ReceiverRow,
    UnitState,
)
from streams.core.offer import Offer, digest

_BATCH_IDS = uuid.UUID("5f0e2f53-6d3e-4a86-9a43-0e2f5a3f9b1c")


@dataclass(frozen=True, slots=True)
class Content:
    """What a batch carries."""

    mode: BatchMode
    property: OfferedProperty
    units: tuple[OfferedUnit, ...]
    sent: tuple[Acknowledged, ...]
    """What the receiver knows once it acknowledges the batch."""
    digest: bytes
    """Covers everything, also the fields that cause no batch: one batch id never goes with two bodies."""


def cut(offer: Offer, row: DeliveryRow, known: Mapping[int, bytes] | None) -> Content | None:
    """Return what to send of a property; null if its receiver knows everything.

    ``known`` holds the digests that the receiver acknowledged, by unit, at least of those that are offered; null before
    its first snapshot. A property that was never sent is not sent at all as long as it is not active or has no units.
    """
    if known is None and not row.sent and not offer.property.is_active:
        return None
    everything = known is None or (owes_snapshot(row) and offer.property.is_active)
    units, mode = units_to_send(offer, known, {one.unit_id for one in row.sent}, everything=everything)
    if not units:
        return None
    return Content(
        mode=mode,
        property=offer.property,
        units=units,
        sent=tuple(Acknowledged(unit_id=unit.id, digest=digest(offer.property, unit)) for unit in units),
        digest=digest_of(mode, offer.property, units),
    )


def owes_snapshot(row: DeliveryRow) -> bool:
    """Return whether a scheduled snapshot was asked for that the receiver has not acknowledged."""
    return row.snapshot_due is not None and (row.snapshot_at is None or row.snapshot_at < row.snapshot_due)


def units_to_send(
    offer: Offer, known: Mapping[int, bytes] | None, unconfirmed: Collection[int], *, everything: bool = False
) -> tuple[tuple[OfferedUnit, ...], BatchMode]:
    """Return the units of a batch: all of them in a snapshot, else those that the receiver does not know as they are.

    ``known`` holds the digests that the receiver acknowledged, by unit; null before its first snapshot. An
    ``unconfirmed`` unit was sent and not acknowledged: it is sent again, whatever it is now. A unit that was removed
    before it was ever sent is left out. ``everything``: send a snapshot.
    """
    mentioned = {*unconfirmed, *(known or ())}
    units = tuple(unit for unit in offer.units if unit.state is not UnitState.REMOVED or unit.id in mentioned)
    if everything or known is None:
        return units, BatchMode.SNAPSHOT
    changed = (unit for unit in units if unit.id in unconfirmed or known.get(unit.id) != digest(offer.property, unit))
    return tuple(changed), BatchMode.DELTA


def digest_of(mode: BatchMode, property_: OfferedProperty, units: tuple[OfferedUnit, ...]) -> bytes:
    """Return the digest of the whole content of a batch."""
    text = b"\n".join([mode.value.encode(), *(msgspec.json.encode(one) for one in (property_, *units))])
    return hashlib.blake2b(text, digest_size=16).digest()


def batch_id(key: bytes, version: int, cut_at: datetime, content: bytes) -> str:
    """Return the id of a batch, the same for the same arguments: it is the receiver's idempotency key."""
    return str(uuid.uuid5(_BATCH_IDS, f"{key.decode()} {version} {cut_at.isoformat()} {content.hex()}"))


def count_cut(last: ReceiverRow, now: datetime) -> ReceiverRow:
    """Count one more cut for a receiver; cuts are named by their second, the further ones of a second are numbered."""
    second = now.astimezone(UTC).strftime("%Y-%m-%d-%H-%M-%S")
    if second > last.second:
        return last.model_copy(update={"second": second, "count": 1})
    # A clock that steps back must not repeat a name: the later second goes on counting.
    return last.model_copy(update={"count": last.count + 1})


def sync_id(cut: ReceiverRow) -> str:
    """Return the name of the cut that was counted last (``sync-2026-03-01-12-30-15``, ``…-2``)."""
    return f"sync-{cut.second}" if cut.count == 1 else f"sync-{cut.second}-{cut.count}"
