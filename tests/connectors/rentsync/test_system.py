"""Tests of RentSync as a system: validation of configurations, and the clients that it opens."""

from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from connectors.clock import SystemClock
from connectors.http import open_client
from connectors.ports import Accepted, Configuration, Schedule, SinkSystem
from connectors.rentsync.standin import PATH, RentSyncStandIn
from connectors.rentsync.system import RentSyncSystem
from connectors.settings import ProcessSettings, SettingsError
from schemas.integrations import CheckStatus, IntegrationRole
from tests.connectors.sink_suite import batch

URL = "https://api.rentsync.test" + PATH
Secrets = dict[str, tuple[SecretStr, ...]]
KEY: Secrets = {"apiKey": (SecretStr("canary-key"),)}


def system(**env: str) -> RentSyncSystem:
    return RentSyncSystem(ProcessSettings.read(env), open_client)


def errors(settings: dict[str, Any], secrets: Secrets, **env: str) -> dict[str, str]:
    found = {one.pointer: one.detail for one in system(**env).errors(Configuration(settings, secrets))}
    assert "canary" not in str(found)
    return found


def test_it_is_a_sink_with_a_title() -> None:
    row: SinkSystem = system()
    assert (row.name, row.title, row.role) == ("rentsync", "RentSync", IntegrationRole.SINK)


def test_its_fields_are_the_environment_settings_in_camel_case() -> None:
    fields = {one.name: one for one in system().fields}
    assert {name: one.env for name, one in fields.items()} == {
        "url": "RENTSYNC_URL",
        "auth": "RENTSYNC_AUTH",
        "apiKey": "RENTSYNC_API_KEY",
        "token": "RENTSYNC_TOKEN",
        "tokenHeader": "RENTSYNC_TOKEN_HEADER",
        "hmacSecret": "RENTSYNC_HMAC_SECRET",
        "oauthTokenUrl": "RENTSYNC_OAUTH_TOKEN_URL",
        "oauthClientId": "RENTSYNC_OAUTH_CLIENT_ID",
        "oauthClientSecret": "RENTSYNC_OAUTH_CLIENT_SECRET",
        "oauthScope": "RENTSYNC_OAUTH_SCOPE",
        "shape": "RENTSYNC_SHAPE",
        "batch": "RENTSYNC_BATCH",
        "updates": "RENTSYNC_UPDATES",
        "fields": "RENTSYNC_FIELDS",
        "removed": "RENTSYNC_REMOVED",
        "schedule": "RENTSYNC_SCHEDULE",
        "timezone": "RENTSYNC_TIMEZONE",
        "source": "RENTSYNC_SOURCE",
        "userAgent": "RENTSYNC_USER_AGENT",
    }
    assert {name for name, one in fields.items() if one.kind == "secret"} == {
        "apiKey",
        "token",
        "hmacSecret",
        "oauthClientSecret",
    }
    assert {name for name, one in fields.items() if one.required} == {"url"}
    assert (fields["url"].default, fields["shape"].default, fields["apiKey"].default) == (None, "property", None)


def test_url_and_key_suffice() -> None:
    assert errors({"url": URL}, KEY) == {}


def test_every_invalid_field_is_reported() -> None:
    found = errors(
        {
            "shape": "cube",
            "batch": 1,
            "removed": "burn",
            "send": "off",
            "source": " ",
            "timezone": "",
            "schedule": "0 2",
        },
        {"hmacSecret": (SecretStr("whsec_canary!"),), "wrong": (SecretStr("canary"),)},
    )
    assert {pointer: detail.partition(";")[0].partition(":")[0] for pointer, detail in found.items()} == {
        "/settings/url": "it is required",
        "/settings/shape": "no such choice",
        "/settings/batch": "it must be text",
        "/settings/removed": "no such choice",
        "/settings/send": "it is not available yet",
        "/settings/source": "string should match pattern '\\S'",
        "/settings/timezone": "no such time zone",
        "/settings/schedule": "it does not have five fields",
        "/secrets/hmacSecret": "what follows whsec_ is not base64",
        "/secrets/wrong": "no such secret",
        "/secrets/apiKey": "it is required",
    }


