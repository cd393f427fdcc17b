"""``rentstream check``: reads every setting, tries every connection, and reports what is wrong and what to do."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from connectors.registry import systems
from connectors.settings import SettingsError
from schemas.integrations import CheckReport, CheckStatus
from streams.directory.directory import ORG
from streams.directory.model import IntegrationError, IntegrationState
from streams.local.discovery import embedded_servers
from streams.roles import manage
from streams.roles.topics import TopicsFailed, compare_topics
from streams.settings import KafkaSettings, RentStreamSettings
from streams.view.database import Database, url_of

MARKS: Final = {True: "ok", False: "failed", None: "note"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about one thing."""

    name: str
    ok: bool | None
    """Null: nothing is wrong, but it is worth knowing."""
    detail: str
    fix: str | None = None


@dataclass(slots=True)
class Findings:
    """What was found out, in the order of the checks."""

    found: list[Finding] = field(default_factory=list)

    def add(self, name: str, ok: bool | None, detail: str, fix: str | None = None) -> None:
        self.found.append(Finding(name, ok, detail, fix))

    @property
    def is_well(self) -> bool:
        """Return whether nothing failed."""
        return all(one.ok is not False for one in self.found)


def run(env: Mapping[str, str]) -> Findings:
    """Check everything that the environment leads to."""
    findings = Findings()
    settings = _settings(findings, "settings", lambda: RentStreamSettings.read(env))
    kafka = _settings(findings, "Kafka settings", lambda: KafkaSettings.read(env))
    described = _settings(findings, "integrations of the environment", lambda: _described(env))
    if settings is not None:
        _database(findings, settings)
    if settings is None or kafka is None:
        return findings
    servers = kafka.bootstrap_servers or embedded_servers(settings.data)
    if servers is None:
        findings.add(
            "Kafka",
            False,
            f"KAFKA_BOOTSTRAP_SERVERS is not set, and no embedded Kafka runs under {settings.data}",
            "set KAFKA_BOOTSTRAP_SERVERS, or start `rentstream up`",
        )
        return findings
    kafka = kafka.model_copy(update={"bootstrap_servers": servers})
    asyncio.run(_connections(findings, env, settings, kafka, usable=described is not None))
    return findings


def _settings(findings: Findings, name: str, read: Callable[[], Any]) -> Any:
    """Return what is read, or null after a finding for each wrong line."""
    try:
        value = read()
    except SettingsError as error:
        for line in error.lines:
            findings.add(name, False, line, "correct it in the environment or in .env")
        return None
    findings.add(name, True, value if isinstance(value, str) else "every value can be used")
    return value


def _described(env: Mapping[str, str]) -> str:
    """Return which integrations the environment describes. Raise `SettingsError` with every wrong line of all."""
    names: list[str] = []
    lines: list[str] = []
    for name, system in systems(env).items():
        try:
            if system.environment(env) is not None:
                names.append(name)
        except SettingsError as error:
            lines += error.lines
    if lines:
        raise SettingsError(lines)
    return ", ".join(names) or "none; stored ones may exist"


def _database(findings: Findings, settings: RentStreamSettings) -> None:
    """Try the database of the query view, without a change in it."""
    name = "query view"
    try:
        database = Database(url_of(settings))
    except SettingsError as error:
        findings.add(name, False, error.lines[0], "correct DATABASE_URL in the environment or in .env")
        return
    file = database.url.database if database.url.get_backend_name() == "sqlite" else None
    try:
        if file is not None and not Path(file).exists():
            findings.add(name, None, f"{database.shown} is not there yet: the web role makes it")
            return
        with database.reading() as connection:
            connection.execute(sa.text("SELECT 1"))
        findings.add(name, True, f"{database.shown} answers")
    except sa.exc.SQLAlchemyError as error:
        findings.add(name, False, database.reason(error), "check DATABASE_URL, and whether the database runs")
    finally:
        database.close()


async def _connections(
    findings: Findings, env: Mapping[str, str], settings: RentStreamSettings, kafka: KafkaSettings, *, usable: bool
) -> None:
    try:
        report = await compare_topics(settings, kafka, create=False)
    except (TopicsFailed, SettingsError) as error:
        findings.add("Kafka", False, str(error), "check KAFKA_BOOTSTRAP_SERVERS and the KAFKA_* settings of security")
        return
    findings.add("Kafka", True, f"{kafka.bootstrap_servers} answers")
    for problem in report.problems:
        findings.add("topics", False, problem)
    if report.missing:
        findings.add("topics", False, f"{len(report.missing)} topics are missing", "run `rentstream topics --apply`")
    if not report.problems and not report.missing:
        findings.add("topics", True, report.summary.removeprefix("topics: "))
    for note in report.notes:
        findings.add("topics", None, note)
    if not usable or report.missing or report.problems:
        findings.add("integrations", None, "not tested before the rest is corrected")
        return
    try:
        await _integrations(findings, env, settings, kafka)
    except (manage.ManageFailed, SettingsError) as error:
        findings.add("integrations", False, str(error))


async def _integrations(
    findings: Findings, env: Mapping[str, str], settings: RentStreamSettings, kafka: KafkaSettings
) -> None:
    async with manage.service(env, settings, kafka) as service:
        states = [one for org in sorted({ORG, *await service.orgs()}) for one in await service.list(org)]
        if not states:
            findings.add(
                "integrations",
                False,
                "there are none",
                "set BUILDIUM_CLIENT_ID … and RENTSYNC_URL …, or run `rentstream integrations put`",
            )
        for state in states:
            name = f"{state.org}/{state.name}"
            if not state.enabled:
                findings.add(name, None, "disabled, so it is not tested", None)
                continue
            try:
                _report(findings, name, state, await service.check(state.org, state.name))
            except IntegrationError as error:
                findings.add(name, False, str(error))


def _report(findings: Findings, name: str, state: IntegrationState, report: CheckReport) -> None:
    if state.hold:
        findings.add(name, False, f"on hold: {state.hold}")
    wrong = [one for one in report.checks if one.status is CheckStatus.FAILED]
    for one in wrong:
        findings.add(f"{name} {one.name}", False if one.required else None, one.detail, one.fix)
    if report.passed and not state.hold:
        findings.add(name, True, f"{len(report.checks) - len(wrong)} of {len(report.checks)} checks passed")


# ------------------------------------------------------------------------------------------------------------ output


def as_json(findings: Findings) -> dict[str, Any]:
    """Return the findings for programs."""
    checks = [
        {"name": one.name, "result": MARKS[one.ok], "detail": one.detail, "fix": one.fix} for one in findings.found
    ]
    return {"ok": findings.is_well, "checks": checks}


def lines(findings: Findings) -> list[str]:
    """Return the findings for people: a line each, and one for what to do."""
    width = max((len(one.name) for one in findings.found), default=0)
    found = []
    for one in findings.found:
        found.append(f"{MARKS[one.ok]:7} {one.name:{width}}  {one.detail}")
        if one.fix and one.ok is not True:
            found.append(f"{'':7} {'':{width}}  fix: {one.fix}")
    found.append("all is well" if findings.is_well else "something failed: correct it and run the check again")
    return found
