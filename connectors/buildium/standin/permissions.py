"""The permissions of the stand-in's API key: to view and to edit each kind of entity.

In Buildium, properties and units share one permission; here each is separate, so that a test can deny it alone.
"""

import re
from collections.abc import Iterable
from typing import Final

EDIT: Final = ":edit"
"""Suffix of an entity name that denies only writing; the name without it denies reading and writing."""

_PATHS: Final = (
    (re.compile(r"/v1/administration/account"), "account"),
    (re.compile(r"/v1/rentals/owners(/.*)?"), "owners"),
    (re.compile(r"/v1/rentals/units/(\d+/listing|listings)"), "listings"),
    (re.compile(r"/v1/rentals/units(/.*)?"), "units"),
    (re.compile(r"/v1/rentals(/.*)?"), "properties"),
    (re.compile(r"/v1/leases/tenants(/.*)?"), "tenants"),
    (re.compile(r"/v1/leases(/.*)?"), "leases"),
)
"""The first pattern that matches a path determines the entity."""

DENIABLE: Final = frozenset(name + verb for _, name in _PATHS for verb in ("", EDIT))


def is_denied(method: str, path: str, denied: frozenset[str]) -> bool:
    """Return whether a call needs one of the denied permissions."""
    entity = next((name for pattern, name in _PATHS if pattern.fullmatch(path)), "")
    return entity in denied or (method != "GET" and entity + EDIT in denied)


def checked(denied: Iterable[str]) -> frozenset[str]:
    """Return the permissions to deny. Raise `ValueError` if one of them does not exist."""
    permissions = frozenset(denied)
    if permissions - DENIABLE:
        raise ValueError(f"no such permission: {', '.join(sorted(permissions - DENIABLE))}")
    return permissions
