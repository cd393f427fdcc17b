"""Keys of rows: unique, and in the order of the ids."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.base import EntityKind
from streams.core.rent_roll.keys import (
    account_key,
    id_of,
    lease_key,
    leases_of,
    properties_of,
    property_key,
    scope,
    seen_key,
    swept_key,
    unit_key,
    units_of,
)

IDS = st.integers(0, 10**12 - 1)


@given(IDS, IDS)
def test_keys_sort_as_their_ids_do_and_hold_them(one: int, other: int) -> None:
    prefix = scope("default", "buildium")
    for key, prefix_of in ((unit_key, units_of), (property_key, properties_of), (lease_key, leases_of)):
        assert (key(prefix, one) < key(prefix, other)) is (one < other)
        assert key(prefix, one).startswith(prefix_of(prefix))
        assert id_of(key(prefix, one)) == one


def test_no_two_rows_share_a_key() -> None:
    """Neither of two connections, nor of two kinds of rows."""
    keys = [
        key
        for prefix in (scope("o", "a"), scope("o", "b"), scope("p", "a"))
        for key in (
            unit_key(prefix, 1),
            property_key(prefix, 1),
            lease_key(prefix, 1),
            *(seen_key(prefix, kind, number) for kind in EntityKind for number in (0, 1)),
            *(swept_key(prefix, kind) for kind in EntityKind),
            account_key(prefix),
        )
    ]
    assert len(set(keys)) == len(keys)
