"""Keys of the deliveries: no row is found under the prefix of another kind, receiver, connection or org."""

from streams.core.delivery.keys import (
    deliveries_of,
    delivery_key,
    known_key,
    known_of,
    open_key,
    open_of,
    property_of,
    receiver_key,
)
from streams.core.doubts import doubts_of

ORGS, SINKS, CONNECTIONS = ("a", "a2"), ("s", "u", "p", "r"), ("c", "o", "r", "p", "u", "d")


def test_every_row_has_a_key_of_its_own() -> None:
    """Also where integrations are named like a kind of row."""
    keys = [
        key
        for org in ORGS
        for sink in SINKS
        for key in (
            receiver_key(org, sink),
            *(
                found
                for connection in CONNECTIONS
                for found in (
                    delivery_key(org, sink, connection, 1),
                    known_key(known_of(org, sink, connection, 1), 1),
                    open_key(org, sink, connection, 1),
                )
            ),
        )
    ]
    assert len(set(keys)) == len(keys)


def test_a_prefix_finds_only_its_own_rows() -> None:
    for org in ORGS:
        for sink in SINKS:
            found = [open_key(org, sink, connection, 1) for connection in CONNECTIONS]
            assert all(key.startswith(open_of(org, sink)) for key in found)
            for connection in CONNECTIONS:
                delivery = delivery_key(org, sink, connection, 1)
                assert delivery.startswith(deliveries_of(org, sink, connection))
                others = (open_of(org, sink), known_of(org, sink, connection, 1), doubts_of(org, connection))
                assert not any(delivery.startswith(prefix) for prefix in others)
                assert not any(key.startswith(deliveries_of(org, sink, connection)) for key in found)


def test_the_units_of_a_property_are_not_those_of_a_longer_number() -> None:
    assert not known_of("a", "s", "c", 10**12).startswith(known_of("a", "s", "c", 10**11))


def test_the_property_of_a_delivery_is_in_its_key() -> None:
    assert property_of(delivery_key("a", "s", "c", 12)) == ("c", 12)
