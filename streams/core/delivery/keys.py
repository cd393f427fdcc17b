"""Keys of the rows of table ``deliveries``: ``org/receiver/connection/`` and then a letter for the kind of row.

``p`` property, ``u`` unit. A receiver as a whole has ``org/receiver/r``, and the index of its open deliveries
``org/receiver//o/``; what is doubtful about a unit is of no receiver (`streams.core.doubts`). Every key begins with the
org, since the names of integrations are unique within an org only.
"""


def delivery_key(org: str, sink: str, connection: str, property_id: int) -> bytes:
    """Return the key of the row of a property at a receiver."""
    return f"{org}/{sink}/{connection}/p/{property_id:012d}".encode()


def known_of(org: str, sink: str, connection: str, property_id: int) -> bytes:
    """Return the prefix of the rows of what a receiver acknowledged of a property's units."""
    return f"{org}/{sink}/{connection}/u/{property_id:012d}/".encode()


def known_key(prefix: bytes, unit: int) -> bytes:
    """Return the key of the row of a unit; ``prefix`` is that of its property (`known_of`)."""
    return prefix + b"%012d" % unit


def deliveries_of(org: str, sink: str, connection: str) -> bytes:
    """Return the prefix of the rows of a connection's properties at a receiver."""
    return f"{org}/{sink}/{connection}/p/".encode()


def open_of(org: str, sink: str) -> bytes:
    """Return the prefix of the index of a receiver's open deliveries; it names no connection, since it has all."""
    return f"{org}/{sink}//o/".encode()


def open_key(org: str, sink: str, connection: str, property_id: int) -> bytes:
    """Return the key of an open delivery in the index of its receiver."""
    return open_of(org, sink) + f"{connection}/{property_id:012d}".encode()


def property_of(key: bytes) -> tuple[str, int]:
    """Return the connection and the PMS's id of the property in the key of a delivery."""
    _, _, connection, _, property_id = key.decode().split("/")
    return connection, int(property_id)


def receiver_key(org: str, sink: str) -> bytes:
    """Return the key of the row of a receiver as a whole."""
    return f"{org}/{sink}/r".encode()
