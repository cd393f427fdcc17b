"""Tests of the security options of Kafka clients, and of their errors."""

import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from connectors.settings import SettingsError
from streams.backends.clients import client_options
from streams.settings import KafkaSettings

ROOT = Path(__file__).resolve().parents[3]
SASL = {"KAFKA_SASL_MECHANISM": "SCRAM-SHA-512", "KAFKA_SASL_USERNAME": "u", "KAFKA_SASL_PASSWORD": "hunter2"}


def test_plaintext_has_no_options() -> None:
    assert client_options(KafkaSettings.read(SASL)) == {}


def test_sasl_has_user_name_and_password() -> None:
    assert client_options(KafkaSettings.read(SASL | {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"})) == {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "u",
        "sasl_plain_password": "hunter2",
    }


def test_tls_verifies_the_broker_with_the_authorities_of_the_system() -> None:
    context = client_options(KafkaSettings.read({"KAFKA_SECURITY_PROTOCOL": "SSL"}))["ssl_context"]

    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_settings_with_a_missing_ca_file_can_be_read(tmp_path: Path) -> None:
    """Reading settings opens no file; the file is opened when a client is created."""
    kafka = KafkaSettings.read({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CAFILE": str(tmp_path / "none.pem")})

    assert kafka.ssl_cafile == tmp_path / "none.pem"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.pem", "No such file or directory"),
        ("folder", "Is a directory"),
        ("words.txt", "it holds no certificate"),
        ("empty.pem", "it holds no certificate"),
    ],
)
def test_an_unusable_ca_file_is_reported(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "words.txt").write_text("words")
    (tmp_path / "empty.pem").touch()
    kafka = KafkaSettings.read({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CAFILE": str(tmp_path / name)})

    with pytest.raises(SettingsError) as refused:
        client_options(kafka)

    assert refused.value.lines == (
        f"KAFKA_SSL_CAFILE = '{tmp_path / name}': it cannot be used ({words}); allowed: a PEM file",
    )


@pytest.mark.parametrize(
    ("role", "dot_env", "words"),
    [
        (role, b"KAFKA_SECURITY_PROTOCOL=SSL\nKAFKA_SSL_CAFILE=none.pem # our own\n", "KAFKA_SSL_CAFILE = 'none.pem'")
        for role in ("topics", "http", "worker")
    ]
    + [("topics", b"KAFKA_SASL_PASSWORD=canary-\xe9\n", ".env is not UTF-8 text")],
)
def test_a_role_with_unusable_settings_exits_with_2(tmp_path: Path, role: str, dot_env: bytes, words: str) -> None:
    from streams.local.demo import demo_env

    (tmp_path / ".env").write_bytes(dot_env)
    env = {
        "PATH": os.defpath,
        "PYTHONPATH": str(ROOT),
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        **demo_env("http://127.0.0.1:9", "http://127.0.0.1:9"),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "streams.cli", role], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert words in ended.stderr
    assert "canary" not in ended.stderr
