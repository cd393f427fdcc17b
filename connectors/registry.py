"""THE LIST of connectors: what an environment connects, for the composition roots and nobody else."""

import random as randomness
from collections.abc import Mapping
from dataclasses import dataclass

from connectors.budget import Budget
from connectors.buildium.settings import BuildiumSettings
from connectors.buildium.source import BUDGET, BuildiumSource
from connectors.buildium.webhook import BuildiumWebhooks
from connectors.ports import Clock, Connection, ListingSink, PropertySource, WebhookReader
from connectors.rentsync.settings import RentSyncSettings
from connectors.rentsync.sink import RentSyncSink
from connectors.settings import SettingsError

ORG = "default"
"""The org of the connection that the environment describes."""

BUILDIUM = "buildium"


@dataclass(frozen=True, slots=True)
class Connectors:
    """What a stream worker talks to."""

    connections: tuple[Connection, ...]
    sources: Mapping[tuple[str, str], PropertySource]
    """By org and connection."""
    sinks: tuple[ListingSink, ...]
    budgets: Mapping[str, Budget]
    """By system: how much of the API budget is used."""

    async def aclose(self) -> None:
        """Close what was opened."""
        for source in self.sources.values():
            await source.aclose()
        for sink in self.sinks:
            await sink.aclose()


def connect(env: Mapping[str, str], clock: Clock, random: randomness.Random) -> Connectors:
    """Open what a stream worker needs. Raises `SettingsError` with every line that is wrong."""
    buildium, rentsync = _read(env)
    budget = Budget(clock, BUDGET)
    source = BuildiumSource.open(buildium, clock, budget=budget, user_agent=rentsync.user_agent, random=random)
    connection = Connection(ORG, BUILDIUM, BUILDIUM, buildium.sync_enabled, env.get("RENTSTREAM_TIMEZONE") or "UTC")
    return Connectors(
        connections=(connection,),
        sources={(ORG, BUILDIUM): source},
        sinks=(RentSyncSink(rentsync, clock),),
        budgets={BUILDIUM: budget},
    )


def readers(env: Mapping[str, str]) -> Mapping[tuple[str, str | None], WebhookReader]:
    """Give the readers of webhooks by system and connection (null: the system's first). Raises `SettingsError`."""
    settings = BuildiumSettings.read(env)
    reader = BuildiumWebhooks(ORG, BUILDIUM, settings.webhook_secrets, settings.sync_enabled)
    return {(BUILDIUM, None): reader, (BUILDIUM, BUILDIUM): reader}


def missing(env: Mapping[str, str]) -> tuple[str, ...]:
    """Say in one line each what an environment lacks or has wrong for real work; nothing if all is there."""
    lines: list[str] = []
    try:
        settings = BuildiumSettings.read(env)
    except SettingsError as error:
        lines += error.lines
    else:
        lines += _unset(settings.missing)
        if not settings.webhook_secrets:
            lines.append("BUILDIUM_WEBHOOK_SECRET is not set: without it no webhook can be verified")
    try:
        RentSyncSettings.read(env)
    except SettingsError as error:
        lines += error.lines
    return tuple(lines)


def _read(env: Mapping[str, str]) -> tuple[BuildiumSettings, RentSyncSettings]:
    lines: list[str] = []
    buildium: BuildiumSettings | None = None
    rentsync: RentSyncSettings | None = None
    try:
        buildium = BuildiumSettings.read(env)
    except SettingsError as error:
        lines += error.lines
    else:
        lines += _unset(buildium.missing)
    try:
        rentsync = RentSyncSettings.read(env)
    except SettingsError as error:
        lines += error.lines
    if lines or buildium is None or rentsync is None:
        raise SettingsError(lines)
    return buildium, rentsync


def _unset(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name} is not set: it is needed to read from Buildium" for name in names)
