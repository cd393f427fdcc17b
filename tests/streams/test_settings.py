"""Settings: what is wrong is said in one line each, and nothing secret is repeated."""

from pathlib import Path

import pytest

from connectors.settings import SettingsError
from streams.settings import KafkaSettings, RentStreamSettings, environment


def test_nothing_given_is_enough() -> None:
    settings, kafka = RentStreamSettings.read({}), KafkaSettings.read({})
    assert (settings.http, settings.partitions, settings.prefix) == ("0.0.0.0:3000", 12, "rentstream.")
    assert [rung.seconds for rung in settings.rungs] == [60, 120, 300, 600]
    assert (settings.sweep_every, settings.linger, settings.timezone) == (900.0, 0.5, "UTC")
    assert (kafka.bootstrap_servers, kafka.security()) == (None, {})


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
def test_a_bad_value_is_named_with_what_was_given_and_what_is_allowed(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        RentStreamSettings.read({name: value})
    (line,) = refused.value.lines
    assert line.startswith(f"{name} = {value!r}: ")
    assert "; allowed: " in line


def test_every_bad_setting_has_its_line() -> None:
    with pytest.raises(SettingsError) as refused:
        RentStreamSettings.read({"RENTSTREAM_HTTP": "x", "RENTSTREAM_PARTITIONS": "x"})
    assert len(refused.value.lines) == 2


def test_a_secret_is_never_repeated() -> None:
    kafka = KafkaSettings.read({"KAFKA_SASL_PASSWORD": "hunter2", "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"})
    assert "hunter2" not in repr(kafka)
    assert kafka.security()["sasl_plain_password"] == "hunter2"


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("# words\nRENTSTREAM_HTTP='a:1'\nexport RENTSTREAM_LINGER=1s\n", encoding="utf-8")
    monkeypatch.setenv("RENTSTREAM_HTTP", "b:2")
    env = environment(tmp_path)
    assert (env["RENTSTREAM_HTTP"], env["RENTSTREAM_LINGER"]) == ("b:2", "1s")
