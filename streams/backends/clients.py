"""The security options of Kafka clients (protocol, TLS and SASL), in the form of aiokafka's arguments."""

import ssl
from typing import Any

from connectors.settings import SettingsError
from streams.settings import KafkaSettings


def client_options(kafka: KafkaSettings) -> dict[str, Any]:
    """Return the arguments of aiokafka's clients; a password in them must not be printed.

    Raise `SettingsError` if the authority's certificate cannot be read.
    """
    if kafka.security_protocol == "PLAINTEXT":
        return {}
    options: dict[str, Any] = {"security_protocol": kafka.security_protocol}
    if "SSL" in kafka.security_protocol:
        options["ssl_context"] = _tls(kafka)
    if "SASL" in kafka.security_protocol:
        assert kafka.sasl_password is not None, "the settings refuse SASL without a password"
        options |= {
            "sasl_mechanism": kafka.sasl_mechanism,
            "sasl_plain_username": kafka.sasl_username,
            "sasl_plain_password": kafka.sasl_password.get_secret_value(),
        }
    return options


def _tls(kafka: KafkaSettings) -> ssl.SSLContext:
    if kafka.ssl_cafile is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=kafka.ssl_cafile)
    except OSError as error:
        why = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise SettingsError(
            [f"KAFKA_SSL_CAFILE = {str(kafka.ssl_cafile)!r}: it cannot be used ({why}); allowed: a PEM file"]
        ) from None
