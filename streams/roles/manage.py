"""``rentstream integrations``: the stored integrations on the command line, over the same service as the API."""

import asyncio
import getpass
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import JsonValue, SecretStr

from connectors.clock import SystemClock
from connectors.registry import webhook_url
from schemas.integrations import CheckReport, CheckStatus, IntegrationMode
from streams.backends.ports import BackendError
from streams.directory.model import IntegrationError, IntegrationState, Invalid, NotFound, PutIntegration
from streams.directory.service import Integrations
from streams.directory.writer import LogWriter
from streams.roles.integrations import kafka_backend, known
from streams.runners.global_ import within
from streams.settings import KafkaSettings, RentStreamSettings
from streams.web.api.models import CheckOutcome, Integration

T = TypeVar("T")

READ_WITHIN = 30.0
"""Seconds that reading the stored integrations may take."""


class ManageFailed(RuntimeError):  # noqa: N818
    """The command failed; the text is a sentence with the reason and what to do."""


class ManageRefused(ManageFailed):
    """What was asked for is not valid; each line names one field."""


@asynccontextmanager
async def service(
    env: Mapping[str, str], settings: RentStreamSettings, kafka: KafkaSettings
) -> AsyncIterator[Integrations]:
    """Yield the service once all stored integrations are read.

    Raise `ManageFailed`, and `connectors.settings.SettingsError` if the environment cannot be used.
    """
    clock = SystemClock()
    backend = kafka_backend(settings, kafka, "integrations")
    integrations = known(env, settings, backend, clock)
    producer = backend.producer()
    following = asyncio.create_task(integrations.follower.run())
    try:
        try:
            await within(clock, producer.start(), READ_WITHIN)
            await within(clock, integrations.follower.caught_up(), READ_WITHIN)
        except (TimeoutError, BackendError) as error:
            reason = str(error) or integrations.follower.trouble or f"not read within {READ_WITHIN:g} s"
            raise ManageFailed(
                f"the stored integrations cannot be read ({reason}): look at KAFKA_BOOTSTRAP_SERVERS, and make missing "
                "topics with `rentstream topics --apply`"
            ) from None
        yield integrations.service(LogWriter(producer, settings.partitions), clock)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await producer.stop()


def run(
    env: Mapping[str, str],
    settings: RentStreamSettings,
    kafka: KafkaSettings,
    action: Callable[[Integrations], Awaitable[T]],
) -> T:
    """Run one action and return its result. Raise `ManageFailed` and `connectors.settings.SettingsError`."""

    async def whole() -> T:
        async with service(env, settings, kafka) as integrations:
            return await action(integrations)

    try:
        return asyncio.run(whole())
    except Invalid as error:
        lines = "\n  ".join(f"{one.pointer}: {one.detail}" for one in error.errors)
        raise ManageRefused(f"the integration is not valid:\n  {lines}") from None
    except IntegrationError as error:
        raise ManageFailed(str(error)) from None


def author() -> str:
    """Return who runs the command, for the history of changes."""
    try:
        return f"cli:{getpass.getuser()}"
    except OSError:  # a container may have no user of this id
        return "cli"


async def put(
    integrations: Integrations,
    org: str,
    name: str,
    *,
    system: str | None,
    mode: str | None,
    changes: Mapping[str, JsonValue],
    unset: Sequence[str],
    secrets: Mapping[str, SecretStr | tuple[SecretStr, ...] | None],
    properties_default: bool | None,
    properties_on: Sequence[int],
    properties_off: Sequence[int],
) -> tuple[IntegrationState, bool]:
    """Create an integration, or change the settings that are named; return its state and whether it is new.

    Raise `ManageRefused` if ``system`` is needed and not given.
    """
    try:
        current: IntegrationState | None = await integrations.get(org, name)
    except NotFound:
        current = None
    if current is None and system is None:
        raise ManageRefused(f"{org} has no integration {name}: name its system to create it, such as --system buildium")
    settings = {**(current.settings if current else {}), **changes}
    body = PutIntegration(
        system=system or (current.system if current else ""),
        mode=IntegrationMode(mode) if mode else current.mode if current else IntegrationMode.PRODUCTION,
        settings={key: value for key, value in settings.items() if key not in unset},
        secrets=secrets,
        properties_default=properties_default,
        properties_on=tuple(properties_on) or None,
        properties_off=tuple(properties_off) or None,
    )
    return await integrations.put(org, name, body, author())


