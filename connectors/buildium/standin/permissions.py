"""What an API key of the stand-in may do: by kind of entity, to view it and to edit it.

Buildium's own permissions are coarser in one place (properties and units share one); a test wants to deny each alone.
"""

import re
from collections.abc import Iterable
from typing import Final

EDIT: Final = ":edit"
"""After the name of an entity: writing it is denied, reading it is not. The name alone denies both."""

_PATHS: Final = (
    (re.compile(r"/v1/administration/account"), "account"),
    (re.compile(r"/v1/rentals/owners(/.*)?"), "owners"),
    (re.compile(r"/v1/rentals/units/(\d+/listing|listings)"), "listings"),
    (re.compile(r"/v1/rentals/units(/.*)?"), "units"),
    (re.compile(r"/v1/rentals(/.*)?"), "properties"),
    (re.compile(r"/v1/leases/tenants(/.*)?"), "tenants"),
    (re.compile(r"/v1/leases(/.*)?"), "leases"),
)
"""The first row that matches names the entity."""

DENIABLE: Final = frozenset(name + verb for _, name in _PATHS for verb in ("", EDIT))


def is_denied(method: str, path: str, denied: frozenset[str]) -> bool:
    """Return whether a key that lacks these permissions is refused a call."""
    entity = next((name for pattern, name in _PATHS if pattern.fullmatch(path)), "")
    return entity in denied or (method != "GET" and entity + EDIT in denied)


def checked(denied: Iterable[str]) -> frozenset[str]:
    """Return the permissions to deny. Raise `ValueError` if there is no such permission."""
    given = frozenset(denied)
    if given - DENIABLE:
        raise ValueError(f"no such permission: {', '.join(sorted(given - DENIABLE))}")
    return given
