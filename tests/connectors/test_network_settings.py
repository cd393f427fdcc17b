"""Proxies and certificates of the environment: a wrong one is a line at the start, and never shows a password."""

from pathlib import Path

import pytest

from connectors.network_settings import network_problems
from connectors.registry import systems
from connectors.settings import SettingsError, mask

CANARY = "canary7f3a91"


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"HTTPS_PROXY": f"http://user:{CANARY}@proxy.example.com:3128"},
        {"http_proxy": "proxy.example.com:3128"},
        {"ALL_PROXY": "https://10.0.0.1:8080"},
        {"NO_PROXY": "localhost, 127.0.0.1, ::1, .example.com, 10.0.0.0/8, *"},
        {"NO_PROXY": ""},
    ],
)
def test_what_can_be_used_is_no_problem(env: dict[str, str]) -> None:
    assert network_problems(env) == ()


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"NO_PROXY": "a.example.com,[::1]"}, "NO_PROXY contains '[::1]': write the address without brackets, ::1"),
        ({"no_proxy": "a b:c"}, "no_proxy contains 'a b:c'"),
        ({"ALL_PROXY": f"socks5://u:{CANARY}@127.0.0.1:9"}, "the scheme socks5 is not supported"),
        ({"HTTPS_PROXY": f"http://u:{CANARY}#x@127.0.0.1:9"}, "percent-encoded"),
        ({"https_proxy": f"http://u:a/{CANARY}@127.0.0.1:9"}, "percent-encoded"),
        ({"HTTP_PROXY": "http://host:abc"}, "it is not the URL of a proxy"),
        ({"SSL_CERT_FILE": "/nope"}, "SSL_CERT_FILE = '/nope': it cannot be used (No such file or directory)"),
        ({"SSL_CERT_DIR": "/nope"}, "SSL_CERT_DIR = '/nope': it is not a folder"),
    ],
)
def test_each_wrong_setting_is_one_line(env: dict[str, str], words: str) -> None:
    (line,) = network_problems(env)

    assert words in line
    assert CANARY not in line
    with pytest.raises(SettingsError) as caught:
        systems(env)
    assert caught.value.lines == (line,)


def test_a_file_without_certificates_is_a_problem(tmp_path: Path) -> None:
    (file := tmp_path / "ca.pem").write_text("nothing")

    assert "no PEM file" in network_problems({"SSL_CERT_FILE": str(file)})[0]


def test_without_the_network_of_the_environment_its_settings_do_not_matter() -> None:
    """Private addresses are reached without a proxy."""
    assert systems({"NO_PROXY": "[::1]", "RENTSTREAM_ALLOW_PRIVATE": "1"})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (f"https://u:{CANARY}@example.com/x", "https://…@example.com/x"),
        (f"https://u:a/{CANARY}@example.com/x", "https://…@example.com/x"),
        (f"https://example.com/x?key={CANARY}", "https://example.com/x?…"),
        (f"see https://u@example.com?k={CANARY} there", "see https://…@example.com?… there"),
        ("why? no", "why? no"),
    ],
)
def test_a_url_is_shown_without_user_info_and_query(value: str, shown: str) -> None:
    assert mask(value) == shown
