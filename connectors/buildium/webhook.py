"""Verification and parsing of Buildium's webhooks into requests to fetch the changed entity.

The payload is one flat object with ``EventName``, ``EventDateTime``, ``AccountId`` and the ids of the changed entities;
it has no event id and no state of an entity (Buildium, Webhook Events section), so the current state has to be fetched.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import SecretStr

from connectors.buildium.events import EVENTS, UNKNOWN_EVENT, Reads
from connectors.buildium.signature import verify
from connectors.ports import Refused
from schemas.base import EntityKind
from schemas.pms import FetchOrigin, FetchRequest

_NAME: Final = re.compile(r"[\x21-\x7e]{1,100}")
_INSTANT: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?", re.IGNORECASE | re.ASCII
)
_LARGEST_ID: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class BuildiumWebhooks:
    """The webhook reader of one connection."""

    org: str
    connection: str
    secrets: tuple[SecretStr, ...]
    enabled: bool = True

    def read(self, headers: Sequence[tuple[bytes, bytes]], body: bytes, now: datetime) -> FetchRequest | Refused:
        """Return the fetch request of a verified event. The signature is verified before the body is parsed."""
        error = verify(
            body,
            _header(headers, b"buildium-webhook-timestamp"),
            _header(headers, b"buildium-webhook-signature"),
            self.secrets,
            now,
        )
        if error:
            return Refused(401, error)
        event = _event(body)
        if isinstance(event, Refused):
            return event
        name = str(event["EventName"])
        rule = EVENTS.get(name, UNKNOWN_EVENT)
        kind, entity, ignored = EntityKind.UNKNOWN, None, None
        if isinstance(rule, Reads):
            kind, entity = rule.kind, _id(event.get(rule.id_field))
            if entity is None:
                return Refused(400, f"{name} needs {rule.id_field}, a positive whole number")
        else:
            ignored = rule.rule
        return FetchRequest(
            org=self.org,
            connection=self.connection,
            origin=FetchOrigin.WEBHOOK,
            event=name,
            kind=kind,
            entity=entity,
            occurred_at=instant(event.get("EventDateTime")),
            received_at=now,
            ignored=ignored if self.enabled else "disabled",
            body=body,
        )


def account_of(body: bytes) -> int | None:
    """Return the account id in an unverified body, whose secret is tried first; null if there is none."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return _id(event.get("AccountId")) if isinstance(event, dict) else None


def instant(value: object) -> datetime | None:
    """Parse a timestamp of Buildium, in UTC with up to seven digits after the second; null if it is not valid."""
    found = _INSTANT.fullmatch(value) if isinstance(value, str) else None
    if not found:
        return None
    day, time, fraction, zone = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{time}.{(fraction or '0')[:6]:0<6}{(zone or 'Z').upper()}")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _header(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> str | None:
    for key, value in headers:
        if key == name:
            return value.decode("latin-1").strip()
    return None


def _event(body: bytes) -> Mapping[str, Any] | Refused:
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return Refused(400, "the body is not JSON")
    if not isinstance(event, dict):
        return Refused(400, "the body is not one event (a JSON object)")
    name = event.get("EventName")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return Refused(400, "the body is not an event: it has no EventName")
    return event


def _id(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST_ID else None
