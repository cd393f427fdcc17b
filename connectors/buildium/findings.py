"""The findings of Buildium's connection test, derived from its answers. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

from pydantic import SecretStr

from connectors.buildium.calls import user_message
from connectors.buildium.signature import sign, verify
from connectors.checks import Fail, Finding, Pass
from connectors.endpoint import NETWORK_FIX
from connectors.http import Reply, phrase
from connectors.ports import Failure
from schemas.integrations import AccessLevel, EntityAccess

_TITLE: Final = "Buildium"

PAGE: Final = 2
"""Rows of each of the two pages that are compared."""

ADDRESS_FIX: Final = "Set the base URL to https://api.buildium.com/v1 or https://apisandbox.buildium.com/v1."
KEY_FIX: Final = (
    "Check client id and client secret, and that the API key belongs to the environment of the base URL: keys of the "
    "sandbox and of production differ. A lost secret needs a new key (Buildium, Settings > Developer Tools)."
)
UNCLEAR_FIX: Final = "The answer does not show whether the API key has the permission; the first creation will show it."


@dataclass(frozen=True, slots=True)
class Entity:
    """A kind of entity, the path of its list, and how RentStream uses it."""

    name: str
    path: str
    permission: str
    """The name on Buildium's page of API keys."""
    creation: str | None = None
    """The name of the check for creation; null if RentStream does not create such entities."""
    updates: bool = False
    """Whether RentStream updates such entities; Buildium has one permission, `Edit`, for creation and update."""


ENTITIES: Final = (
    Entity(
        "properties", "/rentals", "Rentals > Rental properties and units", "permission_property_creation", updates=True
    ),
    Entity("units", "/rentals/units", "Rentals > Rental properties and units"),
    Entity("leases", "/leases", "Rentals > Leases"),
    Entity("tenants", "/leases/tenants", "Rentals > Tenants"),
    Entity("listings", "/rentals/units/listings", "Rentals > Listings"),
    Entity("owners", "/rentals/owners", "Rentals > Property Rental Owners", "permission_owner_creation"),
)

ACCOUNT: Final = "/administration/account"
ACCOUNT_PERMISSION: Final = "Administration > Account Information"


def access_of(levels: Mapping[str, AccessLevel]) -> tuple[EntityAccess, ...]:
    """Return the access to each entity, from the access levels that the checks determined."""

    def level(check: str | None) -> AccessLevel:
        return AccessLevel.UNSUPPORTED if check is None else levels.get(check, AccessLevel.UNTESTED)

    return tuple(
        EntityAccess(
            entity=one.name,
            read=level(f"permission_{one.name}"),
            create=level(one.creation),
            update=level(one.creation if one.updates else None),
        )
        for one in ENTITIES
    )


@dataclass(frozen=True, slots=True)
class Judged:
    """A finding, and the access level that it proves."""

    finding: Finding
    access: AccessLevel


def judge_credentials(answer: Reply | Failure, host: str) -> Finding:
    """Judge the API key by the answer of the account resource."""
    if isinstance(answer, Reply) and answer.status == 401:
        return Fail(f"{_TITLE} refuses the API key (401 Unauthorized)", KEY_FIX)
    if _is_denial(answer):
        return Pass(f"{_TITLE} accepts the API key")
    if isinstance(answer, Reply) and answer.status == 200:
        if account_id(answer) is None:
            return Fail(f"the server at {host} does not answer like {_TITLE}'s API", ADDRESS_FIX)
        return Pass(f"{_TITLE} accepts the API key")
    return unexpected(answer)


def judge_account(answer: Reply | Failure) -> Finding:
    """Judge whether the account's id can be read."""
    if _is_denial(answer):
        return Fail("the API key may not read the account's information", _allow("`View`", ACCOUNT_PERMISSION))
    account = account_id(answer) if isinstance(answer, Reply) else None
    return unexpected(answer) if account is None else Pass(f"the key belongs to the account {account}")


def judge_read(entity: Entity, answer: Reply | Failure) -> Judged:
    """Judge the permission to read by the answer to a list of one row."""
    if _is_denial(answer):
        fix = _allow("`View`", entity.permission)
        return Judged(Fail(f"the API key may not read {entity.name}", fix), AccessLevel.DENIED)
    if not isinstance(answer, Reply) or answer.status != 200:
        return Judged(unexpected(answer), AccessLevel.UNTESTED)
    if _rows(answer) is None:
        return Judged(Fail(f"{_TITLE} did not send a list of {entity.name}", ADDRESS_FIX), AccessLevel.UNTESTED)
    return Judged(Pass(f"the API key may read {entity.name}"), AccessLevel.OK)


