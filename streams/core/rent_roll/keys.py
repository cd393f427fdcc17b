"""Keys of the rows of table ``rent-roll``: ``org/connection/`` and then a letter for the kind of row.

``u`` unit, ``p`` property, ``i`` a unit in the index of its property, ``l`` lease, ``s`` ids that one page of a sweep
brought, ``w`` how far sweeps have looked, ``g`` what no longer exists and is not removed yet, ``m`` when a property was
last marked as due, ``a`` account. PMS ids are unique within a connection only, so every key begins with its scope.
"""

from datetime import UTC, datetime
from typing import Final

from schemas.base import EntityKind


def scope(org: str, connection: str) -> bytes:
    """Return the prefix of every row of a connection."""
    return f"{org}/{connection}/".encode()


def unit_key(prefix: bytes, unit: int) -> bytes:
    return b"%su/%012d" % (prefix, unit)


def property_key(prefix: bytes, property_id: int) -> bytes:
    return b"%sp/%012d" % (prefix, property_id)


def lease_key(prefix: bytes, lease: int) -> bytes:
    return b"%sl/%012d" % (prefix, lease)


def seen_key(prefix: bytes, stage: EntityKind, number: int) -> bytes:
    return b"%ss/%s/%06d" % (prefix, stage.value.encode(), number)


def absent_key(prefix: bytes, kind: EntityKind, entity: int) -> bytes:
    return absent_of(prefix, kind) + b"%012d" % entity


def absent_of(prefix: bytes, kind: EntityKind) -> bytes:
    """Return the prefix of the rows of a kind of entities that are not removed yet."""
    return b"%sg/%s/" % (prefix, kind.value.encode())


def swept_key(prefix: bytes, kind: EntityKind) -> bytes:
    return b"%sw/%s" % (prefix, kind.value.encode())


def members_of(prefix: bytes, property_id: int) -> bytes:
    """Return the prefix of the index of the units of a property."""
    return b"%si/%012d/" % (prefix, property_id)


def member_key(prefix: bytes, property_id: int, unit: int) -> bytes:
    return members_of(prefix, property_id) + b"%012d" % unit


def mark_key(prefix: bytes, property_id: int) -> bytes:
    return b"%sm/%012d" % (prefix, property_id)


def account_key(prefix: bytes) -> bytes:
    return prefix + b"a"


def units_of(prefix: bytes) -> bytes:
    """Return the prefix of every unit's row."""
    return prefix + b"u/"


def properties_of(prefix: bytes) -> bytes:
    """Return the prefix of every property's row."""
    return prefix + b"p/"


def leases_of(prefix: bytes) -> bytes:
    """Return the prefix of every lease's row."""
    return prefix + b"l/"


def id_of(key: bytes) -> int:
    """Return the PMS's id in the key of a unit, property or lease, or of a unit in the index of its property."""
    return int(key.rsplit(b"/", 1)[1])


STAMP: Final = "%Y%m%dT%H%M%SZ"
"""The form of the ids of sweeps: times in UTC."""


def stamp(at: datetime) -> str:
    """Return the id of a sweep that starts at a moment, to the second (``20260301T120000Z``)."""
    return at.astimezone(UTC).strftime(STAMP)