@pytest.mark.parametrize(
    ("cron", "problem"),
    {
        "0 2 * *": "it does not have five fields",
        "0 0 2 * * *": "it does not have five fields",
        "0 25 * * *": "bad hour",
        "0 2 30 2 *": "bad day-of-month",
        "0 2 29 2 MON#5": "",
        "@daily": "it does not have five fields",
        "*/15 6-22 * * MON-FRI": "",
    }.items(),
)
def test_a_schedule_has_five_fields_of_cron(cron: str, problem: str) -> None:
    found = errors({"url": URL, "schedule": cron}, KEY).get("/settings/schedule", "")

    assert found.partition(";")[0] == problem


def test_the_schedule_has_the_zone_of_the_receiver_or_that_of_the_process() -> None:
    rentsync = system(RENTSTREAM_TIMEZONE="America/Edmonton")
    stored = Configuration({"url": URL, "schedule": "30 4 * * *", "timezone": "Europe/Berlin"}, KEY)

    assert rentsync.schedule(Configuration({"url": URL}, KEY)) == Schedule("0 2 * * *", "America/Edmonton")
    assert rentsync.schedule(Configuration({"url": URL, "updates": "delta"}, KEY)) is None
    assert rentsync.schedule(stored) == Schedule("30 4 * * *", "Europe/Berlin")
    with pytest.raises(SettingsError, match="five fields"):
        rentsync.schedule(Configuration({"url": URL, "schedule": "never"}, KEY))


@pytest.mark.parametrize("key", ["", "  ", "two words", "schlüssel"])
def test_a_key_that_cannot_be_sent_is_refused(key: str) -> None:
    assert set(errors({"url": URL}, {"apiKey": (SecretStr(key),)})) == {"/secrets/apiKey"}


@pytest.mark.parametrize(
    "env", [{}, {"RENTSYNC_USER_AGENT": "Ours/2", "RENTSTREAM_TIMEZONE": "UTC"}, {"RENTSYNC_URL": ""}]
)
def test_an_environment_without_receiver_settings_describes_none(env: dict[str, str]) -> None:
    assert system().environment(env) is None


def test_an_environment_describes_a_receiver_as_a_configuration_does() -> None:
    described = system().environment(
        {"RENTSYNC_URL": URL, "RENTSYNC_API_KEY": "canary-key", "RENTSYNC_SHAPE": "property"}
    )
    assert described == Configuration({"url": URL, "shape": "property"}, KEY)
    assert "canary" not in repr(described)


def test_an_incomplete_environment_is_rejected_with_a_line_for_each_setting() -> None:
    with pytest.raises(SettingsError) as refused:
        system().environment({"RENTSYNC_SHAPE": "cube"})
    assert [line.partition(":")[0] for line in refused.value.lines] == [
        "RENTSYNC_URL is not set",
        "RENTSYNC_API_KEY is not set",
        "RENTSYNC_SHAPE = 'cube'",
    ]


async def test_a_sink_has_the_name_of_its_integration_and_the_client_of_the_process() -> None:
    receiver = RentSyncStandIn("canary-key", SystemClock())
    asked: list[str] = []

    def near(*, user_agent: str = "", **options: Any) -> httpx.AsyncClient:
        asked.append(user_agent)
        return open_client(user_agent=user_agent, transport=httpx.ASGITransport(receiver.app), **options)

    row = RentSyncSystem(ProcessSettings.read({"RENTSYNC_USER_AGENT": "Ours/2"}), near)
    for settings in ({"url": URL}, {"url": URL, "userAgent": "Theirs/3"}):
        sink = row.open("vacancies", Configuration(settings, KEY), SystemClock())
        assert sink.name == "vacancies"
        assert isinstance(await sink.deliver(batch()), Accepted)
        await sink.aclose()
    assert asked == ["Ours/2", "Theirs/3"]


def test_an_invalid_configuration_is_not_opened() -> None:
    with pytest.raises(SettingsError, match="/settings/url: it is required"):
        system().open("rentsync", Configuration({}, KEY), SystemClock())


async def test_the_check_of_an_invalid_configuration_reports_its_errors_without_a_call() -> None:
    (result,) = (await system().check(Configuration({}, KEY), SystemClock())).checks
    assert (result.name, result.status) == ("settings", CheckStatus.FAILED)
    assert result.detail.startswith("/settings/url: it is required: the full URL")
