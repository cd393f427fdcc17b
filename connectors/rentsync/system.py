"""RentSync as a row of `connectors.registry`: its settings, and how its port is opened."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from connectors.http import OpenClient
from connectors.ports import Checked, Clock, Configuration, Field, FieldError, ListingSink
from connectors.rentsync.settings import RentSyncSettings
from connectors.rentsync.sink import RentSyncSink
from connectors.settings import ProcessSettings, refused
from schemas.integrations import IntegrationRole

NAME: Final = "rentsync"


@dataclass(frozen=True, slots=True)
class RentSyncSystem:
    """The system ``rentsync``: see `connectors.ports.SinkSystem`."""

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
        """Return everything that is wrong with a configuration."""
        return RentSyncSettings.errors(configuration, **self._defaults())

    def environment(self, env: Mapping[str, str]) -> Configuration | None:
        """Return what the environment describes; null if it names no receiver. Raise `SettingsError`."""
        return self.required(env) if RentSyncSettings.is_described(env) else None

    def required(self, env: Mapping[str, str]) -> Configuration:
        """Return what the environment describes. Raise `SettingsError` with all that is missing or wrong."""
        return RentSyncSettings.read_complete(env).configuration()

    async def check(self, configuration: Configuration, clock: Clock) -> Checked:
        """Test the connection without changing anything."""
        from connectors.rentsync.check import check_rentsync  # noqa: PLC0415 -- loaded when it is asked for

        if wrong := self.errors(configuration):
            return refused(wrong)
        settings = self._settings(configuration)
        async with self._client(settings) as client:
            return await check_rentsync(settings, clock, client)

    def open(self, name: str, configuration: Configuration, clock: Clock) -> ListingSink:
        """Open a client. Raise `SettingsError`."""
        settings = self._settings(configuration)
        return RentSyncSink(settings, clock, self._client(settings), name)

    def _client(self, settings: RentSyncSettings) -> httpx.AsyncClient:
        return self.open_client(
            user_agent=settings.user_agent, seconds=settings.timeout, allow_private=settings.allow_private
        )

    def _settings(self, configuration: Configuration) -> RentSyncSettings:
        return RentSyncSettings.of(configuration, **self._defaults())

    def _defaults(self) -> Mapping[str, Any]:
        """Return the values of the process, for what the configuration does not name."""
        return {"allow_private": self.process.allow_private, "user_agent": self.process.user_agent}
