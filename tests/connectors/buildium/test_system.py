"""Tests of Buildium as a system: validation of configurations, and the clients that it opens."""

import json
import random
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from connectors.buildium.signature import sign
from connectors.buildium.standin import DEMO_ID, DEMO_SECRET, BuildiumStandIn, seed_portfolio
from connectors.buildium.system import BuildiumSystem
from connectors.clock import SystemClock
from connectors.http import open_client
from connectors.ports import Configuration, Connection, Fetched, Field, LeasingRules, Refused, SourceSystem
from connectors.settings import ProcessSettings, SettingsError
from schemas.base import EntityKind
from schemas.integrations import CheckStatus, IntegrationMode, IntegrationRole
from schemas.pms import FetchRequest

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PRODUCTION = "https://api.buildium.com/v1"
Secrets = dict[str, tuple[SecretStr, ...]]
KEY: Secrets = {"clientId": (SecretStr("an-id"),), "clientSecret": (SecretStr("canary-secret"),)}
ENV = {"BUILDIUM_CLIENT_ID": "an-id", "BUILDIUM_CLIENT_SECRET": "canary-secret"}


def system(**env: str) -> BuildiumSystem:
    return BuildiumSystem(ProcessSettings.read(env), open_client)


def configuration(
    settings: dict[str, Any] | None = None,
    mode: IntegrationMode = IntegrationMode.PRODUCTION,
    secrets: Secrets | None = None,
    **more: tuple[SecretStr, ...],
) -> Configuration:
    return Configuration({"baseUrl": PRODUCTION, **(settings or {})}, {**KEY, **(secrets or {}), **more}, mode)


def errors(given: Configuration, **env: str) -> dict[str, str]:
    found = {one.pointer: one.detail for one in system(**env).errors(given)}
    assert "canary" not in str(found)
    return found


def test_it_is_a_source_with_a_title() -> None:
    row: SourceSystem = system()
    assert (row.name, row.title, row.role) == ("buildium", "Buildium", IntegrationRole.SOURCE)


def test_every_field_is_declared_once_for_the_environment_and_for_a_configuration() -> None:
    fields = {one.name: one for one in system().fields}
    assert list(fields) == [
        "clientId",
        "clientSecret",
        "baseUrl",
        "timezone",
        "makeReadyDays",
        "offer",
        "operatingBankAccountId",
        "retryAttempts",
        "retryDelay",
        "timeout",
        "webhookSecret",
    ]
    assert fields["timeout"] == Field(
        name="timeout",
        env="BUILDIUM_TIMEOUT",
        kind="setting",
        description="milliseconds that one call may take, 100-600000",
        default=30_000,
    )
    assert {name for name, one in fields.items() if one.kind == "secret"} == {
        "clientId",
        "clientSecret",
        "webhookSecret",
    }
    assert {name for name, one in fields.items() if one.required} == {"clientId", "clientSecret"}
    assert {name for name, one in fields.items() if one.several} == {"webhookSecret"}


def test_a_valid_configuration_has_no_errors() -> None:
    whole = {"timezone": "America/Edmonton", "makeReadyDays": 5, "retryAttempts": 1, "retryDelay": 0, "timeout": 100}
    assert errors(configuration(whole, webhookSecret=(SecretStr("a"), SecretStr("b")))) == {}


def test_every_invalid_field_is_reported() -> None:
    found = errors(
        Configuration(
            {
                "baseUrl": 7,
                "timezone": "Middle/Earth",
                "makeReadyDays": "5",
                "retryAttempts": True,
                "retryDelay": 1.5,
                "timeout": 1,
                "clientSecret": "canary",
                "colour/~": "canary",
                "offer": "nothing",
            },
            {"clientId": (SecretStr("canary canary"),), "token": (SecretStr("canary"),)},
        )
    )
    assert set(found) == {
        "/settings/baseUrl",
        "/settings/timezone",
        "/settings/makeReadyDays",
        "/settings/retryAttempts",
        "/settings/retryDelay",
        "/settings/timeout",
        "/settings/clientSecret",
        "/settings/colour~1~0",
        "/settings/offer",
        "/secrets/clientId",
        "/secrets/token",
        "/secrets/clientSecret",
    }
    assert found["/settings/baseUrl"].startswith("it must be text; allowed: a URL")
    assert found["/settings/timezone"].startswith("no such time zone; allowed: an IANA name")
    assert found["/settings/makeReadyDays"].startswith("it must be a whole number; allowed: ")
    assert found["/settings/retryAttempts"].startswith("it must be a whole number")
    assert found["/settings/timeout"].endswith("allowed: milliseconds that one call may take, 100-600000")
    assert found["/settings/clientSecret"] == "it belongs under secrets, not under settings"
    assert found["/settings/colour~1~0"].startswith("no such setting; there are: baseUrl, timezone, ")
    assert found["/settings/offer"].endswith("allowed: vacant or listed; the default is RENTSTREAM_OFFER")
    assert found["/secrets/token"] == "no such secret; there are: clientId, clientSecret, webhookSecret"
    assert found["/secrets/clientSecret"].startswith("it is required: the secret of that API key")


