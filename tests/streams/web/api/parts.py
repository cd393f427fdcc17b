"""What the tests of the API share: a store of integrations in memory, a clock, tokens, and a running server."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import sqlalchemy as sa
from pydantic import JsonValue, SecretStr

from connectors.ports import FieldError
from schemas.commands import (
    CommandAction,
    OwnerBody,
    PropertyBody,
    SyncEntity,
    SyncOperation,
    SyncState,
    SyncStatus,
)
from schemas.integrations import (
    AccessLevel,
    CheckReport,
    CheckResult,
    CheckStatus,
    EntityAccess,
    IntegrationMode,
    IntegrationRole,
)
from streams.directory.model import (
    Conflict,
    IntegrationState,
    Invalid,
    NotFound,
    PutIntegration,
    SecretState,
    Unavailable,
)
from streams.syncs.service import KeyReused, Receipt
from streams.view.database import Database
from streams.view.queries import Queries
from streams.web.api.app import build_api
from streams.web.api.service import ViewService
from streams.web.api.tokens import SharedSecret, TokenVerifier, issue
from streams.web.ingress import build_ingress
from tests.streams.replays.parts import memory_replays
from tests.streams.web.parts import MemoryPublisher, Reader, Readers, served

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SIGNING = SecretStr("a secret of the tests, long enough for HS256")
MADE = "whsec-made-by-the-service"

SETTINGS = {"buildium": {"baseUrl", "timezone"}, "rentsync": {"url", "shape"}}
SECRETS = {"buildium": {"clientId", "clientSecret", "webhookSecret"}, "rentsync": {"apiKey"}}


@dataclass
class MovableClock:
    """Stands until it is moved."""

    at: datetime = NOON

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - NOON).total_seconds()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)

    def move(self, **by: float) -> None:
        self.at += timedelta(**by)


@dataclass(frozen=True)
class Entry:
    """One integration as the store keeps it."""

    state: IntegrationState
    values: Mapping[str, tuple[tuple[SecretStr, datetime], ...]] = field(default_factory=dict)

    def shown(self) -> IntegrationState:
        secrets = tuple(
            SecretState(name, since, _last4(value.get_secret_value()), readable=True)
            for name, values in self.values.items()
            for value, since in values
        )
        return replace(self.state, secrets=secrets)


def _last4(value: str) -> str | None:
    return value[-4:] if len(value) >= 12 else None


def new(org: str, name: str, system: str) -> IntegrationState:
    return IntegrationState(
        org=org,
        name=name,
        system=system,
        role=IntegrationRole.SOURCE if system == "buildium" else IntegrationRole.SINK,
        mode=IntegrationMode.PRODUCTION,
        enabled=False,
        origin="stored",
        settings={},
        secrets=(),
        webhook_path=f"/api/webhooks/{system}/t0ken" if system == "buildium" else None,
        access=(EntityAccess(entity="properties", read=AccessLevel.OK),),
        checks=None,
        sync_state="disabled",
        sync_detail=None,
        last_ran=None,
        last_status=None,
        last_sweep=None,
        held_removals=0,
        hold=None,
        properties_default=True,
        properties_on=(),
        properties_off=(),
        version=0,
    )


@dataclass
class MemoryIntegrations:
    """Keeps integrations of all orgs in memory, by the rules of `IntegrationService`."""

    clock: MovableClock
    kept: dict[tuple[str, str], Entry] = field(default_factory=dict)
    away: bool = False
    broken: bool = False
    changes: list[tuple[str, str, str]] = field(default_factory=list)
    """Org, name and who changed it."""
    sweeps: list[tuple[str, str, bool]] = field(default_factory=list)
    """Org, name and whether removals were confirmed."""

    async def orgs(self) -> Sequence[str]:
        self._ready()
        return sorted({org for org, _ in self.kept})

    async def sweep(self, org: str, name: str, *, confirm_removals: bool = False) -> str:
        if not self._find(org, name).state.enabled:
            raise Conflict(f"{name} is disabled: enable it first")
        self.sweeps.append((org, name, confirm_removals))
        return f"asked-{len(self.sweeps)}"

    async def list(self, org: str) -> Sequence[IntegrationState]:
        self._ready()
        return [kept.shown() for (of, _), kept in sorted(self.kept.items()) if of == org]

    async def get(self, org: str, name: str) -> IntegrationState:
        return self._find(org, name).shown()

    async def put(self, org: str, name: str, body: PutIntegration, by: str) -> tuple[IntegrationState, bool]:
        self._ready()
        before = self.kept.get((org, name))
        if errors := self._errors(body):
            raise Invalid(errors)
        if before is not None and before.state.system != body.system:
            raise Conflict("the system of an integration cannot be changed: delete it first")
        if body.expected_version is not None and (before is None or before.state.version != body.expected_version):
            raise Conflict("it has changed")
        state = before.state if before is not None else new(org, name, body.system)
        state = replace(
            state,
            mode=body.mode,
            settings=body.settings,
            properties_default=_given(body.properties_default, state.properties_default),
            properties_on=_given(body.properties_on, state.properties_on),
            properties_off=_given(body.properties_off, state.properties_off),
        )
        values = dict(before.values) if before is not None else {}
        for secret, given in body.secrets.items():
            values.pop(secret, None)
            if given is not None:
                several = given if isinstance(given, tuple) else (given,)
                values[secret] = tuple((value, self.clock.now()) for value in several)
        return self._write(Entry(state, values), by), before is None

    async def enable(self, org: str, name: str, by: str) -> IntegrationState:
        kept = self._find(org, name)
        if kept.state.origin == "environment":
            raise Conflict("the environment describes it: set BUILDIUM_SYNC_ENABLED, or store it")
        return self._write(replace(kept, state=replace(kept.state, enabled=True)), by)

    async def disable(self, org: str, name: str, by: str) -> IntegrationState:
        kept = self._find(org, name)
        return self._write(replace(kept, state=replace(kept.state, enabled=False)), by)

    async def delete(self, org: str, name: str, by: str) -> None:
        if self._find(org, name).state.origin == "environment":
            raise Conflict("the environment describes it: remove its settings there")
        del self.kept[org, name]
        self.changes.append((org, name, by))

    async def check(self, org: str, name: str) -> CheckReport:
        kept = self._find(org, name)
        passed = "clientSecret" in kept.values
        return CheckReport(
            org=org,
            name=name,
            version=kept.state.version,
            at=self.clock.now(),
            passed=passed,
            checks=(
                CheckResult(
                    name="credentials",
                    status=CheckStatus.PASSED if passed else CheckStatus.FAILED,
                    milliseconds=1250,
                    detail="accepted" if passed else "there are none",
                    fix=None if passed else "enter clientId and clientSecret",
                ),
                CheckResult(name="page_order", status=CheckStatus.SKIPPED, milliseconds=0, detail="not reached"),
            ),
            access=kept.state.access,
        )

    async def rotate_webhook_secret(
        self, org: str, name: str, secret: SecretStr | None, by: str
    ) -> tuple[IntegrationState, SecretStr | None]:
        kept = self._find(org, name)
        made = SecretStr(MADE) if secret is None else None
        added = (secret or SecretStr(MADE), self.clock.now())
        values = {**kept.values, "webhookSecret": (added, *kept.values.get("webhookSecret", ()))}
        return self._write(replace(kept, values=values), by), made

    async def remove_webhook_secret(self, org: str, name: str, since: datetime, by: str) -> IntegrationState:
        kept = self._find(org, name)
        before = kept.values.get("webhookSecret", ())
        left = tuple((value, at) for value, at in before if at != since)
        if len(left) == len(before):
            raise NotFound("no webhook secret was added at that time")
        return self._write(replace(kept, values={**kept.values, "webhookSecret": left}), by)

    def _ready(self) -> None:
        if self.broken:
            raise RuntimeError("a bug of the store")
        if self.away:
            raise Unavailable("Kafka did not confirm in time; try again")

    def _find(self, org: str, name: str) -> Entry:
        self._ready()
        if (org, name) not in self.kept:
            raise NotFound(f"the org {org} has no integration {name!r}")
        return self.kept[org, name]

    def _write(self, kept: Entry, by: str) -> IntegrationState:
        state = replace(kept.state, version=kept.state.version + 1)
        self.kept[state.org, state.name] = replace(kept, state=state)
        self.changes.append((state.org, state.name, by))
        return self.kept[state.org, state.name].shown()

    @staticmethod
    def _errors(body: PutIntegration) -> tuple[FieldError, ...]:
        if body.system not in SETTINGS:
            return (FieldError("/system", "there is no such system; there are: buildium, rentsync"),)
        unknown = [f"/settings/{name}" for name in body.settings if name not in SETTINGS[body.system]]
        unknown += [f"/secrets/{name}" for name in body.secrets if name not in SECRETS[body.system]]
        return tuple(FieldError(pointer, "there is no such name") for pointer in unknown)


@dataclass
class MemorySyncs:
    """Keeps commands and states in memory, by the rules of `streams.syncs.service.Syncs`."""

    clock: MovableClock
    bodies: list[PropertyBody | OwnerBody] = field(default_factory=list)
    callers: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Org, subject, and connection of each command."""
    keys: dict[tuple[str, str], tuple[Receipt, object]] = field(default_factory=dict)
    states: dict[tuple[str, SyncEntity, str], SyncState] = field(default_factory=dict)
    away: bool = False

    async def submit(
        self,
        org: str,
        by: str,
        body: PropertyBody | OwnerBody,
        *,
        own_id: str | None = None,
        key: str | None = None,
        connection: str | None = None,
    ) -> Receipt:
        entity = SyncEntity.PROPERTY if isinstance(body, PropertyBody) else SyncEntity.OWNER
        self._there()
        if own_id is not None:
            await self.state(org, entity, own_id)
        if key is not None and (org, key) in self.keys:
            receipt, content = self.keys[org, key]
            if content != (own_id, body):
                raise KeyReused("The Idempotency-Key was used for another request before: send a new one.")
            return receipt
        number = len(self.bodies) + 1
        self.bodies.append(body)
        self.callers.append((org, by, connection))
        receipt = Receipt(entity, own_id or f"id-{number}", f"op-{number}")
        if key is not None:
            self.keys[org, key] = receipt, (own_id, body)
        self.put(org, entity, receipt.id, SyncStatus.PENDING, operation=receipt.operation)
        return receipt

    def put(self, org: str, entity: SyncEntity, own_id: str, status: SyncStatus, **more: Any) -> None:
        operation = SyncOperation(
            id=more.pop("operation", "op"), action=CommandAction.CREATE, status=status, at=self.clock.now()
        )
        given: dict[str, Any] = {"org": org, "connection": "buildium", "entity": entity, "id": own_id, "status": status}
        given |= {"operations": (operation,), "updated_at": self.clock.now()}
        self.states[org, entity, own_id] = SyncState(**{**given, **more})

    async def retry(self, org: str, by: str, entity: SyncEntity, own_id: str | None = None) -> list[SyncOperation]:
        if own_id is not None:
            await self.state(org, entity, own_id)
        found = [one for one in self.failed(org) if one.entity is entity and own_id in (None, one.id)]
        return [one.operations[0] for one in found]

    async def state(self, org: str, entity: SyncEntity, own_id: str) -> SyncState:
        self._there()
        found = self.states.get((org, entity, own_id))
        if found is None:
            raise NotFound(f"The org {org} has no {entity} {own_id!r}.")
        return found

    def failed(self, org: str) -> list[SyncState]:
        self._there()
        failed = (SyncStatus.FAILED, SyncStatus.CONFLICT)
        found = [one for key, one in self.states.items() if key[0] == org and one.status in failed]
        return sorted(found, key=lambda one: (one.updated_at, one.id), reverse=True)

    def _there(self) -> None:
        if self.away:
            raise Unavailable("Kafka does not confirm the command; send it again")


