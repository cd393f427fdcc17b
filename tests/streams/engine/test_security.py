import ssl
from collections.abc import Mapping
from typing import Any

import pytest
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from streams.engine.security import broker_credentials

TLS = ssl.create_default_context()


@pytest.mark.parametrize(
    "security",
    [
        {"security_protocol": "PLAINTEXT"},
        {"security_protocol": "SSL", "ssl_context": TLS},
        {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": "u",
            "sasl_plain_password": "p",
            "ssl_context": TLS,
        },
        {
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": "u",
            "sasl_plain_password": "p",
            "ssl_context": None,
        },
        {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "GSSAPI",
            "sasl_kerberos_service_name": "kafka",
            "sasl_kerberos_domain_name": "example.org",
            "ssl_context": TLS,
        },
    ],
    ids=lambda security: f"{security['security_protocol']}-{security.get('sasl_mechanism', '')}",
)
def test_faust_passes_the_same_options_to_aiokafka(security: Mapping[str, Any]) -> None:
    assert dict(security) == dict(credentials_to_aiokafka_auth(broker_credentials(security), None))


def test_the_default_is_plaintext() -> None:
    assert broker_credentials({}) is None


@pytest.mark.parametrize("security", [{"security_protocol": "SSL"}, {"security_protocol": "QUIC"}])
def test_unsupported_security_options_are_refused(security: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError, match="security_protocol"):
        broker_credentials(security)
