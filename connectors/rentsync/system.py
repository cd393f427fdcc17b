"""The system ``rentsync`` of `connectors.registry`: its configuration and its clients."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from connectors.http import OpenClient
from connectors.ports import Checked, Clock, Configuration, Field, FieldError, ListingSink, Schedule
from connectors.rentsync.settings import RentSyncSettings
from connectors.rentsync.sink import RentSyncSink
from connectors.settings import ProcessSettings, refused
from schemas.integrations import IntegrationRole

NAME: Final = "rentsync"


@dataclass(frozen=True, slots=True)
class RentSyncSystem:
    """Implements `connectors.ports.SinkSystem` for RentSync."""

    process: ProcessSettings
    open_client: OpenClient

    @property
    def name(self) -> str:
        return NAME

    @property
    def title(self) -> str:
        return "RentSync"

    @property
    def role(self) -> IntegrationRole:
        return IntegrationRole.SINK

    @property
    def fields(self) -> tuple[Field, ...]:
        return RentSyncSettings.port_fields()

    def errors(self, configuration: Configuration) -> tuple[FieldError, ...]:
        """Return every error of a configuration."""
        return RentSyncSettings.errors(configuration, **self._defaults())

    def environment(self, env: Mapping[str, str]) -> Configuration | None:
        """Return the receiver that the environment describes; null if it describes none. Raise `SettingsError`."""
        return self.required(env) if RentSyncSettings.is_described(env) else None

    def required(self, env: Mapping[str, str]) -> Configuration:
        """Return the receiver of the environment. Raise `SettingsError` with each missing or invalid setting."""
        return RentSyncSettings.read_complete(env).configuration()

    async def check(self, configuration: Configuration, clock: Clock) -> Checked:
        """Test the connection without changing anything."""
        from connectors.rentsync.check import check_rentsync  # noqa: PLC0415 -- only tests of connections need it

        if wrong := self.errors(configuration):
            return refused(wrong)
        settings = self._settings(configuration)
        async with self._client(settings) as client:
            return await check_rentsync(settings, clock, client)

    def open(self, name: str, configuration: Configuration, clock: Clock) -> ListingSink:
        """Open a client. Raise `SettingsError`."""
        settings = self._settings(configuration)
        return RentSyncSink(settings, clock, self._client(settings), name)

    def schedule(self, configuration: Configuration) -> Schedule | None:
        """Return the schedule of the snapshots; null if only changes are wanted. Raise `SettingsError`."""
        settings = self._settings(configuration)
        if settings.updates == "delta":
            return None
        return Schedule(settings.schedule, settings.timezone or self.process.timezone)

    def form(self, configuration: Configuration) -> str:
        """Return what the bodies depend on besides their batch, empty for the default. Raise `SettingsError`."""
        settings = self._settings(configuration)
        form = (settings.shape, settings.fields_, settings.source)
        names = ("shape", "fields_", "source")
        return "" if form == tuple(RentSyncSettings.model_fields[name].default for name in names) else " ".join(form)

    def _client(self, settings: RentSyncSettings) -> httpx.AsyncClient:
        return self.open_client(
            user_agent=settings.user_agent, seconds=settings.timeout, allow_private=settings.allow_private
        )

    def _settings(self, configuration: Configuration) -> RentSyncSettings:
        return RentSyncSettings.of(configuration, **self._defaults())

    def _defaults(self) -> Mapping[str, Any]:
        """Return the settings of the process, which apply where the configuration has none."""
        return {"allow_private": self.process.allow_private, "user_agent": self.process.user_agent}