def _given(wanted: Any, before: Any) -> Any:
    return before if wanted is None else wanted


def bearer(*scopes: str, org: str = "default", sub: str = "ann", **lasts: float) -> dict[str, str]:
    """The header of a token; without scopes it has all."""
    text = issue(SIGNING, sub, org, scopes or None, timedelta(**lasts or {"hours": 1}), NOON)
    return {"authorization": f"Bearer {text}"}


BODY: dict[str, JsonValue] = {
    "system": "buildium",
    "mode": "sandbox",
    "settings": {"baseUrl": "https://apisandbox.buildium.com/v1"},
    "secrets": {"clientId": "an-id", "clientSecret": "a-long-secret-1234"},
}


@dataclass
class Site:
    """A running web role: the webhook door, and the API behind it."""

    client: httpx.AsyncClient
    service: MemoryIntegrations
    syncs: MemorySyncs
    clock: MovableClock
    port: int
    health: list[tuple[bool, str]]

    async def ask(self, method: str, path: str, json: Any = None, **more: Any) -> httpx.Response:
        headers = {**bearer(), **more.pop("headers", {})}
        body = {} if json is None else {"json": json}
        return await self.client.request(method, path, headers=headers, **body, **more)

    async def put(self, name: str = "buildium", **members: Any) -> httpx.Response:
        return await self.ask("PUT", f"/api/integrations/{name}", {**BODY, **members})


