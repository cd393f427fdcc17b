"""Tests of the registry of systems, and of the settings that the environment has to contain."""

import pytest

from connectors.registry import environment_enabled, missing, systems, webhook_url
from connectors.settings import SettingsError
from schemas.integrations import IntegrationRole

COMPLETE = {
    "BUILDIUM_CLIENT_ID": "id",
    "BUILDIUM_CLIENT_SECRET": "a-secret",
    "BUILDIUM_WEBHOOK_SECRET": "another",
    "RENTSYNC_URL": "https://api.rentsync.test/v1/rent-roll/sync",
    "RENTSYNC_API_KEY": "a-key",
}


def names(env: dict[str, str]) -> list[str]:
    return sorted(line.split()[0] for line in missing(env))


def test_nothing_is_missing_in_a_complete_environment() -> None:
    assert not missing(COMPLETE)


def test_every_missing_setting_is_reported_at_once() -> None:
    assert names({}) == sorted(COMPLETE)


@pytest.mark.parametrize("name", COMPLETE)
def test_a_missing_setting_is_reported_by_its_name(name: str) -> None:
    (line,) = missing(COMPLETE | {name: ""})
    assert line.startswith(f"{name} is not set: ")


@pytest.mark.parametrize(("env", "unset"), [({}, COMPLETE), (COMPLETE, {})])
def test_an_invalid_setting_of_the_process_is_reported_once(env: dict[str, str], unset: dict[str, str]) -> None:
    invalid = {"RENTSTREAM_ALLOW_PRIVATE": "x", "RENTSTREAM_TIMEZONE": "x", "RENTSYNC_USER_AGENT": "\x7f"}
    assert names(env | invalid) == sorted([*invalid, *unset])


def test_a_blank_webhook_secret_is_reported() -> None:
    """A webhook that is signed with an empty key must not be accepted."""
    (line,) = missing(COMPLETE | {"BUILDIUM_WEBHOOK_SECRET": ","})
    assert line.startswith("BUILDIUM_WEBHOOK_SECRET = a secret, not shown: it contains no secret")


def test_the_environment_can_disable_its_connection_to_buildium() -> None:
    assert not environment_enabled({"BUILDIUM_SYNC_ENABLED": "false"}, "buildium")
    assert environment_enabled({"BUILDIUM_SYNC_ENABLED": "false"}, "rentsync")
    assert environment_enabled({}, "buildium")


def test_the_webhook_url_is_that_of_the_environment() -> None:
    assert webhook_url({}) is None
    assert webhook_url({"BUILDIUM_WEBHOOK_URL": "https://rent.test/api/webhooks/buildium"}) == (
        "https://rent.test/api/webhooks/buildium"
    )


def test_every_system_is_registered_by_its_name() -> None:
    table = systems({})
    assert {name: system.role for name, system in table.items()} == {
        "buildium": IntegrationRole.SOURCE,
        "rentsync": IntegrationRole.SINK,
    }
    assert all(name == system.name for name, system in table.items())


def test_each_setting_of_a_system_has_its_own_name_in_the_environment() -> None:
    variables = [field.env for system in systems({}).values() for field in system.fields]
    assert len(set(variables)) == len(variables)


def test_invalid_settings_of_the_process_raise_an_error() -> None:
    with pytest.raises(SettingsError, match="RENTSTREAM_TIMEZONE = 'x': no such time zone"):
        systems({"RENTSTREAM_TIMEZONE": "x"})
