"""Tests of the settings: one line for each error, and no secret in any of them."""

import base64
from pathlib import Path

import pytest

from connectors.settings import SettingsError
from streams.settings import KafkaSettings, RentStreamSettings, environment, parse_keys

CANARY = "canary-" * 7
SASL = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "KAFKA_SASL_USERNAME": "rentstream",
    "KAFKA_SASL_PASSWORD": "hunter2",
}


def encoded(size: int, letter: bytes = b"k") -> str:
    return base64.b64encode(letter * size).decode()


def test_no_setting_is_required() -> None:
    settings, kafka = RentStreamSettings.read({}), KafkaSettings.read({})
    assert (settings.http, settings.partitions, settings.prefix) == ("0.0.0.0:3000", 12, "rentstream.")
    assert [rung.seconds for rung in settings.rungs] == [60, 120, 300, 600]
    assert (settings.sweep_every, settings.linger, settings.timezone) == (900.0, 0.5, "UTC")
    assert (kafka.bootstrap_servers, kafka.security_protocol) == (None, "PLAINTEXT")
    assert (settings.web_admin, settings.worker_admin) == ("127.0.0.1:9464", "127.0.0.1:9465")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RENTSTREAM_HTTP", "3000"),
        ("RENTSTREAM_HTTP", "host:99999"),
        ("RENTSTREAM_PARTITIONS", "none"),
        ("RENTSTREAM_PARTITIONS", "0"),
        ("RENTSTREAM_TOPIC_PREFIX", "a b"),
        ("RENTSTREAM_RETRY_LADDER", "1m,1m"),
        ("RENTSTREAM_RETRY_LADDER", "soon"),
        ("RENTSTREAM_SWEEP_EVERY", "15"),
        ("RENTSTREAM_TIMEZONE", "Middle/Earth"),
        ("RENTSTREAM_LINGER", "2 weeks"),
        ("RENTSTREAM_STORE", "paper"),
    ],
)
def test_an_invalid_value_is_reported_with_the_allowed_values(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        RentStreamSettings.read({name: value})
    (line,) = refused.value.lines
    assert line.startswith(f"{name} = {value!r}: ")
    assert "; allowed: " in line


def test_every_invalid_setting_has_a_line() -> None:
    with pytest.raises(SettingsError) as refused:
        RentStreamSettings.read({"RENTSTREAM_HTTP": "x", "RENTSTREAM_PARTITIONS": "x"})
    assert len(refused.value.lines) == 2


def test_a_secret_is_never_shown() -> None:
    kafka = KafkaSettings.read(SASL)
    assert "hunter2" not in repr(kafka) + kafka.model_dump_json()


@pytest.mark.parametrize("name", ["KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD"])
def test_sasl_needs_a_name_and_a_password(name: str) -> None:
    with pytest.raises(SettingsError) as refused:
        KafkaSettings.read(SASL | {name: " "})
    (line,) = refused.value.lines
    assert line.startswith(f"{name} is not set: the ")
    assert "hunter2" not in line


def test_under_up_workers_use_the_ports_after_that_of_the_web_role() -> None:
    settings = RentStreamSettings.read({"RENTSTREAM_ADMIN": "0.0.0.0:9000"})
    assert (settings.web_admin, settings.worker_admin) == ("0.0.0.0:9000", "0.0.0.0:9000")
    assert settings.worker_admins(2) == ("0.0.0.0:9001", "0.0.0.0:9002")
    assert RentStreamSettings.read({}).worker_admins(1) == ("127.0.0.1:9465",)


def test_there_have_to_be_as_many_ports_as_workers() -> None:
    settings = RentStreamSettings.read({"RENTSTREAM_ADMIN": "127.0.0.1:65534"})
    assert settings.worker_admins(1) == ("127.0.0.1:65535",)
    with pytest.raises(SettingsError, match=r"RENTSTREAM_ADMIN = '127\.0\.0\.1:65534': 2 workers"):
        settings.worker_admins(2)


@pytest.mark.parametrize("given", ["https://id.example.com/.well-known/jwks.json", "/etc/rentstream/jwks.json"])
def test_a_jwks_is_an_address_or_a_path(given: str) -> None:
    assert RentStreamSettings.read({"RENTSTREAM_JWT_JWKS": given}).jwt_jwks == given


def test_a_jwks_of_a_private_network_has_to_be_allowed() -> None:
    env = {"RENTSTREAM_JWT_JWKS": "http://127.0.0.1:8080/jwks"}
    with pytest.raises(SettingsError, match=r"RENTSTREAM_JWT_JWKS = .*plain http is refused"):
        RentStreamSettings.read(env)
    assert RentStreamSettings.read(env | {"RENTSTREAM_ALLOW_PRIVATE": "1"}).jwt_jwks


def test_a_jwt_secret_has_at_least_32_bytes() -> None:
    with pytest.raises(SettingsError) as refused:
        RentStreamSettings.read({"RENTSTREAM_JWT_SECRET": CANARY[:31]})
    (line,) = refused.value.lines
    assert line.startswith("RENTSTREAM_JWT_SECRET = a secret, not shown: it is too short; allowed: at least 32 bytes")
    settings = RentStreamSettings.read({"RENTSTREAM_JWT_SECRET": CANARY})
    assert settings.jwt_secret is not None
    assert settings.jwt_secret.get_secret_value() == CANARY
    assert CANARY not in repr(settings)


def test_several_encryption_keys_may_be_given() -> None:
    settings = RentStreamSettings.read({"RENTSTREAM_ENCRYPTION_KEYS": f"new:{encoded(32)}, old_1:{encoded(32, b'o')}"})
    assert settings.encryption_keys is not None
    keys = parse_keys(settings.encryption_keys)
    assert [(one.id, one.key.get_secret_value()) for one in keys] == [("new", b"k" * 32), ("old_1", b"o" * 32)]
    assert encoded(32) not in repr(settings)
    assert "kkk" not in repr(keys)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (encoded(32), "key 1 does not begin with an id"),
        (f"a b:{encoded(32)}", "key 1 does not begin with an id"),
        (f"{'i' * 33}:{encoded(32)}", "key 1 does not begin with an id"),
        (f"new:{encoded(32)},", "key 2 does not begin with an id"),
        (f"new:{encoded(32)},old:{encoded(31)}", "key 2 has 31 bytes instead of 32"),
        (f"new:!{encoded(32)}", "key 1 is not base64"),
        ("new:", "key 1 has 0 bytes"),
        (f"new:{encoded(32)},new:{encoded(32, b'o')}", "two keys have the same id"),
    ],
)
def test_an_invalid_encryption_key_is_rejected_and_not_shown(given: str, words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        RentStreamSettings.read({"RENTSTREAM_ENCRYPTION_KEYS": given})
    (line,) = refused.value.lines
    assert line.startswith(f"RENTSTREAM_ENCRYPTION_KEYS = a secret, not shown: {words}")
    assert encoded(30)[:20] not in line


def test_nothing_is_read_from_the_environment_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RENTSTREAM_HTTP", "b:2")
    monkeypatch.setenv("HTTP", "b:2")
    assert RentStreamSettings.read({}).http == "0.0.0.0:3000"
    assert RentStreamSettings().http == "0.0.0.0:3000"


def test_only_the_names_of_settings_are_looked_up() -> None:
    """A variable with the name of a field (``data``, ``prefix``) belongs to another program."""
    assert RentStreamSettings.read({"prefix": "/usr", "data": "/", "partitions": "x"}) == RentStreamSettings.read({})


def test_the_environment_overrides_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("# words\nRENTSTREAM_HTTP='a:1'\nexport RENTSTREAM_LINGER=1s\n", encoding="utf-8")
    monkeypatch.setenv("RENTSTREAM_HTTP", "b:2")
    env = environment(tmp_path)
    assert (env["RENTSTREAM_HTTP"], env["RENTSTREAM_LINGER"]) == ("b:2", "1s")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("N_N=one,two # from the vault, not for me", "one,two"),
        ("N_N=one,two# no comment", "one,two# no comment"),
        ("N_N='a # b'", "a # b"),
        ('export N_N="two words"', "two words"),
        ("N_N=pa$$word${HOME}", "pa$$word${HOME}"),
        ("N_N=", ""),
        ("\ufeffN_N=first", "first"),
        ("N_N=a=b", "a=b"),
    ],
)
def test_a_line_of_the_file_is_parsed(tmp_path: Path, line: str, value: str) -> None:
    """A comment after a value must not become part of it."""
    (tmp_path / ".env").write_text(f"{line}\n", encoding="utf-8")
    assert environment(tmp_path)["N_N"] == value


