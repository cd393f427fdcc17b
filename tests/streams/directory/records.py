"""Records of integrations, as they are stored, and the topics that bring them to a directory."""

import json
from datetime import UTC, datetime
from typing import Any

from pydantic import JsonValue, SecretStr

from schemas import topics
from schemas.codec import encode
from schemas.integrations import Integration, IntegrationMode, IntegrationRole, StoredSecret, StoredSetting
from streams.directory.directory import Directory, key_of, status_key
from tests.streams.directory.stage import ring

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
INTEGRATIONS, STATUS = topics.INTEGRATIONS.name, topics.INTEGRATION_STATUS.name


def sealed(org: str, name: str, secret: str, value: str, at: datetime = AT, key: str = "k1") -> StoredSecret:
    nonce = f"{secret}{value}{key}".encode().ljust(12, b".")[:12]
    return ring(key).seal(SecretStr(value), org=org, integration=name, name=secret, added_at=at, nonce=nonce)


def settings(**values: JsonValue) -> tuple[StoredSetting, ...]:
    return tuple(StoredSetting(name=name, value=json.dumps(value)) for name, value in sorted(values.items()))


def pms(
    org: str = "acme", name: str = "main", *, secret: str = "the-secret-1234", key: str = "k1", **more: Any
) -> Integration:
    facts: dict[str, Any] = {
        "org": org,
        "name": name,
        "system": "pms",
        "role": IntegrationRole.SOURCE,
        "mode": IntegrationMode.SANDBOX,
        "enabled": True,
        "settings": settings(baseUrl="https://pms.example/77", timezone="America/Toronto"),
        "secrets": (
            sealed(org, name, "clientId", "id", key=key),
            sealed(org, name, "clientSecret", secret, key=key),
            sealed(org, name, "webhookSecret", f"hook-{name}", key=key),
        ),
        "webhook_token": f"token-{org}-{name}",
        "created_at": AT,
        "changed_at": AT,
        "changed_by": "a test",
    }
    return Integration(**{**facts, **more})


def portal(
    org: str = "acme",
    name: str = "portal",
    url: str = "https://portal.example",
    *,
    key: str = "k1",
    form: str = "",
    **more: Any,
) -> Integration:
    facts: dict[str, Any] = {
        "org": org,
        "name": name,
        "system": "portal",
        "role": IntegrationRole.SINK,
        "enabled": True,
        "settings": settings(url=url, form=form) if form else settings(url=url),
        "secrets": (sealed(org, name, "apiKey", "key", key=key),),
        "created_at": AT,
        "changed_at": AT,
        "changed_by": "a test",
    }
    return Integration(**{**facts, **more})


def put(into: Directory, *records: Integration) -> None:
    for one in records:
        into.apply(INTEGRATIONS, key_of(one.org, one.name), encode(one))


def note(into: Directory, kind: str, record: Any) -> None:
    into.apply(STATUS, status_key(record.org, record.name, kind), encode(record))


def delete(into: Directory, org: str, name: str) -> None:
    into.apply(INTEGRATIONS, key_of(org, name), None)
