"""Tests of Buildium's settings and their error messages."""

import pytest

from connectors.buildium.settings import BuildiumSettings
from connectors.http import Patience
from connectors.settings import SettingsError

KEY = {"BUILDIUM_CLIENT_ID": "id-1", "BUILDIUM_CLIENT_SECRET": " canary-secret\n"}


def test_the_defaults_are_those_of_the_sandbox() -> None:
    settings = BuildiumSettings.read({})

    assert settings.base_url == "https://apisandbox.buildium.com/v1"
    assert (settings.client_id, settings.client_secret) == (None, None)
    assert settings.patience == Patience(attempts=3, delay_seconds=1.0, timeout=30.0)
    assert settings.sync_enabled
    assert settings.webhook_secrets == ()


def test_settings_are_read_from_the_environment() -> None:
    settings = BuildiumSettings.read(
        {
            **KEY,
            "BUILDIUM_BASE_URL": "https://api.buildium.com/v1/",
            "BUILDIUM_SYNC_ENABLED": "false",
            "BUILDIUM_RETRY_ATTEMPTS": "5",
            "BUILDIUM_RETRY_DELAY": "250",
            "BUILDIUM_TIMEOUT": "1500",
            "BUILDIUM_WEBHOOK_URL": "https://rent.example/api/webhooks/buildium",
        }
    )

    assert settings.client_secret
    assert settings.client_secret.get_secret_value() == "canary-secret"
    assert settings.base_url == "https://api.buildium.com/v1"
    assert settings.patience == Patience(5, 0.25, 1.5)
    assert not settings.sync_enabled


@pytest.mark.parametrize(
    ("value", "secrets"),
    [
        ("one", ["one"]),
        ("one,two", ["one", "two"]),
        (" one  two\n", ["one", "two"]),
        ("one, two,", ["one", "two"]),
        ("one,,two", ["one", "two"]),
    ],
)
def test_several_webhook_secrets_may_be_set_for_a_rotation(value: str, secrets: list[str]) -> None:
    settings = BuildiumSettings.read({"BUILDIUM_WEBHOOK_SECRET": value})

    assert [secret.get_secret_value() for secret in settings.webhook_secrets] == secrets


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"BUILDIUM_BASE_URL": "http://api.buildium.com/v1"}, "plain http is refused"),
        ({"BUILDIUM_BASE_URL": "https://127.0.0.1/v1"}, "private or local"),
        ({"BUILDIUM_BASE_URL": "https://api.buildium.com"}, "the version at its end is missing"),
        ({"BUILDIUM_BASE_URL": "api.buildium.com/v1"}, "full URL"),
        ({"BUILDIUM_RETRY_ATTEMPTS": "0"}, "1-20"),
        ({"BUILDIUM_RETRY_DELAY": "fast"}, "milliseconds"),
        ({"BUILDIUM_TIMEOUT": "30s"}, "milliseconds"),
        ({"BUILDIUM_SYNC_ENABLED": "perhaps"}, "true or false"),
        ({"BUILDIUM_TIMEZONE": "Middle/Earth"}, "no such time zone"),
        ({"BUILDIUM_MAKE_READY_DAYS": "366"}, "0-365"),
        ({"BUILDIUM_WEBHOOK_SECRET": ","}, "it contains no secret"),
        ({"BUILDIUM_WEBHOOK_SECRET": " , ,"}, "it contains no secret"),
        ({"BUILDIUM_CLIENT_SECRET": "canary\nsecret"}, "a secret, not shown"),
        ({"BUILDIUM_CLIENT_SECRET": "canary sécret"}, "header"),
    ],
)
def test_invalid_values_are_rejected_with_one_line_each(env: dict[str, str], expected: str) -> None:
    with pytest.raises(SettingsError) as refused:
        BuildiumSettings.read(env)

    (line,) = refused.value.lines
    assert line.startswith(f"{next(iter(env))} = ")
    assert expected in line
    assert "canary" not in line


def test_private_addresses_can_be_allowed() -> None:
    env = {"BUILDIUM_BASE_URL": "http://127.0.0.1:8080/v1", "RENTSTREAM_ALLOW_PRIVATE": "1"}

    assert BuildiumSettings.read(env).base_url == "http://127.0.0.1:8080/v1"


def test_no_repr_contains_a_secret() -> None:
    settings = BuildiumSettings.read({**KEY, "BUILDIUM_WEBHOOK_SECRET": "canary-1,canary-2"})

    assert "canary" not in repr(settings) + str(settings) + settings.model_dump_json()