@pytest.mark.parametrize("value", [None, [], {}, 1.0])
def test_a_value_of_the_wrong_json_type_is_rejected(value: Any) -> None:
    assert set(errors(configuration({"baseUrl": value}))) == {"/settings/baseUrl"}


@pytest.mark.parametrize("blank", ["", " ", "\n"])
@pytest.mark.parametrize("name", ["clientId", "clientSecret", "webhookSecret"])
def test_a_blank_secret_is_rejected(name: str, blank: str) -> None:
    found = errors(configuration(secrets={name: (SecretStr(blank),)}))
    assert set(found) == {f"/secrets/{name}"}
    assert found[f"/secrets/{name}"].startswith("it is empty; allowed: ")


def test_only_webhook_secrets_may_be_several() -> None:
    two = (SecretStr("canary-1"), SecretStr("canary-2"))
    assert errors(configuration(webhookSecret=two)) == {}
    assert errors(configuration(clientId=two)) == {
        "/secrets/clientId": "only one value is possible; allowed: the client id of a Buildium API key "
        "(Settings > Developer Tools > API Keys)"
    }


@pytest.mark.parametrize(
    ("mode", "settings", "wrong"),
    [
        (IntegrationMode.PRODUCTION, {"baseUrl": PRODUCTION}, False),
        (IntegrationMode.SANDBOX, {"baseUrl": PRODUCTION}, True),
        (IntegrationMode.SANDBOX, {"baseUrl": "https://APISANDBOX.buildium.com/v1/"}, False),
        (IntegrationMode.SANDBOX, {}, False),
        (IntegrationMode.PRODUCTION, {}, True),
        (IntegrationMode.SANDBOX, {"baseUrl": "https://gateway.example.com/buildium/v1"}, False),
        (IntegrationMode.PRODUCTION, {"baseUrl": "https://gateway.example.com/buildium/v1"}, False),
    ],
)
def test_the_mode_has_to_match_the_base_url(mode: IntegrationMode, settings: dict[str, Any], wrong: bool) -> None:
    found = errors(Configuration(settings, KEY, mode))
    assert set(found) == ({"/mode"} if wrong else set())
    assert not wrong or found["/mode"].startswith(f"the mode is {mode}, but https://api")


def test_private_addresses_can_be_allowed() -> None:
    near = configuration({"baseUrl": "http://127.0.0.1:4010/v1"})
    assert "plain http is refused" in errors(near)["/settings/baseUrl"]
    assert errors(near, RENTSTREAM_ALLOW_PRIVATE="1") == {}


@pytest.mark.parametrize(
    "env",
    [
        {},
        {
            "BUILDIUM_SYNC_ENABLED": "true",
            "BUILDIUM_TIMEOUT": "1000",
            "BUILDIUM_RETRY_DELAY": "1",
            "BUILDIUM_RETRY_ATTEMPTS": "1",
            "RENTSTREAM_TIMEZONE": "America/Edmonton",
        },
        {"BUILDIUM_CLIENT_ID": " "},
    ],
)
def test_an_environment_without_account_settings_describes_none(env: dict[str, str]) -> None:
    assert system().environment(env) is None


def test_an_environment_describes_a_connection_as_a_configuration_does() -> None:
    described = system().environment(
        {
            **ENV,
            "BUILDIUM_WEBHOOK_SECRET": "new,old",
            "BUILDIUM_TIMEOUT": "1000",
            "BUILDIUM_MAKE_READY_DAYS": "3",
            "BUILDIUM_BASE_URL": PRODUCTION + "/",
        }
    )
    assert described == configuration(
        {"timeout": 1000, "makeReadyDays": 3}, webhookSecret=(SecretStr("new"), SecretStr("old"))
    )
    assert "canary" not in repr(described)
    assert errors(described) == {}


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("", IntegrationMode.SANDBOX),
        (PRODUCTION, IntegrationMode.PRODUCTION),
        ("https://gateway.example.com/v1", IntegrationMode.PRODUCTION),
    ],
)
def test_the_mode_of_an_environment_follows_from_its_base_url(url: str, mode: IntegrationMode) -> None:
    described = system().environment({**ENV, "BUILDIUM_BASE_URL": url})
    assert described is not None
    assert described.mode is mode
    assert errors(described) == {}


def test_an_incomplete_environment_is_rejected_with_a_line_for_each_setting() -> None:
    with pytest.raises(SettingsError) as refused:
        system().environment({"BUILDIUM_WEBHOOK_SECRET": "canary,", "BUILDIUM_TIMEOUT": "1"})
    assert [line.partition(":")[0] for line in refused.value.lines] == [
        "BUILDIUM_CLIENT_ID is not set",
        "BUILDIUM_CLIENT_SECRET is not set",
        "BUILDIUM_TIMEOUT = '1'",
    ]


