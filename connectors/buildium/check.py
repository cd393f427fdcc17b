"""The connection test of Buildium: address, TLS, credentials, permissions, and pagination of lists.

Nothing is changed in the account. The permission to create properties and owners is tested by a POST of an empty JSON
object: without the required fields Buildium cannot create anything, and answers 403 if the API key lacks the
permission, 400 or 422 if it has it. The POST is sent only to a server that has just answered like Buildium, and is not
repeated after a lost answer.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Final

import httpx

from connectors.budget import Budget
from connectors.buildium.auth import BuildiumAuth
from connectors.buildium.calls import THROTTLE_SECONDS
from connectors.buildium.findings import (
    ACCOUNT,
    ENTITIES,
    PAGE,
    Entity,
    Judged,
    access_of,
    account_id,
    judge_account,
    judge_creation,
    judge_credentials,
    judge_order,
    judge_read,
    judge_total,
    judge_webhook_secrets,
)
from connectors.buildium.settings import BuildiumSettings
from connectors.buildium.source import BUDGET
from connectors.checks import MASK, Check, Fail, Finding, run_checks, secrets_of
from connectors.endpoint import Network, SystemNetwork, check_address, check_clock, check_tls, origin
from connectors.http import Reply, exchange, retry_after
from connectors.ports import Checked, Clock, Failure, Priority
from schemas.integrations import AccessLevel

_TITLE: Final = "Buildium"

OPTIONAL: Final[Mapping[str, str]] = {
    "account": "without it webhooks are matched by their secret instead of by the account's id",
    "permission_tenants": "without it changes of tenants are found by the next sweep",
    "permission_listings": "without it sweeps leave out the listings",
    "permission_owners": "only the creation of owners needs it",
    "permission_property_creation": "only the creation and inactivation of properties need it",
    "permission_owner_creation": "only the creation of owners needs it",
    "total_count": "without it sweeps read one page after the other",
    "webhook_secret": "without webhooks, changes are found at the interval of the sweeps",
}
"""The checks whose failure is a warning, with the reason; every other check is required."""


MOST_BYTES: Final = 4 * 1024 * 1024
ATTEMPTS: Final = 3
"""The most attempts of a call that is answered with 429; no other answer is retried."""


async def check_buildium(
    settings: BuildiumSettings,
    clock: Clock,
    client: httpx.AsyncClient,
    *,
    budget: Budget | None = None,
    network: Network | None = None,
) -> Checked:
    """Test a connection to Buildium within ten seconds, without changing anything.

    Pass the ``budget`` of the connection if it is open in this process; otherwise the test creates its own.
    """
    own = Budget(clock, BUDGET)
    test = _Test(settings, clock, client, budget or own, network or SystemNetwork())
    try:
        results = await run_checks(test.checks(), clock, optional=OPTIONAL, hide=secrets_of(settings))
    finally:
        await own.aclose()
    return Checked(results, access_of(test.levels), test.account)


@dataclass(slots=True)
class _Test:
    """One run of the test: makes the calls, and keeps the answers that several checks need."""

    settings: BuildiumSettings
    clock: Clock
    client: httpx.AsyncClient
    budget: Budget
    network: Network
    levels: dict[str, AccessLevel] = field(default_factory=dict)
    """The access levels that the checks determined, by the name of the check."""
    account: int | None = None
    _replies: dict[str, Reply] = field(default_factory=dict)
    """Answers by their path."""
    _received_at: datetime | None = None

    def checks(self) -> tuple[Check, ...]:
        reads = [Check(f"permission_{one.name}", partial(self._read, one), ("credentials",)) for one in ENTITIES]
        creations = [
            Check(one.creation, partial(self._create, one), (f"permission_{one.name}",))
            for one in ENTITIES
            if one.creation
        ]
        return (
            Check("address", self._address),
            Check("tls", self._tls, ("address",)),
            Check("credentials", self._credentials, ("tls",)),
            Check("account", self._account, ("credentials",)),
            *reads,
            *creations,
            Check("page_order", self._page_order, ("permission_units",)),
            Check("total_count", self._total_count, ("permission_properties",)),
            Check("clock_skew", self._clock_skew, ("credentials",)),
            Check("webhook_secret", self._webhook_secret),
        )

    async def _address(self) -> Finding:
        return await check_address(self.settings.base_url, self.network, allow_private=self.settings.allow_private)

    async def _tls(self) -> Finding:
        async with self.budget.slot(Priority.COMMAND):
            return await check_tls(self.settings.base_url + ACCOUNT, self.client, self.clock)

    async def _credentials(self) -> Finding:
        if self.settings.client_id is None or self.settings.client_secret is None:
            return Fail(
                "client id and client secret are not both set",
                "Create an API key in Buildium (Settings > Developer Tools), and set its client id and secret.",
            )
        answer = await self._get(ACCOUNT)
        finding = judge_credentials(answer, origin(self.settings.base_url)[0])
        if isinstance(answer, Reply):
            self._replies[ACCOUNT] = answer
            self._received_at = self.clock.now()
        return finding

    async def _account(self) -> Finding:
        reply = self._replies[ACCOUNT]
        self.account = account_id(reply)
        return judge_account(reply)

    async def _read(self, entity: Entity) -> Finding:
        answer = await self._get(entity.path, ("limit", "1"))
        if isinstance(answer, Reply):
            self._replies[entity.path] = answer
        return self._note(f"permission_{entity.name}", judge_read(entity, answer))

    async def _create(self, entity: Entity) -> Finding:
        answer = await self._call("POST", entity.path, content=b"{}")
        return self._note(entity.creation or "", judge_creation(entity, answer))

    async def _page_order(self) -> Finding:
        pages = (("offset", str(offset)) for offset in (0, PAGE))
        return judge_order(
            *await asyncio.gather(
                *(self._get("/rentals/units", ("orderby", "Id"), page, ("limit", str(PAGE))) for page in pages)
            )
        )

    async def _total_count(self) -> Finding:
        return judge_total(self._replies["/rentals"])

    async def _clock_skew(self) -> Finding:
        assert self._received_at is not None, "the check of the credentials passed"
        return check_clock(self._replies[ACCOUNT].headers.get("date"), self._received_at, _TITLE)

    async def _webhook_secret(self) -> Finding:
        return judge_webhook_secrets(self.settings.webhook_secrets, self.clock.now())

    def _note(self, check: str, judged: Judged) -> Finding:
        self.levels[check] = judged.access
        return judged.finding

    async def _get(self, path: str, *query: tuple[str, str]) -> Reply | Failure:
        return await self._call("GET", path, query)

    async def _call(
        self, method: str, path: str, query: Sequence[tuple[str, str]] = (), content: bytes | None = None
    ) -> Reply | Failure:
        """Make a call within the budget. After a 429, which has no effect in the account, wait and repeat it."""
        for attempt in range(1, ATTEMPTS + 1):
            async with self.budget.slot(Priority.COMMAND):
                answer = await self._exchange(method, path, query, content)
            if not isinstance(answer, Reply) or answer.status != 429 or attempt == ATTEMPTS:
                break
            pause = retry_after(answer.headers.get("retry-after"), self.clock.now()) or THROTTLE_SECONDS * attempt
            self.budget.slow_down(min(pause, self.settings.patience.longest_wait))
        return answer

    async def _exchange(
        self, method: str, path: str, query: Sequence[tuple[str, str]], content: bytes | None
    ) -> Reply | Failure:
        client_id, client_secret = self.settings.client_id, self.settings.client_secret
        assert client_id is not None, "the check of the credentials passed"
        assert client_secret is not None, "the check of the credentials passed"
        request = self.client.build_request(
            method,
            self.settings.base_url + path,
            params=tuple(query) or None,
            content=content,
            headers={"content-type": "application/json"} if content is not None else None,
        )
        answer = await exchange(
            self.client,
            request,
            system=_TITLE,
            seconds=self.settings.patience.timeout,
            most_bytes=MOST_BYTES,
            auth=BuildiumAuth(client_id, client_secret),
        )
        return self._masked(answer) if isinstance(answer, Reply) else answer

    def _masked(self, reply: Reply) -> Reply:
        """Mask the credentials in a reply that repeats them; afterwards its text may be truncated inside of one."""
        body = reply.body
        for secret in secrets_of(self.settings):
            body = body.replace(secret.get_secret_value().encode(), MASK.encode())
        return replace(reply, body=body)
