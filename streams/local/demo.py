"""The demonstration: stand-ins of Buildium and RentSync, a portfolio to look at, and a small scene played on it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

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
from streams.local.progress import ProgressReporter

WEBHOOK_SECRET = "demo-webhook-secret"  # noqa: S105 -- everybody may know it
API_KEY = "demo-rentsync-key"
ZONE = "America/Edmonton"

Address = tuple[str, int]
ANYWHERE: Address = ("127.0.0.1", 0)

FIRST_WITHIN = 120.0
"""Seconds that the first sweep and the first batches may take."""

SCENE_WITHIN = 30.0
"""Seconds that a change of the scene may take to arrive."""


class DemoStage:
    """Both stand-ins and what is played on them."""

    def __init__(self, say: Callable[[str], None], portfolio: Portfolio, receiver: RentSyncStandIn) -> None:
        self.say = say
        self.env: Mapping[str, str] = {}
        self._remembered = len(receiver.state)
        self._portfolio = portfolio
        self._receiver = receiver

    async def play(self, url: str, reporter: ProgressReporter) -> None:
        """Wait for the first sweep and the first batches, then play the scene against the web role at ``url``."""
        if self._remembered:
            self.say(f"RentSync remembers {self._remembered} units of the last run; the next sweep mends what differs")
        else:
            try:
                await self._receiver.wait_for(lambda receiver: bool(receiver.accepted), FIRST_WITHIN)
                await asyncio.wait_for(reporter.delivered.wait(), FIRST_WITHIN)
            except TimeoutError:
                self.say(f"nothing arrived at RentSync within {FIRST_WITHIN:.0f} s; the lines above say what happened")
                return
        webhooks = Webhooks(
            f"{url}/api/webhooks/buildium", WEBHOOK_SECRET, SystemClock(), account=self._portfolio.account
        )
        try:
            await self._scene(webhooks)
        finally:
            await webhooks.aclose()

    async def _scene(self, webhooks: Webhooks) -> None:
        self.say("a small scene: each change is made in Buildium, which sends its webhook; then we watch RentSync")
        portfolio, today = self._portfolio, self._portfolio.today()
        free = self._listed(lambda one: one.is_available)
        if free:
            unit = free[0]
            rent = float(unit.base_rent or 1500) + 75
            await self._act(
                webhooks,
                f"unit {unit.unit_code}: the rent changes from {unit.base_rent} to {rent}",
                lambda: portfolio.set_rent(unit.unit_id, str(rent)),
                unit.unit_id,
                lambda now: now.base_rent == rent,
            )
            await self._act(
                webhooks,
                f"unit {unit.unit_code}: a lease starts today",
                lambda: portfolio.sign_lease(unit.unit_id, today, today + timedelta(days=365)),
                unit.unit_id,
                lambda now: not now.is_available,
            )
        let = self._listed(lambda one: one.status_name == "Rented" and self._lease_of(one.unit_id) is not None)
        if let:
            unit = let[0]
            lease = self._lease_of(unit.unit_id)
            assert lease is not None
            await self._act(
                webhooks,
                f"unit {unit.unit_code}: the tenants give notice for {today + timedelta(days=30)}",
                lambda: portfolio.give_notice(lease, None, today + timedelta(days=30)),
                unit.unit_id,
                lambda now: now.is_available,
            )

    def _listed(self, wanted: Callable[[Listed], bool]) -> list[Listed]:
        return sorted((one for one in self._receiver.state.values() if wanted(one)), key=lambda one: one.unit_id)

    def _lease_of(self, unit: int) -> int | None:
        """Give the one lease of a unit that is simply let: no notice, nobody to come."""
        live = [lease for lease in self._portfolio.leases_of.get(unit, ()) if lease in self._portfolio.live_leases()]
        plain = all(one.moves_out_on is None for lease in live for one in self._portfolio.leases[lease].occupants)
        return live[0] if len(live) == 1 and plain else None

    async def _act(
        self,
        webhooks: Webhooks,
        what: str,
        act: Callable[[], Events],
        unit: int,
        arrived: Callable[[Listed], bool],
    ) -> None:
        self.say(what)
        events = act()
        began = time.monotonic()
        before = len(self._receiver.accepted)
        await webhooks.send(events)
        try:
            await self._receiver.wait_for(
                lambda receiver: unit in receiver.state and arrived(receiver.state[unit]), SCENE_WITHIN
            )
        except TimeoutError:
            self.say(f"   it has not arrived at RentSync after {SCENE_WITHIN:.0f} s")
            return
        age = (time.monotonic() - began) * 1000
        now = self._receiver.state[unit]
        mode = self._receiver.accepted[-1].mode if len(self._receiver.accepted) > before else "?"
        told = f"{now.status_name}, {'available' if now.is_available else 'not available'}, rent {now.base_rent}"
        self.say(f"   RentSync has it {age:.0f} ms after the webhook: {told} ({mode} {now.sync_id})")


def stage_env(buildium: str, rentsync: str) -> dict[str, str]:
    """Give the settings that point every role at the stand-ins."""
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


@asynccontextmanager
async def stand_ins(
    say: Callable[[str], None],
    memory: Path | None = None,
    buildium_at: Address = ANYWHERE,
    rentsync_at: Address = ANYWHERE,
) -> AsyncIterator[DemoStage]:
    """Serve both stand-ins while the context lasts.

    ``memory`` is a folder where RentSync's list outlives the program, as the real one's does; Buildium's portfolio
    begins anew each time.
    """
    clock = SystemClock()
    portfolio = seed_portfolio(clock, timezone=ZONE)
    receiver = RentSyncStandIn(API_KEY, clock)
    if memory is not None:
        receiver.restore(memory / "rentsync.json")
    buildium = BuildiumStandIn(portfolio, limit=RateLimit())
    async with (
        running(buildium.app, *buildium_at) as buildium_url,
        running(receiver.app, *rentsync_at) as rentsync_url,
    ):
        stage = DemoStage(say, portfolio, receiver)
        stage.env = stage_env(buildium_url, rentsync_url)
        say(
            f"stand-ins: Buildium at {buildium_url} with {len(portfolio.properties)} properties and "
            f"{len(portfolio.units)} units, RentSync at {rentsync_url} (what it lists: {rentsync_url}/v1/rent-roll)"
        )
        try:
            yield stage
        finally:
            if memory is not None:
                receiver.save(memory / "rentsync.json")


async def serve_stand_ins(say: Callable[[str], None], buildium_at: str, rentsync_at: str) -> None:
    """Serve both stand-ins until cancelled, at the addresses given (host:port)."""

    def address(text: str) -> Address:
        host, port = text.rsplit(":", 1)
        return host, int(port)

    async with stand_ins(say, None, address(buildium_at), address(rentsync_at)) as stage:
        say("settings that point a role at them:")
        for name, value in stage.env.items():
            say(f"  {name}={value}")
        await asyncio.Event().wait()