def judge_creation(entity: Entity, answer: Reply | Failure) -> Judged:
    """Judge the permission to create by the answer to a POST of an empty object."""
    if _is_denial(answer):
        fix = _allow("`View` and `Edit`", entity.permission)
        return Judged(Fail(f"the API key may not create {entity.name}", fix), AccessLevel.DENIED)
    if isinstance(answer, Reply) and answer.status in {400, 422} and user_message(answer.body):
        return Judged(
            Pass(f"the API key may create {entity.name}: {_TITLE} asked for the required fields of an empty request"),
            AccessLevel.OK,
        )
    if isinstance(answer, Reply) and 200 <= answer.status < 300:
        return Judged(
            Fail(
                f"{_TITLE} answered {phrase(answer.status)} to an empty request, which it should have refused",
                f"Check {_TITLE} for {entity.name} without a name, and report this with the version of RentStream.",
            ),
            AccessLevel.UNTESTED,
        )
    return Judged(unexpected(answer, UNCLEAR_FIX), AccessLevel.UNTESTED)


def judge_order(first: Reply | Failure, second: Reply | Failure) -> Finding:
    """Judge two consecutive pages of units, whose ids have to ascend without overlap."""
    ids: list[int] = []
    for answer in (first, second):
        rows = _rows(answer) if isinstance(answer, Reply) and answer.status == 200 else None
        if rows is None:
            return unexpected(answer)
        ids += [row["Id"] for row in rows if isinstance(row, dict) and isinstance(row.get("Id"), int)]
    if any(after <= before for before, after in pairwise(ids)):
        return Fail(
            f"pages sorted by Id have the ids {', '.join(map(str, ids))}, which do not ascend",
            f"Report it to {_TITLE}'s support: without a stable order a sweep may miss rows.",
        )
    if len(ids) <= PAGE:
        return Pass(f"the account has {len(ids)} units that can be read, too few to compare two pages")
    return Pass("pages sorted by Id ascend and do not overlap")


def judge_total(reply: Reply) -> Finding:
    """Judge the total count of a list, by which a sweep reads several pages at once and notices a list that shrinks."""
    total = reply.headers.get("x-total-count", "")
    if total.isascii() and total.isdigit() and len(total) <= 15:
        return Pass(f"lists have a total count ({total} properties)")
    return Fail(
        f"lists have no usable total count (X-Total-Count: {total[:20]!r})",
        "Check that no proxy removes the header X-Total-Count: without it sweeps read one page after the other.",
    )


def judge_webhook_secrets(secrets: Sequence[SecretStr], now: datetime) -> Finding:
    """Sign a sample event with each secret, and verify it like a received webhook."""
    if not secrets:
        return Fail(
            "no webhook secret is set",
            "Create a webhook in Buildium (Settings > Developer Tools > Webhooks), and set its secret.",
        )
    timestamp = str(int(now.timestamp()))
    event = {"EventName": "Rental.Updated", "EventDateTime": now.astimezone(UTC).isoformat(), "PropertyId": 1}
    body = json.dumps(event, separators=(",", ":")).encode()
    refusals = [verify(body, timestamp, sign(body, timestamp, secret), secrets, now) for secret in secrets]
    forged = verify(body, timestamp, sign(body + b" ", timestamp, secrets[0]), secrets, now)
    if any(refusals) or forged is None:
        return Fail("the verification of a sample event failed", "Set the webhook secret exactly as Buildium shows it.")
    count = f"{len(secrets)} webhook secrets" if len(secrets) > 1 else "the webhook secret"
    return Pass(f"a sample event was signed and verified with {count}")


def unexpected(answer: Reply | Failure, otherwise: str = ADDRESS_FIX) -> Fail:
    """Return the finding for an answer that the check does not expect."""
    if not isinstance(answer, Reply):
        return Fail(answer.detail, NETWORK_FIX)
    message = user_message(answer.body)
    detail = f"{_TITLE} answered {phrase(answer.status)}" + (f": {message}" if message else "")
    if answer.status == 401:
        return Fail(detail, KEY_FIX)
    if answer.status == 429:
        return Fail(detail, "Run the test again in a minute: other programs are using the same account.")
    if answer.status >= 500:
        return Fail(detail, "Run the test again in some minutes; if the error persists, check Buildium's status page.")
    return Fail(detail, otherwise)


def _is_denial(answer: Reply | Failure) -> bool:
    """Return whether the API key lacks a permission. A firewall may also answer 403, but not with a JSON object."""
    return isinstance(answer, Reply) and answer.status == 403 and isinstance(_parsed(answer.body), dict)


def _allow(verbs: str, permission: str) -> str:
    return (
        f"In Buildium, open Settings > Developer Tools, and give the API key {verbs} of {permission}, "
        "or create a key that has it."
    )


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _rows(reply: Reply) -> list[Any] | None:
    found = _parsed(reply.body)
    return found if isinstance(found, list) else None


def account_id(reply: Reply) -> int | None:
    """Return the id in the answer of the account resource; null if there is none."""
    found = _parsed(reply.body) if reply.status == 200 else None
    number = found.get("Id") if isinstance(found, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) else None
