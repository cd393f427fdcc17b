"""``rentstream integrations``: what its words mean, what it prints, and one story on a real Kafka."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import JsonValue, SecretStr

from connectors.buildium.standin import DEMO_ID, DEMO_SECRET, BuildiumStandIn, seed_portfolio
from connectors.clock import SystemClock
from connectors.serving import running_aside
from schemas.integrations import (
    AccessLevel,
    CheckReport,
    CheckResult,
    CheckStatus,
    EntityAccess,
    IntegrationMode,
    IntegrationRole,
)
from streams.directory.model import IntegrationState, SecretState
from streams.roles import manage
from streams.roles.manage import ManageRefused
from streams.settings import RentStreamSettings
from tests.streams.directory.stage import Process, Stage
from tests.streams.roles.terminal import Terminal

AT = datetime(2026, 3, 1, 12, 30, 15, tzinfo=UTC)
URL = "https://rent.example"


def state(**more: Any) -> IntegrationState:
    facts: dict[str, Any] = {
        "org": "default",
        "name": "main",
        "system": "buildium",
        "role": IntegrationRole.SOURCE,
        "mode": IntegrationMode.SANDBOX,
        "enabled": True,
        "origin": "stored",
        "settings": {"timezone": "America/Edmonton", "makeReadyDays": 5},
        "secrets": (SecretState("clientSecret", AT, "4711", readable=True),),
        "webhook_path": "/api/webhooks/buildium/a-token",
        "access": (),
        "checks": None,
        "sync_state": "synced",
        "sync_detail": None,
        "last_ran": AT,
        "last_sweep": "20260301T120000Z",
        "last_status": "Success",
        "held_removals": 0,
        "hold": None,
        "properties_default": True,
        "properties_on": (),
        "properties_off": (),
        "version": 3,
    }
    return IntegrationState(**{**facts, **more})


# ----------------------------------------------------------------------------------------------------- what is entered


def test_an_assignment_is_a_name_and_a_text() -> None:
    """The text may be empty or hold further equals signs; of two for one name the last counts."""
    assert manage.assignments(["a=1", "b=", "c=x=y", "a=2"], "--set") == {"a": "2", "b": "", "c": "x=y"}
    assert manage.assignments([], "--set") == {}


@pytest.mark.parametrize("text", ["canary-secret", "=canary-secret", ""])
def test_what_is_no_assignment_is_refused_without_showing_it(text: str) -> None:
    """It may be a secret."""
    with pytest.raises(ManageRefused) as refused:
        manage.assignments([text], "--secret")
    assert str(refused.value) == "--secret needs the form NAME=VALUE"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("true", True),
        ("null", None),
        ('["a", 1]', ["a", 1]),
        ('{"a": 1}', {"a": 1}),
        ('"5"', "5"),
        ("America/Edmonton", "America/Edmonton"),
        ("https://pms.example/v1", "https://pms.example/v1"),
        ("0 2 * * *", "0 2 * * *"),
        ("", ""),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
    ],
)
def test_a_setting_is_json_where_it_can_be_and_else_text(text: str, value: JsonValue) -> None:
    assert manage.json_value(text) == value
    assert type(manage.json_value(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-03-01T12:30:15+00:00", AT),
        ("2026-03-01T12:30:15Z", AT),
        ("2026-03-01T05:30:15-07:00", AT),
        ("2026-03-01 12:30:15", AT),
        ("2026-03-01T12:30:15.000001Z", AT + timedelta(microseconds=1)),
        ("yesterday", None),
        ("", None),
    ],
)
def test_a_moment_is_a_time_with_its_zone_or_in_utc(text: str, at: datetime | None) -> None:
    assert manage.moment(text) == at


async def put(process: Process, name: str = "main", **more: Any) -> tuple[IntegrationState, bool]:
    given: dict[str, Any] = {
        "system": None,
        "mode": None,
        "changes": {},
        "unset": (),
        "secrets": {},
        "properties_default": None,
        "properties_on": None,
        "properties_off": None,
    }
    return await manage.put(process.service, "acme", name, **{**given, **more})


SECRETS = {"clientId": SecretStr("an-id"), "clientSecret": SecretStr("a-secret")}
NEW: dict[str, Any] = {"system": "pms", "changes": {"baseUrl": "https://pms.example/1"}, "secrets": SECRETS}


async def test_a_new_integration_needs_its_system_and_is_one_of_production() -> None:
    async with Stage().process() as process:
        with pytest.raises(ManageRefused, match="acme has no integration main: to create it, add its system"):
            await put(process, changes={"baseUrl": "https://pms.example/1"}, secrets=SECRETS)
        made, created = await put(process, **NEW)

    assert created
    assert (made.system, made.mode, made.enabled, made.version) == ("pms", "production", False, 1)


async def test_what_is_not_named_stays_as_it_is() -> None:
    """Settings, secrets, switches and the mode."""
    async with Stage().process() as process:
        await put(process, **NEW, mode="sandbox", properties_default=False, properties_on=(7, 8))
        changed, created = await put(process, changes={"timezone": "UTC", "makeReadyDays": 5})
        less, _ = await put(process, unset=("timezone", "unknown"), properties_default=True, properties_off=(9,))
        emptied, _ = await put(process, properties_on=())

    assert not created
    assert changed.settings == {"baseUrl": "https://pms.example/1", "timezone": "UTC", "makeReadyDays": 5}
    assert [one.name for one in changed.secrets] == ["clientId", "clientSecret"]
    assert (changed.mode, changed.properties_default, changed.properties_on) == ("sandbox", False, (7, 8))
    assert less.settings == {"baseUrl": "https://pms.example/1", "makeReadyDays": 5}
    assert (less.properties_default, less.properties_on, less.properties_off) == (True, (7, 8), (9,))
    assert (emptied.properties_on, emptied.properties_off) == ((), (9,))


# ----------------------------------------------------------------------------------------------------- what is printed


def test_the_table_has_a_line_for_each_integration() -> None:
    environment = state(
        name="rentsync",
        system="rentsync",
        mode=IntegrationMode.PRODUCTION,
        sync_state="active",
        last_ran=None,
        last_status=None,
        origin="environment",
    )

    assert manage.table([state(), environment]) == [
        "name      system    mode        state   last ran                  origin",
        "main      buildium  sandbox     synced  2026-03-01 12:30 Success  stored",
        "rentsync  rentsync  production  active  -                         environment",
    ]


def test_the_details_name_what_is_known_and_no_secret() -> None:
    lines = manage.details(
        state(
            enabled=False,
            sync_state="syncing",
            sync_detail="stage 2 of 4, units 100 of 250",
            hold="its key is lost",
            secrets=(
                SecretState("clientSecret", AT, "4711", readable=True),
                SecretState("webhookSecret", AT, None, readable=False),
            ),
            access=(EntityAccess(entity="listings", read=AccessLevel.DENIED),),
            properties_default=False,
            properties_on=(7, 8),
        ),
        URL,
    )

    assert lines == [
        "default/main: buildium, sandbox, disabled, version 3",
        "origin: stored",
        "state: syncing (stage 2 of 4, units 100 of 250)",
        "on hold: its key is lost",
        "last ran: 2026-03-01 12:30:15Z, Success",
        "URL for webhooks: https://rent.example/api/webhooks/buildium/a-token",
        "setting makeReadyDays = 5",
        'setting timezone = "America/Edmonton"',
        "secret clientSecret: set since 2026-03-01 12:30:15Z, ends with 4711",
        "secret webhookSecret: set since 2026-03-01 12:30:15Z, not readable with the present encryption keys",
        "properties: default off; on: 7, 8",
        "data access listings: read denied, create untested, update untested",
    ]


def test_the_details_leave_out_what_there_is_not() -> None:
    lines = manage.details(
        state(settings={}, secrets=(), webhook_path=None, last_ran=None, last_status=None, properties_off=(9,)),
        URL,
    )

    assert lines == [
        "default/main: buildium, sandbox, enabled, version 3",
        "origin: stored",
        "state: synced",
        "properties: default on; off: 9",
    ]


def test_a_check_is_printed_with_what_to_do_where_it_failed() -> None:
    def check(name: str, status: CheckStatus, fix: str | None = None, *, required: bool = True) -> CheckResult:
        return CheckResult(name=name, status=status, milliseconds=120, detail="found so", fix=fix, required=required)

    report = CheckReport(
        org="default",
        name="main",
        version=1,
        at=AT,
        passed=False,
        checks=(
            check("credentials", CheckStatus.PASSED, "not shown"),
            check("permission_leases", CheckStatus.FAILED, "Permit it."),
            check("permission_listings", CheckStatus.FAILED, required=False),
            check("clock", CheckStatus.SKIPPED),
        ),
    )

    assert manage.check_lines(report) == [
        "passed   credentials                    0.12 s  found so",
        "failed   permission_leases              0.12 s  found so",
        f"{'':48}fix: Permit it.",
        "warning  permission_listings            0.12 s  found so",
        "skipped  clock                          0.12 s  found so",
        "a required check failed: fix it and run the check again",
    ]
    assert manage.check_lines(report.model_copy(update={"passed": True, "checks": ()})) == [
        "every required check passed"
    ]


def test_data_is_what_the_api_returns() -> None:
    shown = manage.as_json(state(), URL)

    assert shown["webhookUrl"] == "https://rent.example/api/webhooks/buildium/a-token"
    assert shown["secrets"] == {
        "clientSecret": {
            "set": True,
            "last4": "4711",
            "since": "2026-03-01T12:30:15Z",
            "readable": True,
            "older": [],
        }
    }
    assert json.loads(json.dumps(shown)) == shown


@pytest.mark.parametrize(
    ("env", "url"),
    [
        ({"BUILDIUM_WEBHOOK_URL": "https://rent.example:8443/api/webhooks/buildium"}, "https://rent.example:8443"),
        ({"RENTSTREAM_HTTP": "0.0.0.0:3100"}, "http://127.0.0.1:3100"),
        ({}, "http://127.0.0.1:3000"),
    ],
)
def test_webhooks_go_to_where_the_web_role_is_reached(env: dict[str, str], url: str) -> None:
    assert manage.base_url(env, RentStreamSettings.read(env)) == url


def test_the_author_of_a_change_is_the_user_of_the_command_line() -> None:
    assert manage.author().startswith("cli")


# -------------------------------------------------------------------------------------------------- the command line


OTHER_SECRET = "another-client-secret"


def test_without_a_broker_a_command_names_the_reason_and_what_to_do(
    terminal: Terminal, caplog: pytest.LogCaptureFixture
) -> None:
    printed = terminal.integrations("list", expect=1)

    assert "the stored integrations cannot be read (the producer cannot start: KafkaConnectionError" in printed
    assert "check KAFKA_BOOTSTRAP_SERVERS" in printed
    assert "Traceback" not in printed + caplog.text


def test_wrong_words_are_wrong_use_and_show_no_secret(terminal: Terminal) -> None:
    """They end before a broker is asked."""
    for words in (
        ("put", "main", "--secret", "canary-secret"),
        ("put", "main", "--set", "canary-secret"),
        ("rotate-webhook-secret", "main", "--remove", "yesterday"),
        ("rotate-webhook-secret", "main", "--remove", "2026-03-01T12:00:00Z", "--secret", "canary-secret"),
    ):
        assert "needs the" in terminal.integrations(*words, expect=2)

    assert not any("canary" in one for one in terminal.outputs)
    assert "'7x' is not the id of a property" in terminal.integrations("put", "main", "--property-on", "7x", expect=2)


@pytest.mark.broker
def test_an_integration_from_its_creation_to_its_deletion(kafka: str, topic_prefix: str, terminal: Terminal) -> None:
    """Secrets come from standard input, and none is ever printed but the one that was made here, once."""
    webhook_secrets = ["a-first-webhook-secret", "a-second-webhook-secret"]
    terminal.env = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "RENTSTREAM_TOPIC_PREFIX": topic_prefix,
        "RENTSTREAM_PARTITIONS": "2",
        "RENTSTREAM_ALLOW_PRIVATE": "1",
    }
    terminal.run("topics", "--apply")
    assert terminal.exit_code == 0, terminal.outputs
    standin = BuildiumStandIn(seed_portfolio(SystemClock()))
    with running_aside(standin) as url:
        story(terminal, f"{url}/v1", webhook_secrets)
    shown = "\n".join(terminal.outputs)

    assert not any(secret in shown for secret in (DEMO_ID, DEMO_SECRET, *webhook_secrets, OTHER_SECRET))
    assert {call.method for call in standin.calls if call.status < 400} == {"GET"}


def story(terminal: Terminal, url: str, webhook_secrets: list[str]) -> None:
    secrets = [word for name in ("clientId", "clientSecret", "webhookSecret") for word in ("--secret", f"{name}=-")]
    settings = ("--set", f"baseUrl={url}", "--set", "makeReadyDays=5")
    nothing = terminal.integrations("list")
    missing = terminal.integrations("show", "main", expect=1)
    refused = terminal.integrations(
        "put",
        "main",
        "--system",
        "buildium",
        "--set",
        "baseUrl=x",
        *secrets[:4],
        typed=[DEMO_ID, "wrong\x7fcanary"],
        expect=2,
    )
    typed = [DEMO_ID, DEMO_SECRET, webhook_secrets[0]]
    created = terminal.integrations(
        "put", "main", "--system", "buildium", "--mode", "sandbox", *settings, *secrets, typed=typed
    )
    checked = terminal.integrations("check", "main")
    terminal.integrations("enable", "main")
    (listed,) = terminal.data("list")

    assert nothing == "default has no integrations\n"
    assert "default has no integration main" in missing
    assert "/settings/baseUrl" in refused
    assert "/secrets/clientSecret" in refused
    assert "canary" not in refused
    assert "created and disabled: run `integrations check main`" in created
    assert "default/main: buildium, sandbox, disabled, version 1" in created
    assert "every required check passed" in checked
    assert (listed["name"], listed["enabled"], listed["version"]) == ("main", True, 2)
    assert listed["settings"] == {"baseUrl": url, "makeReadyDays": 5}
    assert listed["dataAccess"]["listings"]["read"] == "ok"
    assert terminal.integrations("--org", "other", "list") == "other has no integrations\n"
    assert terminal.integrations("list", "--org", "other") == "other has no integrations\n"
    assert "other has no integration main" in terminal.integrations(
        "delete", "main", "--yes", "--org", "other", expect=1
    )

    terminal.integrations("rotate-webhook-secret", "main", "--secret", "-", typed=webhook_secrets[1:])
    rotated = terminal.integrations("rotate-webhook-secret", "main")
    made = rotated.rpartition("new webhook secret, shown only once: ")[2].strip()
    secret = terminal.data("show", "main")["secrets"]["webhookSecret"]
    oldest = secret["older"][-1]["since"]
    terminal.integrations("rotate-webhook-secret", "main", "--remove", oldest)
    left = terminal.data("show", "main")["secrets"]["webhookSecret"]

    assert len(made) > 30
    assert secret["last4"] == made[-4:]
    assert len(secret["older"]) == 2
    assert [one["since"] for one in left["older"]] == [secret["older"][0]["since"]]

    standin_key = terminal.integrations("put", "main", "--secret", "clientSecret=-", typed=[OTHER_SECRET])
    failed = terminal.integrations("check", "main", expect=1)
    disabled = terminal.integrations("disable", "main")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streams.cli.at_terminal", lambda: True)
        kept = terminal.integrations("delete", "main", typed=["n"], expect=1)
    still = terminal.data("show", "main")["enabled"]
    deleted = terminal.integrations("delete", "main")

    assert "created" not in standin_key
    assert "a required check failed" in failed
    assert ", disabled, version" in disabled
    assert "Aborted" in kept
    assert still is False
    assert deleted == "deleted default/main\n"
    assert terminal.data("list") == []
    assert sum(made in one for one in terminal.outputs) == 1
