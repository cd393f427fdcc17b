"""Tests of Buildium's webhooks: every documented event, and invalid requests."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from connectors.buildium.events import EVENTS, FAMILIES, Ignores, Reads
from connectors.buildium.signature import sign
from connectors.buildium.webhook import BuildiumWebhooks, instant
from connectors.ports import Refused, WebhookReader
from schemas.base import EntityKind
from schemas.pms import FetchOrigin, FetchRequest
from tests.connectors import SLOW_MACHINE

NOW = datetime(2025, 11, 22, 12, 0, tzinfo=UTC)
STAMP = str(int(NOW.timestamp()))
SECRET = SecretStr("canary-secret")

CREATED_UPDATED_DELETED = """
    Applicant Association Association.MeterReading AssociationBoardMember AssociationOwner AssociationTenant
    AssociationUnit BankAccount BankAccount.Transaction Bill Bill.Payment Budget GLAccount Installation Lease
    LeaseTenant LeaseTransaction Listing OwnershipAccount OwnershipAccountTransaction PhoneLog Rental
    Rental.MeterReading RentalUnit Task Task.History TaskCategory Vendor Vendor.Transaction VendorCategory WorkOrder
"""
NAMES = {
    *(f"{name}.{verb}" for name in CREATED_UPDATED_DELETED.split() for verb in ("Created", "Updated", "Deleted")),
    *(
        f"{name}.{verb}"
        for name in ("ApplicantApplication", "Application.Transaction")
        for verb in ("Created", "Updated")
    ),
    "Lease.MoveOut.Created",
}


def reader(*, enabled: bool = True, secrets: tuple[SecretStr, ...] = (SECRET,)) -> BuildiumWebhooks:
    return BuildiumWebhooks("acme", "buildium", secrets, enabled)


def headers(body: bytes, secret: SecretStr = SECRET) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", b"application/json"),
        (b"buildium-webhook-timestamp", STAMP.encode()),
        (b"buildium-webhook-signature", sign(body, STAMP, secret).encode()),
    ]


def read(body: bytes | dict[str, Any], port: WebhookReader | None = None) -> FetchRequest | Refused:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return (port or reader()).read(headers(raw), raw, NOW)


def test_every_documented_event_has_a_rule() -> None:
    assert len(NAMES) == 98
    assert set(EVENTS) == NAMES
    assert len(FAMILIES) == 34


@pytest.mark.parametrize(
    ("family", "kind", "field"),
    [
        ("Rental", EntityKind.PROPERTY, "PropertyId"),
        ("RentalUnit", EntityKind.UNIT, "UnitId"),
        ("Lease", EntityKind.LEASE, "LeaseId"),
        ("Lease.MoveOut", EntityKind.LEASE, "LeaseId"),
        ("LeaseTenant", EntityKind.TENANT, "TenantId"),
        ("Listing", EntityKind.LISTING, "UnitId"),
    ],
)
def test_events_of_the_rent_roll_request_a_fetch(family: str, kind: EntityKind, field: str) -> None:
    assert EVENTS[f"{family}.Created"] == Reads(kind, field)
    request = read({"EventName": f"{family}.Created", "AccountId": 1, field: 23, "TenantId": 23})

    assert isinstance(request, FetchRequest)
    assert (request.kind, request.entity, request.ignored) == (kind, 23, None)


def test_other_events_are_recorded_with_the_reason_why_they_are_ignored() -> None:
    for name, rule in EVENTS.items():
        if isinstance(rule, Ignores):
            request = read({"EventName": name, "EventDateTime": "2022-05-10T15:12:46Z", "AccountId": 1})
            assert isinstance(request, FetchRequest)
            assert (request.event, request.kind, request.entity, request.ignored) == (
                name,
                EntityKind.UNKNOWN,
                None,
                rule.rule,
            )


def test_a_webhook_becomes_a_fetch_request_with_its_body() -> None:
    body = (
        b'{"EventName":"Rental.Updated","EventDateTime":"2022-05-10T15:12:46.2317653Z",'
        b'"AccountId":123456,"PropertyId":23}'
    )

    assert read(body) == FetchRequest(
        org="acme",
        connection="buildium",
        origin=FetchOrigin.WEBHOOK,
        event="Rental.Updated",
        kind=EntityKind.PROPERTY,
        entity=23,
        occurred_at=datetime(2022, 5, 10, 15, 12, 46, 231765, UTC),
        received_at=NOW,
        body=body,
    )


def test_an_unknown_event_is_recorded() -> None:
    request = read({"EventName": "RentalOwner.Created", "RentalOwnerId": 4})

    assert isinstance(request, FetchRequest)
    assert (request.ignored, request.kind) == ("unknown event", EntityKind.UNKNOWN)


def test_a_disabled_connection_accepts_events_and_ignores_them() -> None:
    for name, more in (("RentalUnit.Updated", {"UnitId": 5}), ("Task.Created", {}), ("New.Event", {})):
        request = read({"EventName": name, **more}, reader(enabled=False))
        assert isinstance(request, FetchRequest)
        assert request.ignored == "disabled"


@pytest.mark.parametrize("entity", [None, "23", 23.0, True, 0, -1, [], 2**63, "missing"])
def test_an_event_without_its_id_is_refused(entity: Any) -> None:
    event = {"EventName": "RentalUnit.Updated"} | ({} if entity == "missing" else {"UnitId": entity})

    assert read(event) == Refused(400, "RentalUnit.Updated needs UnitId, a positive whole number")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"EventName=Rental.Updated", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"[]", "not one event"),
        (b"null", "not one event"),
        (b'"x"', "not one event"),
        (b"{}", "no EventName"),
        (b'{"EventName":""}', "no EventName"),
        (b'{"EventName":7}', "no EventName"),
        (b'{"EventName":"\\ud800"}', "no EventName"),
        (b'{"Events":[{"EventType":"Rental.Updated"}]}', "no EventName"),
    ],
)
def test_a_signed_body_that_is_not_an_event_is_a_bad_request(body: bytes, why: str) -> None:
    refused = read(body)

    assert isinstance(refused, Refused)
    assert refused.status == 400
    assert why in refused.detail


def test_an_unsigned_body_is_not_parsed() -> None:
    good = b'{"EventName":"Rental.Updated","PropertyId":1}'
    cases: list[tuple[list[tuple[bytes, bytes]], bytes, BuildiumWebhooks]] = [
        ([], good, reader()),
        ([], b"not json", reader()),
        (headers(good, SecretStr("other")), good, reader()),
        (headers(good), good + b" ", reader(secrets=())),
        ([(b"buildium-webhook-timestamp", b"\xff"), (b"buildium-webhook-signature", b"\xff")], good, reader()),
    ]
    for given_headers, body, port in cases:
        refused = port.read(given_headers, body, NOW)
        assert isinstance(refused, Refused)
        assert refused.status == 401
        assert "canary" not in refused.detail + repr(port)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2022-05-10T15:12:46.2317653Z", datetime(2022, 5, 10, 15, 12, 46, 231765, UTC)),
        ("2022-05-10T15:12:46Z", datetime(2022, 5, 10, 15, 12, 46, tzinfo=UTC)),
        ("2022-05-10T15:12:46.5", datetime(2022, 5, 10, 15, 12, 46, 500000, UTC)),
        ("2022-05-10T17:12:46+02:00", datetime(2022, 5, 10, 15, 12, 46, tzinfo=UTC)),
        ("2022-05-10t15:12:46z", datetime(2022, 5, 10, 15, 12, 46, tzinfo=UTC)),
        ("2022-13-10T15:12:46Z", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("2022-05-10", None),
        ("", None),
        (None, None),
        (1652195566, None),
    ],
)
def test_timestamps_have_up_to_seven_digits_after_the_second(text: object, expected: datetime | None) -> None:
    assert instant(text) == expected


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner) | st.dictionaries(st.text(), inner)


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), nested, max_leaves=5)


@SLOW_MACHINE
@given(st.binary(max_size=200), st.lists(st.tuples(st.binary(max_size=30), st.binary(max_size=30)), max_size=4))
def test_no_bytes_raise(body: bytes, given_headers: list[tuple[bytes, bytes]]) -> None:
    assert isinstance(reader().read(given_headers, body, NOW), Refused)
    assert isinstance(read(body), (FetchRequest, Refused))


@SLOW_MACHINE
@given(st.sampled_from(sorted(NAMES)) | st.text(), VALUES, VALUES)
def test_no_signed_event_raises(name: str, entity: Any, when: Any) -> None:
    event = {"EventName": name, "EventDateTime": when, "UnitId": entity, "LeaseId": entity, "PropertyId": entity}

    assert isinstance(read(event), (FetchRequest, Refused))
