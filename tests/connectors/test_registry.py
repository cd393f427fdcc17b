"""What an environment connects, and what it says when it does not."""

import random

import pytest

from connectors.clock import SystemClock
from connectors.registry import connect, missing, readers
from connectors.settings import SettingsError

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
    assert [line.split()[0] for line in missing({})] == list(WHOLE)


def test_a_sync_that_is_switched_off_is_a_connection_that_is_not_enabled() -> None:
    off = connect(WHOLE | {"BUILDIUM_SYNC_ENABLED": "false"}, SystemClock(), random.Random(1))
    assert not off.connections[0].enabled
