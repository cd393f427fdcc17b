"""Buildium as a row of `connectors.registry`: its settings, and how its ports are opened."""

import random as randomness
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

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
    PropertySource,
    UsesBudget,
    WebhookReader,
)
from connectors.settings import ProcessSettings, SettingsError, refused
from schemas.integrations import IntegrationMode, IntegrationRole

NAME: Final = "buildium"


@dataclass(frozen=True, slots=True)
class BuildiumSystem:
    """The system ``buildium``: see `connectors.ports.SourceSystem`."""

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
        """Return everything that is wrong with a configuration, an address of the other mode included."""
        wrong = BuildiumSettings.errors(configuration, allow_private=self.process.allow_private)
        if any(one.pointer == "/settings/baseUrl" for one in wrong):
            return wrong
        base_url = str(configuration.settings.get("baseUrl", BuildiumSettings.model_fields["base_url"].default))
        mode = mode_of(base_url)
        if mode is None or mode is configuration.mode:
            return wrong
        detail = f"the mode is {configuration.mode}, but {base_url} is the {mode} address: change one of the two"
        return (*wrong, FieldError("/mode", detail))

    def environment(self, env: Mapping[str, str]) -> Configuration | None:
        """Return what the environment describes; null if it names no account. Raise `SettingsError`."""
        return self.required(env) if BuildiumSettings.is_described(env) else None

    def required(self, env: Mapping[str, str]) -> Configuration:
        """Return what the environment describes. Raise `SettingsError` with all that is missing or wrong."""
        return _configuration(BuildiumSettings.read_complete(env))

    def partial(self, env: Mapping[str, str]) -> Configuration:
        """Return what the environment describes, complete or not. Raise `SettingsError` with all that is wrong."""
        return _configuration(BuildiumSettings.read(env))

    def enabled(self, env: Mapping[str, str]) -> bool:
        """Return whether the connection of the environment takes part. Raise `SettingsError`."""
        return BuildiumSettings.read(env).sync_enabled

    async def check(self, configuration: Configuration, clock: Clock) -> Checked:
        """Test the connection without changing anything."""
        from connectors.buildium.check import check_buildium  # noqa: PLC0415 -- loaded when it is asked for

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

    def open(
        self, configuration: Configuration, clock: Clock, random: randomness.Random
    ) -> tuple[PropertySource, UsesBudget]:
        """Open a client with an API budget of its own. Raise `SettingsError`."""
        source = BuildiumSource.open(
            self._settings(configuration),
            clock,
            user_agent=self.process.user_agent,
            random=random,
            client=self.open_client,
        )
        return source, source.budget

    def reader(self, org: str, connection: str, configuration: Configuration, *, enabled: bool) -> WebhookReader:
        """Return the reader of a connection's webhooks; it needs no more of the configuration than the secrets."""
        secrets = stripped(configuration.secrets.get("webhookSecret", ()))
        return BuildiumWebhooks(org, connection, secrets, enabled)

    def connection(self, org: str, name: str, configuration: Configuration, *, enabled: bool) -> Connection:
        """Return what the flows have to know of a connection. Raise `SettingsError` if that is wrong.

        The rest may be wrong or missing: without its key an account keeps its rent roll, and the calendar of it.
        """
        settings = BuildiumSettings.some_of(configuration, ("timezone", "makeReadyDays"))
        timezone = settings.timezone or self.process.timezone
        return Connection(org, name, NAME, enabled, timezone, settings.make_ready_days)

    def account_of(self, body: bytes) -> int | None:
        """Return the account that an unverified webhook body names; null if it names none."""
        return account_of(body)

    def _settings(self, configuration: Configuration) -> BuildiumSettings:
        if wrong := self.errors(configuration):
            raise SettingsError(f"{one.pointer}: {one.detail}" for one in wrong)
        return BuildiumSettings.of(configuration, allow_private=self.process.allow_private)


def _configuration(settings: BuildiumSettings) -> Configuration:
    """Return the settings of the environment as a configuration; its mode follows from the address."""
    mode = mode_of(settings.base_url) or IntegrationMode.PRODUCTION
    return replace(settings.configuration(), mode=mode)
