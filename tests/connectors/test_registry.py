"""What an environment connects, and what it says when it does not."""

import random

import pytest

from connectors.clock import SystemClock
from connectors.registry import connect, environment_enabled, missing, readers, systems
from connectors.settings import SettingsError
from schemas.integrations import IntegrationRole

WHOLE = {
    "BUILDIUM_CLIENT_ID": "id",
    "BUILDIUM_CLIENT_SECRET": "a-secret",
    "BUILDIUM_WEBHOOK_SECRET": "another",
    "RENTSYNC_URL": "https://api.rentsync.test/v1/rent-roll/sync",
    "RENTSYNC_API_KEY": "a-key",
}


async def test_a_whole_environment_is_one_connection_and_one_receiver() -> None:
    connectors = connect(WHOLE | {"RENTSTREAM_TIMEZONE": "America/Edmonton"}, SystemClock(), random.Random(1))
    (connection,) = connectors.connections
    assert (connection.org, connection.name, connection.enabled, connection.timezone) == (
        "default",
        "buildium",
        True,
        "America/Edmonton",
    )
    assert [sink.name for sink in connectors.sinks] == ["rentsync"]
    assert not missing(WHOLE)
    assert set(readers(WHOLE)) == {("buildium", None), ("buildium", "buildium")}
    await connectors.aclose()


@pytest.mark.parametrize("name", [name for name in WHOLE if name != "BUILDIUM_WEBHOOK_SECRET"])
def test_each_setting_that_a_worker_lacks_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is not set"):
        connect({key: value for key, value in WHOLE.items() if key != name}, SystemClock(), random.Random(1))


def test_all_that_is_missing_is_said_at_once() -> None:
    assert sorted(line.split()[0] for line in missing({})) == sorted(WHOLE)


@pytest.mark.parametrize(("known", "unset"), [({}, WHOLE), (WHOLE, {})])
def test_a_setting_of_the_process_that_is_wrong_is_named_once(known: dict[str, str], unset: dict[str, str]) -> None:
    wrong = {"RENTSTREAM_ALLOW_PRIVATE": "x", "RENTSTREAM_TIMEZONE": "x", "RENTSYNC_USER_AGENT": "\x7f"}
    names = [line.split()[0] for line in missing(known | wrong)]
    assert sorted(names) == sorted([*wrong, *unset])


def test_a_webhook_secret_that_is_blank_stops_the_start() -> None:
    """A webhook that is signed with the empty key must never be believed."""
    wrong = WHOLE | {"BUILDIUM_WEBHOOK_SECRET": ","}
    for start in (lambda: connect(wrong, SystemClock(), random.Random(1)), lambda: readers(wrong)):
        with pytest.raises(SettingsError, match="BUILDIUM_WEBHOOK_SECRET = a secret, not shown: it holds no secret"):
            start()


def test_webhooks_are_read_without_a_key_to_call_buildium() -> None:
    assert set(readers({"BUILDIUM_WEBHOOK_SECRET": "a"})) == {("buildium", None), ("buildium", "buildium")}


def test_a_sync_that_is_switched_off_is_a_connection_that_is_not_enabled() -> None:
    off = connect(WHOLE | {"BUILDIUM_SYNC_ENABLED": "false"}, SystemClock(), random.Random(1))
    assert not off.connections[0].enabled
    assert not environment_enabled({"BUILDIUM_SYNC_ENABLED": "false"}, "buildium")
    assert environment_enabled({"BUILDIUM_SYNC_ENABLED": "false"}, "rentsync")
    assert environment_enabled({}, "buildium")


def test_the_table_has_a_row_for_each_system() -> None:
    table = systems({})
    assert {name: row.role for name, row in table.items()} == {
        "buildium": IntegrationRole.SOURCE,
        "rentsync": IntegrationRole.SINK,
    }
    assert all(name == row.name for name, row in table.items())


def test_a_name_of_a_field_in_the_environment_is_that_of_one_setting() -> None:
    names = [field.env for row in systems({}).values() for field in row.fields]
    assert len(set(names)) == len(names)


def test_the_settings_of_the_process_have_to_be_right_before_there_is_a_table() -> None:
    with pytest.raises(SettingsError, match="RENTSTREAM_TIMEZONE = 'x': no such time zone"):
        systems({"RENTSTREAM_TIMEZONE": "x"})