def assignments(texts: Sequence[str], option: str) -> dict[str, str]:
    """Return ``name=value`` texts as a mapping. Raise `ManageRefused`; its text names no value."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ManageRefused(f"{option} takes NAME=VALUE")
        found[name] = value
    return found


def json_value(text: str) -> JsonValue:
    """Return a setting's value: JSON where the text is a number, true, false, null, a list or an object; else text."""
    try:
        value: JsonValue = json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text
    return value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON, although Python reads it")


def moment(text: str) -> datetime | None:
    """Return a time as ISO 8601 writes it, UTC where it names no zone; null if it is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


# ------------------------------------------------------------------------------------------------------------ output


def base_url(env: Mapping[str, str], settings: RentStreamSettings) -> str:
    """Return where the web role is reached: from outside if the environment names it, else on this machine."""
    if url := webhook_url(env):
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc}"
    return f"http://127.0.0.1:{settings.http.rsplit(':', 1)[1]}"


def as_json(state: IntegrationState, url: str) -> dict[str, Any]:
    """Return an integration as the API shows it."""
    return Integration.of(state, url).model_dump(mode="json", by_alias=True)


def check_as_json(report: CheckReport) -> dict[str, Any]:
    """Return a connection test as the API shows it."""
    return CheckOutcome.of(report).model_dump(mode="json", by_alias=True)


def table(states: Sequence[IntegrationState]) -> list[str]:
    """Return one line for each integration, under a header."""
    rows = [("name", "system", "mode", "state", "last ran", "origin")]
    rows += [
        (
            one.name,
            one.system,
            one.mode.value,
            one.sync_state,
            f"{one.last_ran:%Y-%m-%d %H:%M} {one.last_status}" if one.last_ran else "-",
            one.origin,
        )
        for one in states
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def details(state: IntegrationState, url: str) -> list[str]:
    """Return what is known of one integration, a line each."""
    enabled = "enabled" if state.enabled else "disabled"
    lines = [
        f"{state.org}/{state.name}: {state.system}, {state.mode.value}, {enabled}, version {state.version}",
        f"origin: {state.origin}",
        f"state: {state.sync_state}" + (f" ({state.sync_detail})" if state.sync_detail else ""),
    ]
    if state.hold:
        lines.append(f"on hold: {state.hold}")
    if state.last_ran:
        lines.append(f"last ran: {state.last_ran:%Y-%m-%d %H:%M:%S}Z, {state.last_status}")
    if state.webhook_path:
        lines.append(f"webhooks go to: {url}{state.webhook_path}")
    lines += [f"setting {name} = {json.dumps(value)}" for name, value in sorted(state.settings.items())]
    lines += [
        f"secret {one.name}: set since {one.since:%Y-%m-%d %H:%M:%S}Z"
        + (f", ends with {one.last4}" if one.last4 else "")
        + ("" if one.readable else ", not readable with the present encryption keys")
        for one in state.secrets
    ]
    switches = [f"default {'on' if state.properties_default else 'off'}"]
    switches += [f"{word} {', '.join(map(str, ids))}" for word, ids in _switched(state) if ids]
    lines.append(f"properties: {'; '.join(switches)}")
    lines += [
        f"data access {one.entity}: read {one.read}, create {one.create}, update {one.update}" for one in state.access
    ]
    return lines


def _switched(state: IntegrationState) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return (("on:", state.properties_on), ("off:", state.properties_off))


def check_lines(report: CheckReport) -> list[str]:
    """Return one line for each check, and what to do where one failed."""
    lines: list[str] = []
    for one in report.checks:
        mark = _mark(one.status, required=one.required)
        lines.append(f"{mark:8} {one.name:28} {one.milliseconds / 1000:6.2f} s  {one.detail}")
        if one.fix and one.status is CheckStatus.FAILED:
            lines.append(f"{'':8} {'':28} {'':8}  to do: {one.fix}")
    lines.append(
        "all that is required is well" if report.passed else "a required check failed: correct it and check again"
    )
    return lines


def _mark(status: CheckStatus, *, required: bool) -> str:
    if status is CheckStatus.FAILED:
        return "failed" if required else "warning"
    return status.value
