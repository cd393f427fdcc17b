"""Clients of integrations: opened on first use, replaced when the configuration changes, closed after the last call.

A caller holds a lease for as long as its call takes. A client whose configuration has changed gets no new leases and is
closed once its last lease has ended.
"""

import asyncio
import hashlib
import hmac
import json
import logging
import random as randomness
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from connectors.ports import Clock, Configuration, ListingSink, PropertyGateway, PropertySource, UsesBudget
from connectors.settings import SettingsError
from schemas.integrations import IntegrationRole
from streams.directory.directory import Directory
from streams.directory.entry import Entry, Problem, ProblemKind, as_sink, as_source

log = logging.getLogger("streams.directory")


class Closes(Protocol):
    """Something that was opened."""

    async def aclose(self) -> None: ...


C = TypeVar("C", bound=Closes)


@dataclass(slots=True, eq=False)
class _Opened(Generic[C]):
    """A client, and who uses it."""

    client: C
    budget: UsesBudget | None
    entry: Entry
    digest: bytes
    gateway: PropertyGateway | None = None
    """Of a source."""
    leases: int = 0
    retired: bool = False


T = TypeVar("T")


def _as_it_is(client: T) -> T:
    return client


class Clients:
    """The clients of one process, one for each integration that is in use."""

    def __init__(
        self,
        directory: Directory,
        clock: Clock,
        random: randomness.Random,
        *,
        source_wrapper: Callable[[PropertySource], PropertySource] = _as_it_is,
        gateway_wrapper: Callable[[PropertyGateway], PropertyGateway] = _as_it_is,
        sink_wrapper: Callable[[ListingSink], ListingSink] = _as_it_is,
    ) -> None:
        """Open nothing yet; the wrappers are put around what is opened, to measure it."""
        self._source_wrapper = source_wrapper
        self._gateway_wrapper = gateway_wrapper
        self._sink_wrapper = sink_wrapper
        self._directory = directory
        self._systems = directory.systems
        self._clock = clock
        self._random = random
        self._digest_key: Final = secrets.token_bytes(32)
        """Of this process only: without it a digest would allow to test guesses of a secret."""
        self._sources: dict[tuple[str, str], _Opened[PropertySource]] = {}
        self._sinks: dict[tuple[str, str], _Opened[ListingSink]] = {}
        self._retired: set[_Opened[Any]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._all_closed = asyncio.Event()
        self._seen = directory.configured
        self._closed = False

    @asynccontextmanager
    async def source(self, org: str, name: str) -> AsyncIterator[PropertySource | Problem]:
        """Yield the source of a connection, which stays open in the context, or the reason why there is none."""
        found = self._lease(self._sources, org, name, IntegrationRole.SOURCE, self._open_source)
        if isinstance(found, Problem):
            yield found
            return
        try:
            yield found.client
        finally:
            self._end(found)

    @asynccontextmanager
    async def gateway(self, org: str, name: str) -> AsyncIterator[PropertyGateway | Problem]:
        """Yield the gateway of a connection, which stays open in the context, or the reason why there is none."""
        found = self._lease(self._sources, org, name, IntegrationRole.SOURCE, self._open_source)
        if isinstance(found, Problem):
            yield found
            return
        assert found.gateway is not None
        try:
            yield found.gateway
        finally:
            self._end(found)

    @asynccontextmanager
    async def sink(self, org: str, name: str) -> AsyncIterator[ListingSink | Problem]:
        """Yield a receiver, which stays open in the context, or the reason why there is none."""
        found = self._lease(self._sinks, org, name, IntegrationRole.SINK, self._open_sink)
        if isinstance(found, Problem):
            yield found
            return
        try:
            yield found.client
        finally:
            self._end(found)

    def version(self, org: str, name: str) -> int:
        """Return the version of an integration's configuration; 0 if the environment describes it, or if it is gone."""
        entry = self._directory.get(org, name)
        return entry.version if entry else 0

    def taken_over(self, is_new: Callable[[str], bool]) -> None:
        """Begin with a full API budget for the orgs that were taken over: another process may have used it up."""
        for (org, _), one in self._sources.items():
            if one.budget is not None and is_new(org):
                one.budget.taken_over()

    def used_ratios(self) -> dict[str, float]:
        """Return the largest used part of an API budget, by system. May be called on any thread: it changes nothing."""
        ratios: dict[str, float] = {}
        for key, one in list(self._sources.items()):
            if one.budget is not None and self._directory.get(*key) is not None:
                system = one.entry.system
                ratios[system] = max(ratios.get(system, 0.0), one.budget.used_ratio)
        return ratios

    async def aclose(self) -> None:
        """Open nothing more; return when every client is closed. Calls in flight end first."""
        self._closed = True
        for opened in (self._sources, self._sinks):
            for key in list(opened):
                self._retire(opened.pop(key))
        while self._retired or self._closing:
            self._all_closed.clear()
            await self._all_closed.wait()

    # --------------------------------------------------------------------------------------------------------- leases

    def _lease(
        self,
        opened: dict[tuple[str, str], _Opened[C]],
        org: str,
        name: str,
        role: IntegrationRole,
        open_: Callable[[Entry, bytes], _Opened[C] | Problem],
    ) -> _Opened[C] | Problem:
        self._refresh()
        entry = self._directory.get(org, name)
        problem = self._problem(entry, org, name, role)
        if problem is not None or entry is None:
            return problem or _unknown(org, name)
        found = opened.get((org, name))
        if found is None:
            made = self._opened(entry, open_)
            if isinstance(made, Problem):
                return made
            found = opened[org, name] = made
        found.leases += 1
        return found

    def _problem(self, entry: Entry | None, org: str, name: str, role: IntegrationRole) -> Problem | None:
        if self._closed:
            return Problem(ProblemKind.CLOSED, "the process ends")
        if entry is None:
            return _unknown(org, name)
        if entry.role is not role and entry.role is not IntegrationRole.UNKNOWN:
            detail = f"{org}/{name} is a {entry.role}, not a {role}: name another integration"
            return Problem(ProblemKind.WRONG_ROLE, detail)
        if not entry.enabled:
            return Problem(ProblemKind.DISABLED, f"{org}/{name} is disabled: enable it to go on")
        return entry.problem

    def _opened(self, entry: Entry, open_: Callable[[Entry, bytes], _Opened[C] | Problem]) -> _Opened[C] | Problem:
        """Open a client; what goes wrong concerns this integration only."""
        try:
            return open_(entry, self._digest(entry.configuration))
        except SettingsError as error:
            detail = f"{entry.org}/{entry.name} cannot be opened: {'; '.join(error.lines)}; correct and put it again"
            return Problem(ProblemKind.INVALID, detail)
        except Exception as error:  # its text may hold a secret
            log.warning("%s/%s cannot be opened (%s)", entry.org, entry.name, type(error).__name__)
            detail = f"{entry.org}/{entry.name} cannot be opened ({type(error).__name__}): put it again, or upgrade"
            return Problem(ProblemKind.INVALID, detail)

    def _open_source(self, entry: Entry, digest: bytes) -> _Opened[PropertySource] | Problem:
        system = as_source(self._systems.get(entry.system))
        if system is None:
            return _no_connector(entry)
        opened = system.open(entry.configuration, self._clock, self._random)
        opened.budget.taken_over()  # another process, or the former client, may have used it up
        source, gateway = self._source_wrapper(opened.source), self._gateway_wrapper(opened.gateway)
        return _Opened(source, opened.budget, entry, digest, gateway)

    def _open_sink(self, entry: Entry, digest: bytes) -> _Opened[ListingSink] | Problem:
        system = as_sink(self._systems.get(entry.system))
        if system is None:
            return _no_connector(entry)
        sink = self._sink_wrapper(system.open(entry.name, entry.configuration, self._clock))
        return _Opened(sink, None, entry, digest)

    def _end(self, opened: _Opened[Any]) -> None:
        opened.leases -= 1
        if opened.retired and not opened.leases:
            self._close(opened)

    # ----------------------------------------------------------------------------------------------- what has changed

    def _refresh(self) -> None:
        """Close the clients whose configuration has changed or was deleted, once they are not in use."""
        if self._seen == self._directory.configured:
            return
        self._seen = self._directory.configured
        self._refresh_all(self._sources)
        self._refresh_all(self._sinks)

    def _refresh_all(self, opened: dict[tuple[str, str], _Opened[C]]) -> None:
        for key, one in list(opened.items()):
            entry = self._directory.get(*key)
            if entry is one.entry:
                continue
            same_system = entry is not None and entry.system == one.entry.system
            usable = entry is not None and entry.enabled and entry.problem is None and same_system
            if entry is not None and usable and hmac.compare_digest(self._digest(entry.configuration), one.digest):
                one.entry = entry
            else:
                self._retire(opened.pop(key))

    def _retire(self, opened: _Opened[Any]) -> None:
        opened.retired = True
        self._retired.add(opened)
        if not opened.leases:
            self._close(opened)

    def _close(self, opened: _Opened[Any]) -> None:
        self._retired.discard(opened)
        task = asyncio.create_task(self._aclose(opened))
        self._closing.add(task)
        task.add_done_callback(self._has_closed)

    async def _aclose(self, opened: _Opened[Any]) -> None:
        try:
            await opened.client.aclose()
        except Exception as error:
            log.warning("A client of %s did not close (%s)", opened.entry.system, type(error).__name__)

    def _has_closed(self, task: "asyncio.Task[None]") -> None:
        self._closing.discard(task)
        self._all_closed.set()

    def _digest(self, configuration: Configuration) -> bytes:
        facts = {
            "mode": configuration.mode,
            "settings": dict(configuration.settings),
            "secrets": {
                name: [one.get_secret_value() for one in several] for name, several in configuration.secrets.items()
            },
        }
        return hmac.digest(self._digest_key, json.dumps(facts, sort_keys=True).encode(), hashlib.sha256)


def _unknown(org: str, name: str) -> Problem:
    return Problem(ProblemKind.UNKNOWN, f"{org} has no integration {name} (any more): create it, or name another")


def _no_connector(entry: Entry) -> Problem:
    detail = f"this release has no system {entry.system!r} that is a {entry.role}: upgrade RentStream"
    return Problem(ProblemKind.UNKNOWN_SYSTEM, detail)