def test_a_connection_has_the_properties_that_the_flows_need() -> None:
    row = system(RENTSTREAM_TIMEZONE="America/Edmonton")
    assert row.connection("o", "c", configuration(), enabled=True) == Connection(
        "o", "c", "buildium", enabled=True, timezone="America/Edmonton", rules=LeasingRules(make_ready_days=0)
    )
    own = configuration({"timezone": "Europe/Berlin", "makeReadyDays": 7})
    assert row.connection("o", "c", own, enabled=False) == Connection(
        "o", "c", "buildium", enabled=False, timezone="Europe/Berlin", rules=LeasingRules(make_ready_days=7)
    )
    without = system().connection("o", "c", configuration(), enabled=True)
    assert (without.timezone, without.timezone_is_default) == ("UTC", True)


def test_the_calendar_of_a_connection_is_known_although_it_cannot_be_called() -> None:
    """Its secrets cannot be decrypted, or its address is refused: the dates of its rent roll stay as they are."""
    unusable = configuration(
        {"timezone": "Europe/Berlin", "makeReadyDays": 7, "baseUrl": "x"}, clientId=(), clientSecret=()
    )
    assert system().connection("o", "c", unusable, enabled=False) == Connection(
        "o", "c", "buildium", enabled=False, timezone="Europe/Berlin", rules=LeasingRules(make_ready_days=7)
    )
    with pytest.raises(SettingsError, match="/settings/timezone"):
        system().connection("o", "c", configuration({"timezone": "Mars"}), enabled=True)


async def test_each_source_has_its_own_budget() -> None:
    """The ten calls a second of an account are not shared with another account."""
    opened = [system().open(configuration(), SystemClock(), random.Random(1)) for _ in range(2)]
    one, other = opened
    assert one.source is not other.source
    assert one.budget is not other.budget
    for each in opened:
        await each.source.aclose()


async def test_the_client_comes_from_the_process() -> None:
    """A test can replace the network by an app in the same process."""
    standin = BuildiumStandIn(seed_portfolio(SystemClock()))
    asked: list[str] = []

    def near(*, user_agent: str = "", **options: Any) -> httpx.AsyncClient:
        asked.append(user_agent)
        return open_client(user_agent=user_agent, transport=httpx.ASGITransport(standin), **options)

    row = BuildiumSystem(ProcessSettings.read({"RENTSYNC_USER_AGENT": "Ours/2"}), near)
    key = configuration(clientId=(SecretStr(DEMO_ID),), clientSecret=(SecretStr(DEMO_SECRET),))
    opened = row.open(key, SystemClock(), random.Random(1))
    fetched = await opened.source.fetch(EntityKind.PROPERTY, 1001)
    assert isinstance(fetched, Fetched), fetched
    assert asked == ["Ours/2"]
    assert opened.budget.used_ratio > 0
    await opened.source.aclose()


def test_an_invalid_configuration_is_not_opened() -> None:
    with pytest.raises(SettingsError) as refused:
        system().open(configuration({"baseUrl": "x"}, clientId=()), SystemClock(), random.Random(1))
    assert [line.partition(":")[0] for line in refused.value.lines] == ["/secrets/clientId", "/settings/baseUrl"]


async def test_the_check_of_an_invalid_configuration_reports_its_errors_without_a_call() -> None:
    checked = await system().check(configuration({"baseUrl": "x"}), SystemClock())
    (result,) = checked.checks
    assert (result.name, result.status) == ("settings", CheckStatus.FAILED)
    assert result.detail.startswith("/settings/baseUrl: it must be a full URL")
    assert result.fix


def test_a_webhook_is_read_with_the_secrets_of_its_connection() -> None:
    """The rest of the configuration may be invalid: a signed webhook is recorded, and handled later."""
    given = Configuration({"baseUrl": 7}, {"webhookSecret": (SecretStr("new"), SecretStr(" old\n"), SecretStr(" "))})
    reader = system().reader("o", "c", given, enabled=True)
    body = b'{"EventName":"Rental.Updated","AccountId":7,"PropertyId":1}'
    stamp = str(int(NOW.timestamp()))

    def signed(secret: str) -> FetchRequest | Refused:
        headers = [
            (b"buildium-webhook-timestamp", stamp.encode()),
            (b"buildium-webhook-signature", sign(body, stamp, SecretStr(secret)).encode()),
        ]
        return reader.read(headers, body, NOW)

    for secret in ("new", "old"):
        request = signed(secret)
        assert isinstance(request, FetchRequest)
        assert (request.org, request.connection) == ("o", "c")
    for secret in ("", " ", "other"):
        assert isinstance(signed(secret), Refused)


@pytest.mark.parametrize(
    ("body", "account"),
    [
        (b'{"AccountId":123456,"EventName":"x"}', 123_456),
        (b'{"AccountId":"123456"}', None),
        (b'{"AccountId":true}', None),
        (b'{"AccountId":-1}', None),
        (b'{"AccountId":1e400}', None),
        (b'{"AccountId":' + b"9" * 100_000 + b"}", None),
        (b"[" * 100_000, None),
        (b'[{"AccountId":1}]', None),
        (b"\xff\xfe", None),
        (b"", None),
        (json.dumps({"nested": {"AccountId": 5}}).encode(), None),
    ],
)
def test_the_account_of_an_unverified_body_is_read_safely(body: bytes, account: int | None) -> None:
    assert system().account_of(body) == account
