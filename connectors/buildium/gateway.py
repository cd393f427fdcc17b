"""The port `connectors.ports.PropertyGateway` for one Buildium account.

Buildium has no idempotency key. So before something is created, it is looked for among what was updated since the
command came: after an answer that was lost it is there, and is not created a second time.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from connectors.buildium.calls import TITLE, Calls, error_fields, user_message
from connectors.buildium.writing import (
    MOST_UNITS,
    changed_owner,
    changed_property,
    is_owner,
    is_property,
    new_owner,
    new_property,
    pointer,
    unit,
)
from connectors.http import Reply
from connectors.ports import Failure, Halfway, Invalid, Pushed, Unavailable, Undecided
from schemas.commands import OwnerBody, PropertyBody, Push

OVERLAP: Final = timedelta(minutes=10)
"""How much earlier than the command something is looked for: the clock of Buildium may be behind."""

PAGE: Final = 1000
MOST_PAGES: Final = 20

Row = Mapping[str, Any]


class _Refused(Exception):  # noqa: N818 -- not an error of the program
    """A step did not succeed; the rest is not tried."""

    def __init__(self, why: Failure | Invalid) -> None:
        super().__init__(why.detail)
        self.why = why


class BuildiumGateway:
    """Creates and changes properties and owners of one Buildium connection."""

    def __init__(self, calls: Calls, bank_account: int | None = None) -> None:
        """``bank_account`` is that of properties whose command names none; null: the account's only one."""
        self._calls = calls
        self._bank_account = bank_account

    async def push(self, push: Push) -> Pushed | Undecided | Invalid | Halfway | Failure:
        """Create or change the entity of a push."""
        try:
            if push.property is not None:
                return await self._property(push, push.property)
            if push.owner is not None:
                return await self._owner(push, push.owner)
        except _Refused as refused:
            return refused.why
        return Invalid("the command has no content")

    # ------------------------------------------------------------------------------------------------------ properties

    async def _property(self, push: Push, body: PropertyBody) -> Pushed | Undecided | Halfway:
        if push.pms_id is not None:
            await self._change_property(push.pms_id, body)
            return Pushed(push.pms_id)
        found = await self._created("/rentals", push.since, lambda row: is_property(body, row))
        if len(found) > 1:
            return _undecided("properties of this name at this address", found)
        if found:
            number, is_active = _id(found[0]), found[0].get("IsActive") is not False
        else:
            account = await self._account(body)
            number = _id(await self._send("POST", "/rentals", new_property(body, account, push.owner_ids)))
            is_active = True
        try:
            if found or len(body.units) > MOST_UNITS:
                await self._add_units(number, body)
            await self._activate(number, body, is_active=is_active)
        except _Refused as refused:
            return Halfway(number, refused.why)
        return Pushed(number, found=bool(found))

    async def _change_property(self, number: int, body: PropertyBody) -> None:
        has = await self._one(f"/rentals/{number}", "property", number)
        await self._send("PUT", f"/rentals/{number}", changed_property(body, has))
        await self._add_units(number, body)
        await self._activate(number, body, is_active=has.get("IsActive") is not False)

    async def _add_units(self, number: int, body: PropertyBody) -> None:
        """Create the units that the property does not have."""
        if not body.units:
            return
        rows = await self._rows("/rentals/units", (("propertyids", str(number)), ("orderby", "Id")))
        there = {str(row.get("UnitNumber")).strip().casefold() for row in rows}
        for at, one in enumerate(body.units):
            if one.number.strip().casefold() not in there:
                await self._send("POST", "/rentals/units", {**unit(one, body.address), "PropertyId": number}, at)

    async def _activate(self, number: int, body: PropertyBody, *, is_active: bool) -> None:
        if body.is_active is not is_active:
            request = "reactivationrequest" if body.is_active else "inactivationrequest"
            await self._send("POST", f"/rentals/{number}/{request}", None)

    async def _account(self, body: PropertyBody) -> int:
        """Return the bank account of a new property, which Buildium requires."""
        if (known := body.bank_account or self._bank_account) is not None:
            return known
        rows = [
            row
            for row in await self._rows("/bankaccounts", (("bankaccountstatus", "Active"), ("orderby", "Id")))
            if row.get("IsActive") is not False
        ]
        if len(rows) == 1:
            return _id(rows[0])
        which = "has none" if not rows else f"has {len(rows)} of them"
        detail = (
            f"Buildium requires a bank account, and the account {which}: send operatingBankAccountId, "
            "or set it for the connection"
        )
        raise _Refused(Invalid(detail, (("/operatingBankAccountId", detail),)))

    # ---------------------------------------------------------------------------------------------------------- owners

    async def _owner(self, push: Push, body: OwnerBody) -> Pushed | Undecided:
        if push.pms_id is not None:
            path = f"/rentals/owners/{push.pms_id}"
            has = await self._one(path, "owner", push.pms_id)
            await self._send("PUT", path, changed_owner(body, has, push.property_ids))
            return Pushed(push.pms_id)
        found = await self._created("/rentals/owners", push.since, lambda row: is_owner(body, row))
        if len(found) > 1:
            return _undecided("owners of this name and e-mail address", found)
        if found:
            return Pushed(_id(found[0]), found=True)
        return Pushed(_id(await self._send("POST", "/rentals/owners", new_owner(body, push.property_ids))))

    # ----------------------------------------------------------------------------------------------------------- calls

    async def _created(self, path: str, since: datetime, matches: Callable[[Row], bool]) -> list[Row]:
        """Return the rows that match, of those that were updated since a command came."""
        moment = f"{(since - OVERLAP).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        return [row for row in await self._rows(path, (("lastupdatedfrom", moment), ("orderby", "Id"))) if matches(row)]

    async def _rows(self, path: str, query: tuple[tuple[str, str], ...]) -> list[Row]:
        """Return the rows of a list, of all its pages."""
        rows: list[Row] = []
        for _ in range(MOST_PAGES):
            window = (("offset", str(len(rows))), ("limit", str(PAGE)))
            answer = await self._calls.get(path, (*query, *window))
            if not isinstance(answer, Reply):
                raise _Refused(answer)
            page = _parsed(answer)
            if not isinstance(page, list):
                raise _Refused(Unavailable(f"{TITLE} did not send a list of {path}", answer.status))
            rows += [row for row in page if isinstance(row, Mapping)]
            if len(page) < PAGE:
                break
        return rows

    async def _one(self, path: str, what: str, number: int) -> Row:
        answer = await self._calls.get(path, one=True)
        if not isinstance(answer, Reply):
            raise _Refused(answer)
        if answer.status == 404:
            raise _Refused(Invalid(f"{TITLE} has no {what} {number} (any more)"))
        row = _parsed(answer)
        if not isinstance(row, Mapping):
            raise _Refused(Unavailable(f"{TITLE} did not send a JSON object for {path}", answer.status))
        return row

    async def _send(self, method: str, path: str, body: Row | None, unit_at: int | None = None) -> Row:
        """Make a write; return what Buildium answered. ``unit_at``: the place of the unit that it is about."""
        answer = await self._calls.write(method, path, body)
        if not isinstance(answer, Reply):
            raise _Refused(answer)
        if answer.status >= 400:
            raise _Refused(_invalid(answer, unit_at))
        row = _parsed(answer)
        return row if isinstance(row, Mapping) else {}


def _invalid(answer: Reply, unit_at: int | None) -> Invalid:
    prefix = "" if unit_at is None else f"Units[{unit_at}]."
    fields = []
    for key, value in error_fields(answer.body):
        found = pointer(prefix + key)
        fields.append((found, value if found else f"{key}: {value}"))
    return Invalid(f"{TITLE} answered {answer.status}: {user_message(answer.body)}", tuple(fields))


def _undecided(what: str, found: list[Row]) -> Undecided:
    ids = ", ".join(str(row.get("Id")) for row in found[:10])
    return Undecided(f"{TITLE} has {len(found)} {what}: {ids}; nothing was created. Keep one of them, then retry")


def _id(row: Row) -> int:
    number = row.get("Id")
    if not isinstance(number, int) or isinstance(number, bool):
        raise _Refused(Unavailable(f"{TITLE} did not name the id of what it has"))
    return number


def _parsed(answer: Reply) -> Any:
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
