"""Tests of `check_url`: the URLs that may be called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.addresses import check_url
from tests.connectors import SLOW_MACHINE


@pytest.mark.parametrize(
    "url",
    [
        "https://api.buildium.com/v1",
        "https://8.8.8.8/v1",
        "https://[2606:4700::1111]:8443/x",
        "https://api.rentsync.com",
    ],
)
def test_public_https_urls_are_allowed(url: str) -> None:
    assert check_url(url, allow_private=False) is None
    assert check_url(url, allow_private=True) is None


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST.", "a.localhost", "db", "kafka.internal", "nas.local", "127.0.0.1", "127.1",
        "2130706433",
        "0x7f000001", "017700000001", "10.0.0.7", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1", "[::1]", "[::]", "[fe80::1]", "[fd00::1]", "[::ffff:10.0.0.1]", "[64:ff9b::a00:1]",
        "[2002:a00:1::]", "[fe80::1%25eth0]", "[fec0::1]", "169\u3002254.169.254", "127\uff0e0.0.1",
        "kubernetes.default.svc", "api.team.svc.cluster.local", "localhost.localdomain",
    ],
)  # fmt: skip
def test_private_hosts_are_refused_unless_allowed(host: str) -> None:
    assert "private" in (check_url(f"https://{host}/v1", allow_private=False) or "")
    assert check_url(f"http://{host}:8000/v1", allow_private=True) is None


@pytest.mark.parametrize(
    "url",
    ["", "api.buildium.com/v1", "ftp://a.example", "https://", "https://a b.example", "https://u:p@a.example",
     "https://a.example:99999", "https://[::1", "https://a.example\\@b.example", "file:///etc/passwd", "https://a\n.example"],
)  # fmt: skip
def test_an_invalid_url_is_refused_even_if_private_hosts_are_allowed(url: str) -> None:
    assert check_url(url, allow_private=True)


def test_plain_http_is_refused() -> None:
    assert "http" in (check_url("http://api.buildium.com/v1", allow_private=False) or "")


@SLOW_MACHINE
@given(st.text())
def test_no_text_raises(text: str) -> None:
    check_url(text, allow_private=False)
    check_url(f"https://{text}", allow_private=False)
