"""The demo: stand-ins of Buildium and RentSync, a seeded portfolio, and a scenario of changes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pydantic import SecretStr

from connectors.buildium.standin import (
    DEMO_ID,
    DEMO_SECRET,
    BuildiumStandIn,
    Events,
    Portfolio,
    RateLimit,
    Webhooks,
    seed_portfolio,
)
from connectors.clock import SystemClock
from connectors.rentsync.standin import PATH, Listed, RentSyncStandIn
from connectors.serving import running
from schemas.integrations import IntegrationMode
from streams.directory.model import PutIntegration
from streams.local.progress import ProgressReporter

WEBHOOK_SECRET = "demo-webhook-secret"  # noqa: S105 -- of the demo only, not confidential
API_KEY = "demo-rentsync-key"
ZONE = "America/Edmonton"

SECOND_ORG = "maple"
SECOND_ACCOUNT = 654_321
SECOND_ZONE = "America/Toronto"

Address = tuple[str, int]
ANY_PORT: Address = ("127.0.0.1", 0)

FIRST_DELIVERY_SECONDS = 120.0
"""Timeout of the first sweep and the first batches."""

CHANGE_SECONDS = 30.0
"""Timeout of one change of the scenario, from webhook to receiver."""


@dataclass(frozen=True, slots=True)
class SecondOrg:
    """Another org, with an account and a receiver of its own; its integrations are stored."""

    org: str
    portfolio: Portfolio
    receiver: RentSyncStandIn
    integrations: Mapping[str, PutIntegration]


class Demo:
    """Both stand-ins, and the scenario that changes them."""

    def __init__(
        self,
        echo: Callable[[str], None],
        portfolio: Portfolio,
        receiver: RentSyncStandIn,
        second: SecondOrg | None = None,
    ) -> None:
        self.echo = echo
        self.env: Mapping[str, str] = {}
        """Settings that point every role at the stand-ins."""
        self.second = second
        self._restored = len(receiver.state)
        self._portfolio = portfolio
        self._receiver = receiver

    async def run(self, url: str, second_path: str | None, reporter: ProgressReporter) -> None:
        """Wait for the first sweep and the first batches, then run the scenario against the web role at ``url``.

        ``second_path`` is the path of the webhooks of the second org.
        """
        if self._restored:
            self.echo(f"RentSync still lists {self._restored} units of the last run; the next sweep corrects them")
        else:
            try:
                await self._receiver.wait_for(lambda receiver: bool(receiver.accepted), FIRST_DELIVERY_SECONDS)
                async with asyncio.timeout(FIRST_DELIVERY_SECONDS):
                    await reporter.delivered.wait()
            except TimeoutError:
                self.echo(f"RentSync received nothing within {FIRST_DELIVERY_SECONDS:.0f} s; see the lines above")
                return
        webhooks = Webhooks(
            f"{url}/api/webhooks/buildium", WEBHOOK_SECRET, SystemClock(), account=self._portfolio.account
        )
        try:
            await self._run_scenario(webhooks)
        finally:
            await webhooks.aclose()
        if self.second is not None and second_path is not None:
            await self._run_second(self.second, url + second_path)

    async def _run_second(self, second: SecondOrg, url: str) -> None:
        """Change a rent in the account of the second org, which has webhooks and a receiver of its own."""
        try:
            await second.receiver.wait_for(lambda receiver: bool(receiver.state), FIRST_DELIVERY_SECONDS)
        except TimeoutError:
            self.echo(f"{second.org}: RentSync received nothing within {FIRST_DELIVERY_SECONDS:.0f} s")
            return
        unit = min(second.receiver.state.values(), key=lambda one: one.unit_id)
        rent = float(unit.base_rent or 1500) + 50
        webhooks = Webhooks(url, WEBHOOK_SECRET, SystemClock(), account=second.portfolio.account)
        try:
            await self._act(
                webhooks,
                f"{second.org}: unit {unit.unit_code}: the rent changes from {unit.base_rent} to {rent}",
                lambda: second.portfolio.set_rent(unit.unit_id, str(rent)),
                unit.unit_id,
                lambda listed: listed.base_rent == rent,
                second.receiver,
            )
        finally:
            await webhooks.aclose()

    async def _run_scenario(self, webhooks: Webhooks) -> None:
        self.echo("demo scenario: each change is made in Buildium, sent as a webhook, and awaited at RentSync")
        portfolio, today = self._portfolio, self._portfolio.today()
        available = self._listed(lambda unit: unit.is_available)
        if available:
            unit = available[0]
            rent = float(unit.base_rent or 1500) + 75
            await self._act(
                webhooks,
                f"unit {unit.unit_code}: the rent changes from {unit.base_rent} to {rent}",
                lambda: portfolio.set_rent(unit.unit_id, str(rent)),
                unit.unit_id,
                lambda listed: listed.base_rent == rent,
            )
            await self._act(
                webhooks,
                f"unit {unit.unit_code}: a lease starts today",
                lambda: portfolio.sign_lease(unit.unit_id, today, today + timedelta(days=365)),
                unit.unit_id,
                lambda listed: not listed.is_available,
            )
        rented = self._listed(lambda unit: unit.status_name == "Rented" and self._lease_of(unit.unit_id) is not None)
        if rented:
            unit = rented[0]
            lease = self._lease_of(unit.unit_id)
            assert lease is not None
            await self._act(
                webhooks,
                f"unit {unit.unit_code}: the tenants give notice to vacate on {today + timedelta(days=30)}",
                lambda: portfolio.give_notice(lease, None, today + timedelta(days=30)),
                unit.unit_id,
                lambda listed: listed.is_available,
            )

    def _listed(self, wanted: Callable[[Listed], bool]) -> list[Listed]:
        return sorted((unit for unit in self._receiver.state.values() if wanted(unit)), key=lambda unit: unit.unit_id)

    def _lease_of(self, unit: int) -> int | None:
        """Return the id of the only lease of a unit, or None if it has several or a notice to vacate."""
        live = [lease for lease in self._portfolio.leases_of.get(unit, ()) if lease in self._portfolio.live_leases()]
        no_notice = all(
            occupant.moves_out_on is None for lease in live for occupant in self._portfolio.leases[lease].occupants
        )
        return live[0] if len(live) == 1 and no_notice else None

    async def _act(
        self,
        webhooks: Webhooks,
        description: str,
        change: Callable[[], Events],
        unit: int,
        arrived: Callable[[Listed], bool],
        receiver: RentSyncStandIn | None = None,
    ) -> None:
        """Make a change, send its webhooks, and report how long it took to reach the receiver."""
        receiver = receiver or self._receiver
        self.echo(description)
        events = change()
        started = time.monotonic()
        before = len(receiver.accepted)
        await webhooks.send(events)
        try:
            await receiver.wait_for(
                lambda receiver: unit in receiver.state and arrived(receiver.state[unit]), CHANGE_SECONDS
            )
        except TimeoutError:
            self.echo(f"   RentSync did not receive it within {CHANGE_SECONDS:.0f} s")
            return
        elapsed = (time.monotonic() - started) * 1000
        listed = receiver.state[unit]
        mode = receiver.accepted[-1].mode if len(receiver.accepted) > before else "?"
        availability = "available" if listed.is_available else "not available"
        self.echo(
            f"   RentSync received it {elapsed:.0f} ms after the webhook: "
            f"{listed.status_name}, {availability}, rent {listed.base_rent} ({mode} {listed.sync_id})"
        )


def demo_env(buildium: str, rentsync: str) -> dict[str, str]:
    """Return the settings that point every role at the stand-ins at these base URLs."""
    return {
        "BUILDIUM_CLIENT_ID": DEMO_ID,
        "BUILDIUM_CLIENT_SECRET": DEMO_SECRET,
        "BUILDIUM_BASE_URL": f"{buildium}/v1",
        "BUILDIUM_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "BUILDIUM_SYNC_ENABLED": "true",
        "RENTSYNC_URL": f"{rentsync}{PATH}",
        "RENTSYNC_AUTH": "api-key",
        "RENTSYNC_API_KEY": API_KEY,
        "RENTSTREAM_ALLOW_PRIVATE": "1",
        "RENTSTREAM_TIMEZONE": ZONE,
    }


def stored_integrations(buildium: str, rentsync: str) -> dict[str, PutIntegration]:
    """Return the integrations of an org that is connected to stand-ins at these base URLs."""
    return {
        "buildium": PutIntegration(
            system="buildium",
            mode=IntegrationMode.SANDBOX,
            settings={"baseUrl": f"{buildium}/v1", "timezone": SECOND_ZONE},
            secrets={
                "clientId": SecretStr(DEMO_ID),
                "clientSecret": SecretStr(DEMO_SECRET),
                "webhookSecret": SecretStr(WEBHOOK_SECRET),
            },
            properties_default=None,
            properties_on=None,
            properties_off=None,
        ),
        "rentsync": PutIntegration(
            system="rentsync",
            mode=IntegrationMode.SANDBOX,
            settings={"url": f"{rentsync}{PATH}"},
            secrets={"apiKey": SecretStr(API_KEY)},
            properties_default=None,
            properties_on=None,
            properties_off=None,
        ),
    }


@asynccontextmanager
async def served(
    portfolio: Portfolio,
    file: Path | None,
    buildium_at: Address = ANY_PORT,
    rentsync_at: Address = ANY_PORT,
) -> AsyncIterator[tuple[str, str, RentSyncStandIn]]:
    """Serve a Buildium and a RentSync; yield their base URLs, and the receiver.

    The listings of RentSync are kept in ``file`` between runs, as a real receiver keeps them; the portfolio of Buildium
    is seeded again by every run.
    """
    receiver = RentSyncStandIn(API_KEY, SystemClock())
    if file is not None:
        receiver.restore(file)
    buildium = BuildiumStandIn(portfolio, limit=RateLimit())
    async with (
        running(buildium.app, *buildium_at) as buildium_url,
        running(receiver.app, *rentsync_at) as rentsync_url,
    ):
        try:
            yield buildium_url, rentsync_url, receiver
        finally:
            if file is not None:
                receiver.save(file)


@asynccontextmanager
async def stand_ins(
    echo: Callable[[str], None],
    folder: Path | None = None,
    buildium_at: Address = ANY_PORT,
    rentsync_at: Address = ANY_PORT,
    *,
    second_org: bool = False,
) -> AsyncIterator[Demo]:
    """Serve the stand-ins until the context exits; with ``second_org`` those of another org, too."""
    portfolio = seed_portfolio(SystemClock(), timezone=ZONE)
    async with AsyncExitStack() as stack:
        file = folder / "rentsync.json" if folder else None
        buildium, rentsync, receiver = await stack.enter_async_context(
            served(portfolio, file, buildium_at, rentsync_at)
        )
        echo(f"stand-ins: {_described(portfolio, buildium, rentsync)}")
        second = None
        if second_org:
            second = await stack.enter_async_context(_second(echo, folder))
        demo = Demo(echo, portfolio, receiver, second)
        demo.env = demo_env(buildium, rentsync)
        yield demo


@asynccontextmanager
async def _second(echo: Callable[[str], None], folder: Path | None) -> AsyncIterator[SecondOrg]:
    portfolio = seed_portfolio(SystemClock(), properties=3, units=9, seed=11, timezone=SECOND_ZONE)
    portfolio.account = SECOND_ACCOUNT
    file = folder / f"rentsync-{SECOND_ORG}.json" if folder else None
    async with served(portfolio, file) as (buildium, rentsync, receiver):
        echo(f"a second org, {SECOND_ORG}, with an account of its own: {_described(portfolio, buildium, rentsync)}")
        yield SecondOrg(SECOND_ORG, portfolio, receiver, stored_integrations(buildium, rentsync))


def _described(portfolio: Portfolio, buildium: str, rentsync: str) -> str:
    return (
        f"Buildium at {buildium} with {len(portfolio.properties)} properties and {len(portfolio.units)} units, "
        f"RentSync at {rentsync} (its listings: {rentsync}/v1/rent-roll)"
    )


async def serve_stand_ins(echo: Callable[[str], None], buildium_at: str, rentsync_at: str) -> None:
    """Serve both stand-ins at the given addresses (host:port) until cancelled. Raise `OSError` if one is in use."""

    def address(text: str) -> Address:
        host, port = text.rsplit(":", 1)
        return host, int(port)

    async with stand_ins(echo, None, address(buildium_at), address(rentsync_at)) as demo:
        echo("settings that point a role at them:")
        for name, value in demo.env.items():
            echo(f"  {name}={value}")
        await asyncio.Event().wait()
