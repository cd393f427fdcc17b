"""Keys of the rows of table ``sync-states``: the org, a letter for the kind of row, and what it is about.

``e`` entity, ``t`` entities of the PMS that belong to one of ours, ``b`` entities that wait for a property, ``o`` the
index of operations that have not ended, ``k`` which entity an operation is about, ``d`` the same by the time of the
command, so that old ones are forgotten. Our ids contain no slash (`streams.web.api.commands`).
"""

from datetime import datetime

from schemas.commands import SyncEntity


def entity_key(org: str, entity: SyncEntity, own_id: str) -> bytes:
    """Return the key of the row of an entity."""
    return f"{org}/e/{entity}/{own_id}".encode()


def taken_key(org: str, connection: str, entity: SyncEntity, pms_id: int) -> bytes:
    """Return the key of the row that shows to which of our entities one of the PMS belongs."""
    return f"{org}/t/{connection}/{entity}/{pms_id}".encode()


def blocked_on(org: str, property_id: str) -> bytes:
    """Return the prefix of the rows of what waits for a property."""
    return f"{org}/b/{property_id}/".encode()


def blocked_key(org: str, property_id: str, entity: SyncEntity, own_id: str) -> bytes:
    """Return the key of the row of an entity that waits for a property."""
    return blocked_on(org, property_id) + f"{entity}/{own_id}".encode()


def operation_key(org: str, operation: str) -> bytes:
    """Return the key of the row that shows which entity an operation is about."""
    return f"{org}/k/{operation}".encode()


def operations_by_time(org: str) -> bytes:
    """Return the prefix of the index of operations by the time of their command."""
    return f"{org}/d/".encode()


def operation_time_key(org: str, at: datetime, operation: str) -> bytes:
    """Return the key of an operation in that index."""
    return operations_by_time(org) + f"{int(at.timestamp() * 1_000_000):020d}/{operation}".encode()


def open_of(org: str) -> bytes:
    """Return the prefix of the index of an org's operations that have not ended."""
    return f"{org}/o/".encode()


def open_key(org: str, entity: SyncEntity, own_id: str) -> bytes:
    """Return the key of an entity in the index of those whose operation has not ended."""
    return open_of(org) + f"{entity}/{own_id}".encode()


def entity_of(key: bytes) -> tuple[SyncEntity, str]:
    """Return the entity that a key names at its end."""
    *_, entity, own_id = key.decode().split("/")
    return SyncEntity(entity), own_id