def test_a_name_without_a_value_is_not_given(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("N_N\n", encoding="utf-8")
    assert "N_N" not in environment(tmp_path)


def test_a_file_that_is_not_utf_8_is_reported(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("RENTSYNC_API_KEY=canary-é".encode("latin-1"))
    with pytest.raises(SettingsError) as refused:
        environment(tmp_path)
    (line,) = refused.value.lines
    assert line.startswith(f"{tmp_path / '.env'} is not UTF-8 text (from byte 24 on)")
    assert "canary" not in line


def test_the_file_is_optional(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert environment(tmp_path) == environment(tmp_path / "nowhere")


@pytest.mark.parametrize("value", ['"15m"', "'15m'", ' "15m" ', "''"])
def test_quotes_that_became_part_of_a_value_are_named(value: str) -> None:
    """``docker --env-file`` keeps them; in a secret they would otherwise be part of it."""
    with pytest.raises(SettingsError, match=r"^RENTSTREAM_SWEEP_EVERY is in quotes") as caught:
        RentStreamSettings.read({"RENTSTREAM_SWEEP_EVERY": value})

    assert caught.value.lines == (
        (
            "RENTSTREAM_SWEEP_EVERY is in quotes, which `docker --env-file` and Kubernetes take as part of the value: "
            "remove them"
        ),
    )


def test_pulses_can_be_switched_off() -> None:
    assert RentStreamSettings.read({"RENTSTREAM_PULSE_EVERY": "0"}).pulse_every == 0.0
    assert RentStreamSettings.read({}).pulse_every == 60.0
