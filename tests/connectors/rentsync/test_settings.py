"""Tests of RentSync's settings and their error messages."""

import pytest

from connectors.rentsync.settings import RentSyncSettings
from connectors.settings import SettingsError

GOOD = {"RENTSYNC_URL": "https://api.rentsync.com/v1/rent-roll/sync", "RENTSYNC_API_KEY": "k-123456"}


def test_url_and_key_suffice() -> None:
    """The defaults are the documented recommendations."""
    settings = RentSyncSettings.read(GOOD)

    assert (settings.auth, settings.shape, settings.batch) == ("api-key", "property", "per-property")
    assert (settings.updates, settings.fields_, settings.removed) == ("both", "core", "mark")
    assert settings.source == "rentstream"
    assert settings.user_agent.startswith("RentStream/")
    assert "k-123456" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RENTSYNC_BATCH", "single"),
        ("RENTSYNC_UPDATES", "snapshot"),
        ("RENTSYNC_REMOVED", "omit"),
    ],
)
def test_an_unavailable_value_is_rejected_with_that_reason(name: str, value: str) -> None:
    """A documented value that is not available yet is rejected at the start, in one line."""
    with pytest.raises(SettingsError) as error:
        RentSyncSettings.read(GOOD | {name: value})

    assert len(error.value.lines) == 1
    assert error.value.lines[0].startswith(f"{name} = '{value}': {value} is not available yet; allowed: ")


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({"RENTSYNC_SHAPE": "cube"}, "RENTSYNC_SHAPE = 'cube': no such choice; allowed: property"),
        ({"RENTSYNC_URL": ""}, "RENTSYNC_URL is not set: the full URL that receives the POST of a batch"),
        ({"RENTSYNC_API_KEY": ""}, "RENTSYNC_API_KEY is not set: the key that auth api-key sends"),
        ({"RENTSYNC_API_KEY": "two words"}, "RENTSYNC_API_KEY = a secret, not shown: a key has no spaces"),
        ({"RENTSYNC_URL": "http://api.rentsync.com/x"}, "RENTSYNC_URL = 'http://api.rentsync.com/x': plain http"),
        ({"RENTSYNC_URL": "https://10.0.0.8/x"}, "RENTSYNC_URL = 'https://10.0.0.8/x': a private or local address"),
        ({"RENTSYNC_USER_AGENT": "a\nb"}, "RENTSYNC_USER_AGENT = "),
    ],
)
def test_an_invalid_value_is_rejected_with_one_line(value: dict[str, str], line: str) -> None:
    """The line has the setting, its value (never that of a secret) and the allowed values."""
    with pytest.raises(SettingsError) as error:
        RentSyncSettings.read(GOOD | value)

    assert len(error.value.lines) == 1
    assert error.value.lines[0].startswith(line)
    assert "two words" not in str(error.value)


def test_private_addresses_can_be_allowed() -> None:
    """`RENTSTREAM_ALLOW_PRIVATE` allows plain http and private addresses."""
    settings = RentSyncSettings.read(
        GOOD | {"RENTSYNC_URL": "http://127.0.0.1:4020/x", "RENTSTREAM_ALLOW_PRIVATE": "1"}
    )

    assert settings.url == "http://127.0.0.1:4020/x"
