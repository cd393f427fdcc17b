"""The environment of directory tests: processes with directory, follower and service, and a broker in memory."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue, SecretBytes, SecretStr

from connectors.ports import Configuration
from schemas.integrations import IntegrationMode
from streams.backends.memory import MemoryBackend, MemoryBroker, MovableClock, settle
from streams.directory.clients import Clients
from streams.directory.directory import TOPICS, Directory
from streams.directory.keyring import KeyRing
from streams.directory.model import PutIntegration
from streams.directory.service import Integrations
from streams.directory.writer import LogWriter
from streams.runners.global_ import Follow
from streams.settings import EncryptionKey
from tests.streams.directory.systems import FakePms, FakePortal

PARTITIONS = 4


def ring(*ids: str) -> KeyRing:
    """Return keys that are derived from their ids."""
    return KeyRing(EncryptionKey(one, SecretBytes(one.encode().ljust(32, b"."))) for one in ids)


class CountingIds:
    """Unique ids, which are the same in every run."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def token(self) -> str:
        return f"token-{self._random.randbytes(6).hex()}"

    def nonce(self) -> bytes:
        return self._random.randbytes(12)

    def secret(self) -> SecretStr:
        return SecretStr(f"made-{self._random.randbytes(6).hex()}")


@dataclass
class Process:
    """The parts of one process."""

    log: MemoryBackend
    clock: MovableClock
    pms: FakePms
    portal: FakePortal
    directory: Directory
    follower: Follow
    service: Integrations
    clients: Clients


@dataclass
class Stage:
    """The broker and its processes."""

    clock: MovableClock = field(default_factory=MovableClock)

    def __post_init__(self) -> None:
        self.broker = MemoryBroker(self.clock, PARTITIONS)

    @asynccontextmanager
    async def process(
        self,
        keys: KeyRing | None = None,
        environment: Mapping[str, Configuration] | None = None,
        *,
        environment_enabled: bool = True,
        without: str = "",
        seed: int = 0,
    ) -> AsyncIterator[Process]:
        """Run a process in the context; it has read everything when the context is entered."""
        log = MemoryBackend(self.broker)
        pms, portal = FakePms(), FakePortal()
        systems = {one.name: one for one in (pms, portal) if one.name != without}
        keys = keys or ring("k1")
        directory = Directory(systems, environment or {}, environment_enabled, keys)
        follower = Follow(log, TOPICS, directory, self.clock)
        writer = LogWriter(log.producer(), PARTITIONS)
        service = Integrations(directory, follower, writer, keys, systems, self.clock, CountingIds(seed))
        clients = Clients(directory, self.clock, random.Random(1))
        running = asyncio.create_task(follower.run())
        await follower.caught_up()
        try:
            yield Process(log, self.clock, pms, portal, directory, follower, service, clients)
        finally:
            await clients.aclose()
            await follower.stop()
            await running
            await settle()


def pms_body(
    secret: str | None = "pms-secret-4711",
    *,
    settings: Mapping[str, JsonValue] | None = None,
    secrets: Mapping[str, SecretStr | tuple[SecretStr, ...] | None] | None = None,
    **more: Any,
) -> PutIntegration:
    """Return a PUT of the property management system."""
    given: dict[str, SecretStr | tuple[SecretStr, ...] | None] = {}
    if secret is not None:
        given = {"clientId": SecretStr("pms-id"), "clientSecret": SecretStr(secret)}
    return PutIntegration(
        system="pms",
        mode=IntegrationMode.SANDBOX,
        settings={"baseUrl": "https://pms.example/77", "timezone": "America/Toronto"} if settings is None else settings,
        secrets={**given, **(secrets or {})},
        **more,
    )


def portal_body(key: str = "portal-key-0815", url: str = "https://portal.example/in", **more: Any) -> PutIntegration:
    """Return a PUT of the receiver."""
    return PutIntegration(
        system="portal",
        mode=IntegrationMode.PRODUCTION,
        settings={"url": url},
        secrets={"apiKey": SecretStr(key)},
        **more,
    )
