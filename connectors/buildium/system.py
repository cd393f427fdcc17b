"""The system ``buildium`` of `connectors.registry`: its configuration and its clients."""

import random as randomness
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from connectors.buildium.gateway import BuildiumGateway
from connectors.buildium.settings import BuildiumSettings, mode_of, stripped
from connectors.buildium.source import BUDGET, BuildiumSource
from connectors.buildium.webhook import BuildiumWebhooks, account_of
from connectors.http import OpenClient
from connectors.ports import (
    Checked,
    Clock,
    Configuration,
    Connection,
    Field,
    FieldError,
    LeasingRules,
    OpenedSource,
    WebhookReader,
)
from connectors.settings import ProcessSettings, SettingsError, refused
from schemas.integrations import IntegrationMode, IntegrationRole

NAME: Final = "buildium"


@dataclass(frozen=True, slots=True)
class BuildiumSystem:
    """Implements `connectors.ports.SourceSystem` for Buildium."""

    process: ProcessSettings
    open_client: OpenClient

    @property
    def name(self) -> str:
        return NAME

    @property
    def title(self) -> str:
        return "Buildium"

    @property
    def role(self) -> IntegrationRole:
        return IntegrationRole.SOURCE

    @property
    def fields(self) -> tuple[Field, ...]:
        return BuildiumSettings.port_fields()

    def errors(self, configuration: Configuration) -> tuple[FieldError, ...]:
        """Return every error of a configuration, including a base URL of the other mode."""
        wrong = BuildiumSettings.errors(configuration, allow_private=self.process.allow_private)
        if any(one.pointer == "/settings/baseUrl" for one in wrong):
            return wrong
        base_url = str(configuration.settings.get("baseUrl", BuildiumSettings.model_fields["base_url"].default))
        mode = mode_of(base_url)
        if mode is None or mode is configuration.mode:
            return wrong
        detail = f"the mode is {configuration.mode}, but {base_url} is the {mode} URL: change one of the two"
        return (*wrong, FieldError("/mode", detail))

    def environment(self, env: Mapping[str, str]) -> Configuration | None:
        """Return the connection that the environment describes; null if it describes none. Raise `SettingsError`."""
        return self.required(env) if BuildiumSettings.is_described(env) else None

    def required(self, env: Mapping[str, str]) -> Configuration:
        """Return the connection of the environment. Raise `SettingsError` with each missing or invalid setting."""
        return _configuration(BuildiumSettings.read_complete(env))

    def enabled(self, env: Mapping[str, str]) -> bool:
        """Return whether the connection of the environment is enabled. Raise `SettingsError`."""
        return BuildiumSettings.read(env).sync_enabled

    async def check(self, configuration: Configuration, clock: Clock) -> Checked:
        """Test the connection without changing anything."""
        from connectors.buildium.check import check_buildium  # noqa: PLC0415 -- only tests of connections need it

        if wrong := self.errors(configuration):
            return refused(wrong)
        settings = self._settings(configuration)
        async with self.open_client(
            user_agent=self.process.user_agent,
            seconds=settings.patience.timeout,
            connections=BUDGET.in_flight,
            allow_private=settings.allow_private,
        ) as client:
            return await check_buildium(settings, clock, client)

    def open(self, configuration: Configuration, clock: Clock, random: randomness.Random) -> OpenedSource:
        """Open a client with its own API budget. Raise `SettingsError`."""
        settings = self._settings(configuration)
        source = BuildiumSource.open(
            settings,
            clock,
            user_agent=self.process.user_agent,
            random=random,
            client=self.open_client,
        )
        gateway = BuildiumGateway(source.calls, settings.operating_bank_account_id)
        return OpenedSource(source, gateway, source.budget)

    def reader(self, org: str, connection: str, configuration: Configuration, *, enabled: bool) -> WebhookReader:
        """Return the reader of a connection's webhooks; it uses only the webhook secrets of the configuration."""
        secrets = stripped(configuration.secrets.get("webhookSecret", ()))
        return BuildiumWebhooks(org, connection, secrets, enabled)

    def connection(self, org: str, name: str, configuration: Configuration, *, enabled: bool) -> Connection:
        """Return what the flows have to know of a connection. Raise `SettingsError` if that is wrong.

        The rest may be wrong or missing: without its key an account keeps its rent roll, and the calendar of it.
        """
        settings = BuildiumSettings.some_of(configuration, ("timezone", "makeReadyDays", "offer"))
        timezone = settings.timezone or self.process.timezone
        rules = LeasingRules(
            make_ready_days=settings.make_ready_days,
            auto_move_out_days=self.process.auto_move_out_days,
            listed_only=(settings.offer or self.process.offer) == "listed",
        )
        is_default = settings.timezone is None and "timezone" not in self.process.model_fields_set
        return Connection(org, name, NAME, enabled, timezone, rules, timezone_is_default=is_default)

    def account_of(self, body: bytes) -> int | None:
        """Return the account id in an unverified webhook body; null if there is none."""
        return account_of(body)

    def _settings(self, configuration: Configuration) -> BuildiumSettings:
        if wrong := self.errors(configuration):
            raise SettingsError(f"{one.pointer}: {one.detail}" for one in wrong)
        return BuildiumSettings.of(configuration, allow_private=self.process.allow_private)


def _configuration(settings: BuildiumSettings) -> Configuration:
    """Return the settings of the environment as a configuration; its mode follows from the base URL."""
    mode = mode_of(settings.base_url) or IntegrationMode.PRODUCTION
    return replace(settings.configuration(), mode=mode)
