"""Tests of the checks of name resolution, TLS and clock, with real sockets and certificates."""

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from connectors.checks import Fail, Pass
from connectors.clock import SystemClock
from connectors.endpoint import SystemNetwork, check_address, check_clock, check_tls, describe_certificate, tls_failure

NOW = datetime(2025, 11, 22, 12, 0, tzinfo=UTC)


@dataclass
class FakeNetwork:
    """A network with one fixed answer."""

    addresses: Sequence[str] = ()
    error: Exception | None = None
    proxy: bool = False

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        if self.error:
            raise self.error
        return self.addresses

    def proxied(self, url: str) -> bool:
        return self.proxy


@pytest.mark.parametrize(
    ("url", "network", "expected"),
    [
        ("https://api.example.com/v1", FakeNetwork(["8.8.8.8"]), "api.example.com resolves to 8.8.8.8"),
        ("https://api.example.com", FakeNetwork([f"8.8.8.{n}" for n in range(1, 6)]), "8.8.8.3 and 2 more"),
        ("https://8.8.8.8/v1", FakeNetwork(error=OSError()), "IP address"),
        ("https://[2001:4860:4860::8888]/v1", FakeNetwork(error=OSError()), "IP address"),
        ("https://api.example.com", FakeNetwork(error=OSError(), proxy=True), "proxy"),
    ],
)
async def test_an_address_that_resolves_passes(url: str, network: FakeNetwork, expected: str) -> None:
    finding = await check_address(url, network, allow_private=False)

    assert isinstance(finding, Pass)
    assert expected in finding.detail


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (FakeNetwork(error=OSError(-2, "Name or service not known")), "resolved (Name or service not known)"),
        (FakeNetwork(error=UnicodeError("label too long")), "resolved (UnicodeError)"),
        (FakeNetwork(["8.8.8.8", "10.0.0.7"]), "the private address 10.0.0.7"),
        (FakeNetwork(["fe80::1"]), "the private address fe80::1"),
    ],
)
async def test_an_unresolvable_or_private_address_fails(network: FakeNetwork, expected: str) -> None:
    finding = await check_address("https://api.example.com", network, allow_private=False)

    assert isinstance(finding, Fail)
    assert expected in finding.detail
    assert finding.fix


async def test_private_addresses_pass_where_they_are_allowed() -> None:
    """The proxy is ignored, since private addresses are called directly."""
    finding = await check_address("http://pms.lan", FakeNetwork(["10.0.0.7"], proxy=True), allow_private=True)

    assert isinstance(finding, Pass)
    assert "10.0.0.7" in finding.detail


async def test_the_machine_resolves_its_own_name() -> None:
    """The result contains no duplicates."""
    found = await SystemNetwork().resolve("localhost", 80)

    assert set(found) <= {"127.0.0.1", "::1"}
    assert len(found) == len(set(found)) > 0


# ----------------------------------------------------------------------------------------------------------------- TLS


def certificate(folder: Path, name: str, days: int = 90) -> Path:
    """Create a self-signed certificate; return the file with the certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        alternative = x509.DNSName(name)
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=200))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one HTTP request, and close the connection."""
    with suppress(asyncio.IncompleteReadError, OSError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def served(pem: Path | None) -> AsyncIterator[str]:
    """Start a server with a certificate, or without TLS if it is null, and yield its https URL."""
    context = None
    if pem:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)

    handlers: set[asyncio.Task[None]] = set()

    def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.create_task(answer(reader, writer)))

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        await asyncio.gather(*handlers)


def trusting(pem: Path | None, within: float = 5.0) -> httpx.AsyncClient:
    """Return a client that waits for so many seconds."""
    context = ssl.create_default_context(cafile=str(pem) if pem else None)
    return httpx.AsyncClient(verify=context, trust_env=False, timeout=within)


async def test_a_valid_certificate_passes_with_its_expiry(tmp_path: Path) -> None:
    """The certificate is read from a connection of the client."""
    pem = certificate(tmp_path, "127.0.0.1", days=90)
    async with served(pem) as url, trusting(pem) as client:
        finding = await check_tls(url, client, SystemClock())

    assert isinstance(finding, Pass)
    assert f"{datetime.now(UTC) + timedelta(days=90):%Y-%m}" in finding.detail
    assert "(89 days left)" in finding.detail


