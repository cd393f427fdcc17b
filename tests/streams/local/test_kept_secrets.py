"""Secrets that are made once and kept: every process of a machine has the same, and what is given wins."""

import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Barrier

import pytest

from connectors.settings import SettingsError
from streams.local.kept_secrets import (
    CONSOLE_PASSWORD,
    ENCRYPTION_KEYS,
    JWT_SECRET,
    console_password,
    encryption_keys,
    jwt_secret,
)
from streams.settings import RentStreamSettings

GIVEN = "a-secret-that-an-operator-has-chosen"
KEY = "mine:a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="


@pytest.fixture
def settings(tmp_path: Path) -> RentStreamSettings:
    return RentStreamSettings.read({"RENTSTREAM_DATA": str(tmp_path / "not" / "there")})


def numbered() -> Callable[[int], bytes]:
    """Random bytes of which no two are the same."""
    numbers = count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


def test_what_is_given_is_used_and_nothing_is_kept(tmp_path: Path) -> None:
    settings = RentStreamSettings.read(
        {
            "RENTSTREAM_DATA": str(tmp_path),
            "RENTSTREAM_JWT_SECRET": GIVEN,
            "RENTSTREAM_ENCRYPTION_KEYS": KEY,
            "RENTSTREAM_CONSOLE_PASSWORD": "a-password-of-people",
        }
    )

    assert console_password(settings).get_secret_value() == "a-password-of-people"
    assert jwt_secret(settings).get_secret_value() == GIVEN
    assert [one.id for one in encryption_keys(settings)] == ["mine"]
    assert not list(tmp_path.iterdir())


def test_what_is_not_given_is_made_once(settings: RentStreamSettings) -> None:
    secret, keys, password = jwt_secret(settings), encryption_keys(settings), console_password(settings)

    assert len(password.get_secret_value()) >= 16
    assert console_password(settings) == password
    assert len(secret.get_secret_value()) >= 32
    assert len(keys) == 1
    assert len(keys[0].key.get_secret_value()) == 32
    assert jwt_secret(settings) == secret
    assert encryption_keys(settings) == keys
    assert sorted(path.name for path in settings.data.iterdir()) == sorted(
        [CONSOLE_PASSWORD, ENCRYPTION_KEYS, JWT_SECRET]
    )


def test_two_machines_make_keys_with_different_ids(tmp_path: Path) -> None:
    """So that credentials which another machine encrypted are not taken for damaged."""
    made = [encryption_keys(RentStreamSettings.read({"RENTSTREAM_DATA": str(tmp_path / name)})) for name in "ab"]

    assert made[0][0].id != made[1][0].id


def test_only_the_owner_can_read_them(settings: RentStreamSettings) -> None:
    jwt_secret(settings)
    encryption_keys(settings)

    assert {stat.S_IMODE(path.stat().st_mode) for path in settings.data.iterdir()} == {0o600}


def test_the_first_of_two_processes_wins(settings: RentStreamSettings) -> None:
    """The other one publishes its secret while this one still makes its own."""
    random_bytes = numbered()
    winners = []

    def late(size: int) -> bytes:
        mine = random_bytes(size)
        winners.append(jwt_secret(settings, random_bytes))
        return mine

    assert jwt_secret(settings, late) == winners[0]
    assert [path.name for path in settings.data.iterdir()] == [JWT_SECRET]


def test_many_that_start_together_agree(settings: RentStreamSettings) -> None:
    together = Barrier(16)

    def start(_: int) -> str:
        together.wait()
        return jwt_secret(settings).get_secret_value()

    with ThreadPoolExecutor(16) as processes:
        assert len(set(processes.map(start, range(16)))) == 1
    assert [path.name for path in settings.data.iterdir()] == [JWT_SECRET]


@pytest.mark.parametrize("content", [b"", b"canary:shrt", b"canary\xff\xfe"])
def test_a_damaged_file_is_named_and_left_as_it_is(settings: RentStreamSettings, content: bytes) -> None:
    settings.data.mkdir(parents=True)
    for name, setting, read in (
        (JWT_SECRET, "RENTSTREAM_JWT_SECRET", jwt_secret),
        (ENCRYPTION_KEYS, "RENTSTREAM_ENCRYPTION_KEYS", encryption_keys),
        (CONSOLE_PASSWORD, "RENTSTREAM_CONSOLE_PASSWORD", console_password),
    ):
        path = settings.data / name
        path.write_bytes(content)
        with pytest.raises(SettingsError) as refused:
            read(settings)
        assert refused.value.lines[0].startswith(f"{setting} is not set, and {path} ")
        assert "canary" not in str(refused.value)
        assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = RentStreamSettings.read({"RENTSTREAM_DATA": str(tmp_path / "file" / "data")})

    with pytest.raises(SettingsError, match=r"cannot be used \(Not a directory\)"):
        jwt_secret(settings)


def test_an_operator_may_put_older_keys_behind_the_kept_one(settings: RentStreamSettings) -> None:
    (made,) = encryption_keys(settings)
    path = settings.data / ENCRYPTION_KEYS
    path.write_text(f"{path.read_text().strip()},{KEY}\n")

    assert encryption_keys(settings)[0] == made
    assert encryption_keys(settings)[1].id == "mine"
