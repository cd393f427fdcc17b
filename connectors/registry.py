"""THE TABLE of systems: one row for each kind of integration, for the composition roots only.

Below it stands what an environment connects (`connect`, `readers`, `missing`), as long as there is nothing else that
describes connections.
"""

import random as randomness
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain

from connectors import http
from connectors.buildium.settings import BuildiumSettings
from connectors.buildium.system import BuildiumSystem
from connectors.ports import (
    Clock,
    Connection,
    ListingSink,
    PropertySource,
    SinkSystem,
    SourceSystem,
    UsesBudget,
    WebhookReader,
)
from connectors.rentsync.system import RentSyncSystem
from connectors.settings import ProcessSettings, SettingsError, is_given

ORG = "default"
"""The org of the connections that the environment describes; each has the name of its system."""

BUILDIUM = "buildium"
RENTSYNC = "rentsync"

WEBHOOK_SECRET = "BUILDIUM_WEBHOOK_SECRET"  # noqa: S105 -- the name of a setting


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of the table. A new system is a field here."""

    buildium: BuildiumSystem
    rentsync: RentSyncSystem

    @property
    def table(self) -> Mapping[str, SourceSystem | SinkSystem]:
        rows: tuple[SourceSystem | SinkSystem, ...] = (self.buildium, self.rentsync)
        return {row.name: row for row in rows}


def rows(process: ProcessSettings, open_client: http.OpenClient = http.open_client) -> Rows:
    """Return the rows, for a process with these settings."""
    return Rows(BuildiumSystem(process, open_client), RentSyncSystem(process, open_client))


def systems(
    env: Mapping[str, str], open_client: http.OpenClient = http.open_client
) -> Mapping[str, SourceSystem | SinkSystem]:
    """Return every system by name. Raise `SettingsError` if the settings of the process are wrong."""
    return rows(ProcessSettings.read(env), open_client).table


def environment_enabled(env: Mapping[str, str], system: str) -> bool:
    """Return whether the connection of the environment to a system takes part. Raise `SettingsError`."""
    return system != BUILDIUM or rows(ProcessSettings.read(env)).buildium.enabled(env)


def webhook_url(env: Mapping[str, str]) -> str | None:
    """Return where the environment says that Buildium sends webhooks to. Raise `SettingsError`."""
    return BuildiumSettings.read(env).webhook_url


# --------------------------------------------------------------------------------------- what an environment connects


@dataclass(frozen=True, slots=True)
class Connectors:
    """What a stream worker talks to."""

    connections: tuple[Connection, ...]
    sources: Mapping[tuple[str, str], PropertySource]
    """By org and connection."""
    sinks: tuple[ListingSink, ...]
    budgets: Mapping[str, UsesBudget]
    """By system: how much of the API budget is used."""

    async def aclose(self) -> None:
        """Close what was opened."""
        for source in self.sources.values():
            await source.aclose()
        for sink in self.sinks:
            await sink.aclose()


def connect(env: Mapping[str, str], clock: Clock, random: randomness.Random) -> Connectors:
    """Open what a stream worker needs. Raise `SettingsError` with every line that is wrong."""
    if wrong := _wrong(env):
        raise SettingsError(wrong)
    table = rows(ProcessSettings.read(env))
    configuration = table.buildium.required(env)
    source, budget = table.buildium.open(configuration, clock, random)
    enabled = table.buildium.enabled(env)
    return Connectors(
        connections=(table.buildium.connection(ORG, BUILDIUM, configuration, enabled=enabled),),
        sources={(ORG, BUILDIUM): source},
        sinks=(table.rentsync.open(RENTSYNC, table.rentsync.required(env), clock),),
        budgets={BUILDIUM: budget},
    )


def readers(env: Mapping[str, str]) -> Mapping[tuple[str, str | None], WebhookReader]:
    """Return the readers of webhooks by system and connection (null: the system's first). Raise `SettingsError`."""
    buildium = rows(ProcessSettings.read(env)).buildium
    # A process that only receives webhooks needs no key to call Buildium with.
    reader = buildium.reader(ORG, BUILDIUM, buildium.partial(env), enabled=buildium.enabled(env))
    return {(BUILDIUM, None): reader, (BUILDIUM, BUILDIUM): reader}


def missing(env: Mapping[str, str]) -> tuple[str, ...]:
    """Return one line for each setting that real work needs and that is missing or wrong."""
    lines = _wrong(env)
    if is_given(env, WEBHOOK_SECRET):
        return lines
    return (*lines, f"{WEBHOOK_SECRET} is not set: without it no webhook can be verified")


def _wrong(env: Mapping[str, str]) -> tuple[str, ...]:
    table = rows(ProcessSettings())
    reads: tuple[Callable[[Mapping[str, str]], object], ...] = (
        ProcessSettings.read,
        table.buildium.required,
        table.rentsync.required,
    )
    # A setting of the process is read with each connection, and must not be named twice.
    return tuple(dict.fromkeys(chain.from_iterable(_lines(read, env) for read in reads)))


def _lines(read: Callable[[Mapping[str, str]], object], env: Mapping[str, str]) -> tuple[str, ...]:
    try:
        read(env)
    except SettingsError as error:
        return error.lines
    return ()