@pytest.mark.parametrize(
    ("name", "days", "trusted", "expected"),
    [
        ("127.0.0.1", 90, False, "cannot be trusted: self-signed certificate"),
        ("api.example.com", 90, True, "cannot be trusted: IP address mismatch"),
        ("127.0.0.1", -1, True, "cannot be trusted: certificate has expired"),
    ],
)
async def test_an_invalid_certificate_fails_with_its_reason(
    tmp_path: Path, name: str, days: int, trusted: bool, expected: str
) -> None:
    pem = certificate(tmp_path, name, days)
    async with served(pem) as url, trusting(pem if trusted else None) as client:
        finding = await check_tls(url, client, SystemClock())

    assert isinstance(finding, Fail)
    assert expected in finding.detail
    assert "certificate" in finding.fix


async def test_a_port_without_tls_fails() -> None:
    """It waits for the rest of a request, so the handshake is never answered."""
    async with served(None) as url, trusting(None, within=0.3) as client:
        finding = await check_tls(url, client, SystemClock())

    assert isinstance(finding, Fail)
    assert "TLS" in finding.detail
    assert "does not seem to speak TLS" in finding.fix


async def test_a_closed_port_fails() -> None:
    async with served(None) as url:
        pass
    async with trusting(None) as client:
        finding = await check_tls(url, client, SystemClock())

    assert isinstance(finding, Fail)
    assert "no TLS connection" in finding.detail


async def test_plain_http_passes_as_not_used() -> None:
    """No request is made, because the settings reject plain http unless private addresses are allowed."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise AssertionError(request)

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as client:
        finding = await check_tls("http://127.0.0.1/v1", client, SystemClock())

    assert isinstance(finding, Pass)
    assert finding.detail.startswith("not used")


def test_the_expiry_of_a_certificate_is_judged_by_the_local_clock() -> None:
    """A certificate without a readable expiry passes, because the client has verified it."""
    valid = {"notAfter": "Dec  2 12:00:00 2025 GMT"}

    assert describe_certificate(valid, "h", NOW) == Pass(
        "the certificate of h is valid until 2025-12-02 (10 days left)"
    )
    assert isinstance(describe_certificate(valid, "h", NOW + timedelta(days=10)), Fail)
    assert isinstance(describe_certificate(None, "h", NOW), Pass)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx.ConnectTimeout("x"), "did not answer in time"),
        (httpx.ProxyError("407 secret"), "the proxy of this machine did not connect to h:443"),
        (httpx.ReadError("secret"), "no TLS connection to h:443 (ReadError)"),
    ],
)
def test_other_failures_are_reported_without_their_message(error: httpx.HTTPError, expected: str) -> None:
    failure = tls_failure(error, "h", 443)

    assert expected in failure.detail
    assert "secret" not in failure.detail


# --------------------------------------------------------------------------------------------------------------- clock


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [(0, "differ by 0 s"), (120, "differ by 120 s"), (-120, "differ by 120 s")],
)
def test_clocks_that_agree_pass(ahead: float, expected: str) -> None:
    finding = check_clock(format_datetime(NOW, usegmt=True), NOW + timedelta(seconds=ahead), "Buildium")

    assert isinstance(finding, Pass)
    assert expected in finding.detail


@pytest.mark.parametrize(("ahead", "expected"), [(121, "121 s ahead of"), (-7200, "7200 s behind")])
def test_clocks_that_differ_fail(ahead: float, expected: str) -> None:
    finding = check_clock(format_datetime(NOW, usegmt=True), NOW + timedelta(seconds=ahead), "Buildium")

    assert isinstance(finding, Fail)
    assert expected in finding.detail


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_a_response_without_a_date_passes(date: str | None) -> None:
    finding = check_clock(date, NOW, "Buildium")

    assert isinstance(finding, Pass)
    assert "could not be compared" in finding.detail
