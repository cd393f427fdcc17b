"""The parts of integrations that roles share: systems, keys, the directory with its follower, and the service."""

from collections.abc import Mapping
from dataclasses import dataclass

from connectors.http import OpenClient, open_client
from connectors.ports import Clock, Configuration, SinkSystem, SourceSystem
from connectors.registry import environment_enabled, systems
from streams import topology
from streams.backends.clients import client_options
from streams.backends.kafka import KafkaBackend, KafkaBackendSettings
from streams.backends.ports import Backend
from streams.directory.directory import Directory
from streams.directory.keyring import KeyRing
from streams.directory.service import Integrations, RandomIds, Writer
from streams.local.kept_secrets import encryption_keys
from streams.runners.global_ import Follow
from streams.settings import KafkaSettings, RentStreamSettings

FOLLOWED = tuple(topic.name for topic in topology.flow("follow_integrations").reads)
"""The topics of the global flow."""


@dataclass(frozen=True, slots=True)
class Known:
    """The integrations of a process, which are read while ``follower`` runs."""

    systems: Mapping[str, SourceSystem | SinkSystem]
    keyring: KeyRing
    directory: Directory
    follower: Follow

    def service(self, writer: Writer, clock: Clock) -> Integrations:
        """Return the service that changes integrations through ``writer``."""
        return Integrations(self.directory, self.follower, writer, self.keyring, self.systems, clock, RandomIds())


def known(
    env: Mapping[str, str],
    settings: RentStreamSettings,
    backend: Backend,
    clock: Clock,
    open_client: OpenClient = open_client,
) -> Known:
    """Return the integrations of a process, which reads the stored ones from ``backend``.

    ``open_client`` creates their HTTP clients. Raise `connectors.settings.SettingsError` if the environment describes
    an integration that cannot be used, or if an encryption key is invalid.
    """
    table = systems(env, open_client)
    described: dict[str, Configuration] = {}
    enabled = True
    for name, system in table.items():
        configuration = system.environment(env)
        if configuration is not None:
            described[name] = configuration
            enabled = enabled and environment_enabled(env, name)
    keyring = KeyRing(encryption_keys(settings))
    directory = Directory(table, described, environment_enabled=enabled, keyring=keyring, started_at=clock.now())
    return Known(table, keyring, directory, Follow(backend, FOLLOWED, directory, clock))


def kafka_backend(settings: RentStreamSettings, kafka: KafkaSettings, client: str) -> KafkaBackend:
    """Return the backend of a role; ``client`` is part of its client id.

    Raise `connectors.settings.SettingsError` if the CA certificate cannot be read.
    """
    assert kafka.bootstrap_servers is not None
    return KafkaBackend(
        KafkaBackendSettings(
            bootstrap_servers=kafka.bootstrap_servers,
            prefix=settings.prefix,
            security=client_options(kafka),
            client_id=f"{settings.prefix}{client}",
            session_timeout=settings.session_timeout,
        )
    )