def memory_view() -> Queries:
    """Return a view without rows."""
    database = Database(sa.make_url("sqlite+pysqlite:///:memory:"))
    database.migrate()
    return Queries(database)


@asynccontextmanager
async def site(
    verifier: TokenVerifier | None = None, public_url: str | None = None, view: ViewService | None = None
) -> AsyncIterator[Site]:
    clock = MovableClock()
    service = MemoryIntegrations(clock)
    health = [(True, "well")]
    syncs = MemorySyncs(clock)
    queries = memory_view()
    view = view or queries
    api = build_api(
        service,
        syncs,
        view,
        memory_replays(queries, clock),
        verifier or TokenVerifier(SharedSecret(SIGNING), clock),
        version="1.2.3",
        health=lambda: health[-1],
        public_url=public_url,
    )
    readers = Readers({None: (Reader(),), "main": (Reader(),)})
    async with (
        served(build_ingress(readers, MemoryPublisher(), clock, others=api)) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=False) as client,
    ):
        yield Site(client, service, syncs, clock, port, health)


def is_problem(answer: httpx.Response, status: int) -> bool:
    """A whole problem: its media type, its members, its request's id."""
    content = answer.json()
    return (
        answer.status_code == status == content["status"]
        and answer.headers["content-type"] == "application/problem+json"
        and content["type"] == "about:blank"
        and bool(content["title"])
        and bool(content["detail"])
        and len(answer.headers.get_list("x-request-id")) == 1
    )


def pointers(answer: httpx.Response) -> dict[str, str]:
    return {error["pointer"]: error["detail"] for error in answer.json()["errors"]}
