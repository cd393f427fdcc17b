"""Faust's credentials, derived from the options that aiokafka's own clients get, so that both connect the same way."""

from collections.abc import Mapping
from typing import Any

import faust


def broker_credentials(security: Mapping[str, Any]) -> Any | None:
    """Return Faust's credentials. Raise `ValueError` for a combination that Faust would run in plaintext."""
    protocol = str(security.get("security_protocol", "PLAINTEXT")).upper()
    context = security.get("ssl_context")
    mechanism = str(security.get("sasl_mechanism", "PLAIN")).upper()
    if protocol == "PLAINTEXT":
        return None
    if protocol in {"SSL", "SASL_SSL"} and context is None:
        raise ValueError(f"security_protocol {protocol} needs an ssl_context")
    if protocol == "SSL":
        return faust.SSLCredentials(context)
    if protocol not in {"SASL_PLAINTEXT", "SASL_SSL"}:
        raise ValueError(f"unknown security_protocol {protocol}")
    used = context if protocol == "SASL_SSL" else None
    if mechanism == "OAUTHBEARER":
        return faust.OAuthCredentials(oauth_cb=security["sasl_oauth_token_provider"], ssl_context=used)
    if mechanism == "GSSAPI":
        return faust.GSSAPICredentials(
            kerberos_service_name=security.get("sasl_kerberos_service_name", "kafka"),
            kerberos_domain_name=security.get("sasl_kerberos_domain_name"),
            ssl_context=used,
            mechanism=mechanism,
        )
    return faust.SASLCredentials(
        username=security.get("sasl_plain_username"),
        password=security.get("sasl_plain_password"),
        ssl_context=used,
        mechanism=mechanism,
    )
