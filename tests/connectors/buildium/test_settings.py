"""What Buildium needs, read from an environment, and refused in plain words."""

import pytest

from connectors.buildium.settings import BuildiumSettings
from connectors.http import Patience
from connectors.settings import SettingsError

KEY = {"BUILDIUM_CLIENT_ID": "id-1", "BUILDIUM_CLIENT_SECRET": " canary-secret\n"}


def test_without_anything_it_points_to_the_sandbox_and_says_what_is_missing() -> None:
    settings = BuildiumSettings.read({})

    assert settings.base_url == "https://apisandbox.buildium.com/v1"
    assert settings.missing == ("BUILDIUM_CLIENT_ID", "BUILDIUM_CLIENT_SECRET")
    assert settings.patience == Patience(attempts=3, delay_seconds=1.0, timeout=30.0)
    assert settings.sync_enabled
    assert settings.webhook_secrets == ()


def test_what_is_given_is_taken() -> None:
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

    assert settings.missing == ()
    assert settings.client_secret
    assert settings.client_secret.get_secret_value() == "canary-secret"
    assert settings.base_url == "https://api.buildium.com/v1"
    assert settings.patience == Patience(5, 0.25, 1.5)
    assert not settings.sync_enabled


@pytest.mark.parametrize(
    ("given", "secrets"),
    [
        ("one", ["one"]),
        ("one,two", ["one", "two"]),
        (" one  two\n", ["one", "two"]),
        ("one, two,", ["one", "two"]),
        ("one,,two", ["one", "two"]),
    ],
)
def test_several_webhook_secrets_hold_while_they_are_rotated(given: str, secrets: list[str]) -> None:
    settings = BuildiumSettings.read({"BUILDIUM_WEBHOOK_SECRET": given})

    assert [secret.get_secret_value() for secret in settings.webhook_secrets] == secrets


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"BUILDIUM_BASE_URL": "http://api.buildium.com/v1"}, "plain http is refused"),
        ({"BUILDIUM_BASE_URL": "https://127.0.0.1/v1"}, "private or local"),
        ({"BUILDIUM_BASE_URL": "https://api.buildium.com"}, "the version at its end is missing"),
        ({"BUILDIUM_BASE_URL": "api.buildium.com/v1"}, "full address"),
        ({"BUILDIUM_RETRY_ATTEMPTS": "0"}, "1-20"),
        ({"BUILDIUM_RETRY_DELAY": "fast"}, "milliseconds"),
        ({"BUILDIUM_TIMEOUT": "30s"}, "milliseconds"),
        ({"BUILDIUM_SYNC_ENABLED": "perhaps"}, "true or false"),
        ({"BUILDIUM_TIMEZONE": "Middle/Earth"}, "no such time zone"),
        ({"BUILDIUM_MAKE_READY_DAYS": "366"}, "0-365"),
        ({"BUILDIUM_WEBHOOK_SECRET": ","}, "it holds no secret"),
        ({"BUILDIUM_WEBHOOK_SECRET": " , ,"}, "it holds no secret"),
        ({"BUILDIUM_CLIENT_SECRET": "canary\nsecret"}, "a secret, not shown"),
        ({"BUILDIUM_CLIENT_SECRET": "canary sécret"}, "header"),
    ],
)
def test_bad_values_are_refused_with_one_line_each(env: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        BuildiumSettings.read(env)

    (line,) = refused.value.lines
    assert line.startswith(f"{next(iter(env))} = ")
    assert words in line
    assert "canary" not in line


def test_private_addresses_are_for_tests_and_the_demo() -> None:
    env = {"BUILDIUM_BASE_URL": "http://127.0.0.1:8080/v1", "RENTSTREAM_ALLOW_PRIVATE": "1"}

    assert BuildiumSettings.read(env).base_url == "http://127.0.0.1:8080/v1"


def test_no_secret_is_shown() -> None:
    settings = BuildiumSettings.read({**KEY, "BUILDIUM_WEBHOOK_SECRET": "canary-1,canary-2"})

    assert "canary" not in repr(settings) + str(settings) + settings.model_dump_json()
