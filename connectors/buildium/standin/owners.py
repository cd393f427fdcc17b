"""The list of owners of the stand-in, with filters, sort order and pages as in `queries`."""

import json
from typing import Final

from connectors.buildium.standin.entities import Owner
from connectors.buildium.standin.portfolio import Portfolio
from connectors.buildium.standin.queries import UPDATED, Query, Refusal, window
from connectors.buildium.standin.rendering import owner_json

_UPDATED: Final = ("lastupdatedfrom", "lastupdatedto")
_AVAILABLE: Final = frozenset({"orderby", "offset", "limit", "propertyids", "status", *_UPDATED})
_KNOWN: Final = _AVAILABLE | {"agreementdaysremaining", "ownername", "phone"}


def list_owners(portfolio: Portfolio, query: Query) -> tuple[bytes, int]:
    """Return a page of owners as JSON, and the total number of owners. Raise `Refusal` for an invalid query."""
    for name in query:
        if name not in _KNOWN and name.lower() in _KNOWN:
            raise Refusal(404, "")
        if name in _KNOWN - _AVAILABLE:
            raise Refusal(501, f"This stand-in does not have the filter {name}.")
    offset, limit = window(query)
    updated = [UPDATED[name](query[name]) for name in _UPDATED if name in query]
    matching = [one for one in portfolio.owners.values() if _matches(one, query)]
    found = _ordered([one for one in matching if all(keep(portfolio, one) for keep in updated)], query)
    page = [owner_json(portfolio, owner.id) for owner in found[offset : offset + limit]]
    return json.dumps(page).encode(), len(found)


def _matches(owner: Owner, query: Query) -> bool:
    status = query.get("status", ())
    if status and status[-1] not in {"Active", "Inactive"}:
        raise Refusal(400, "A value in the query is not one of its enumeration.")
    if status and owner.is_active is not (status[-1] == "Active"):
        return False
    wanted = query.get("propertyids")
    return wanted is None or bool({str(number) for number in owner.property_ids} & set(wanted))


def _ordered(owners: list[Owner], query: Query) -> list[Owner]:
    order = (query.get("orderby") or [""])[-1].strip().lower()
    if order not in {"", "id", "id asc"}:
        raise Refusal(501, "This stand-in sorts owners by Id only.")
    return sorted(owners, key=lambda owner: owner.id if order else -owner.id)  # unsorted: not in the order of the ids
