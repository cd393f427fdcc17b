"""The registry of systems, one entry for each kind of integration. Only composition roots may import it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final

from connectors import http
from connectors.buildium.settings import BuildiumSettings
from connectors.buildium.system import BuildiumSystem
from connectors.network_settings import network_problems
from connectors.ports import SinkSystem, SourceSystem
from connectors.rentsync.system import RentSyncSystem
from connectors.settings import ProcessSettings, SettingsError, is_given

ORG: Final = "default"
"""The org of the integrations that the environment describes; each is named after its system."""

BUILDIUM: Final = "buildium"

WEBHOOK_SECRET: Final = "BUILDIUM_WEBHOOK_SECRET"  # noqa: S105 -- the name of a setting


@dataclass(frozen=True, slots=True)
class Systems:
    """Every system. A new one is a field here and an item of `by_name`."""

    buildium: BuildiumSystem
    rentsync: RentSyncSystem

    @property
    def by_name(self) -> Mapping[str, SourceSystem | SinkSystem]:
        every: tuple[SourceSystem | SinkSystem, ...] = (self.buildium, self.rentsync)
        return {system.name: system for system in every}


def systems(
    env: Mapping[str, str], open_client: http.OpenClient = http.open_client
) -> Mapping[str, SourceSystem | SinkSystem]:
    """Return every system by name. Raise `SettingsError` if the settings of the process or its network are wrong."""
    process = ProcessSettings.read(env)
    if not process.allow_private and (problems := network_problems(env)):
        raise SettingsError(problems)
    return _systems(process, open_client).by_name


def environment_enabled(env: Mapping[str, str], system: str) -> bool:
    """Return whether the environment enables its integration of a system. Raise `SettingsError`."""
    return system != BUILDIUM or _systems(ProcessSettings.read(env)).buildium.enabled(env)


def webhook_url(env: Mapping[str, str]) -> str | None:
    """Return the URL to which Buildium sends webhooks; null if the environment has none. Raise `SettingsError`."""
    return BuildiumSettings.read(env).webhook_url


def missing(env: Mapping[str, str]) -> tuple[str, ...]:
    """Return one line for each setting that is required outside of the demo and is missing or wrong."""
    known = _systems(ProcessSettings())
    reads: tuple[Callable[[Mapping[str, str]], object], ...] = (
        ProcessSettings.read,
        known.buildium.required,
        known.rentsync.required,
    )
    # Each system reads the settings of the process as well, which must not appear twice.
    lines = tuple(dict.fromkeys(chain.from_iterable(_lines(read, env) for read in reads)))
    if is_given(env, WEBHOOK_SECRET):
        return lines
    return (*lines, f"{WEBHOOK_SECRET} is not set: without it no webhook can be verified")


def _systems(process: ProcessSettings, open_client: http.OpenClient = http.open_client) -> Systems:
    return Systems(BuildiumSystem(process, open_client), RentSyncSystem(process, open_client))


def _lines(read: Callable[[Mapping[str, str]], object], env: Mapping[str, str]) -> tuple[str, ...]:
    try:
        read(env)
    except SettingsError as error:
        return error.lines
    return ()
