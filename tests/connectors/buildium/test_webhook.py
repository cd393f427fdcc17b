"""Buildium's webhooks as notices: all of its events, and everything that is none."""

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
from tests.connectors import UNHURRIED

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


def test_the_table_holds_every_event_that_buildium_documents() -> None:
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
def test_what_a_rent_roll_needs_is_read(family: str, kind: EntityKind, field: str) -> None:
    assert EVENTS[f"{family}.Created"] == Reads(kind, field)
    notice = read({"EventName": f"{family}.Created", "AccountId": 1, field: 23, "TenantId": 23})

    assert isinstance(notice, FetchRequest)
    assert (notice.kind, notice.entity, notice.ignored) == (kind, 23, None)


def test_everything_else_is_kept_and_says_why_it_is_let_pass() -> None:
    for name, rule in EVENTS.items():
        if isinstance(rule, Ignores):
            notice = read({"EventName": name, "EventDateTime": "2022-05-10T15:12:46Z", "AccountId": 1})
            assert isinstance(notice, FetchRequest)
            assert (notice.event, notice.kind, notice.entity, notice.ignored) == (
                name,
                EntityKind.UNKNOWN,
                None,
                rule.rule,
            )


def test_a_webhook_becomes_a_notice_with_its_bytes() -> None:
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


def test_an_event_that_nobody_knows_is_kept() -> None:
    notice = read({"EventName": "RentalOwner.Created", "RentalOwnerId": 4})

    assert isinstance(notice, FetchRequest)
    assert (notice.ignored, notice.kind) == ("unknown event", EntityKind.UNKNOWN)


def test_a_disabled_connection_takes_events_and_ignores_them() -> None:
    for name, more in (("RentalUnit.Updated", {"UnitId": 5}), ("Task.Created", {}), ("New.Event", {})):
        notice = read({"EventName": name, **more}, reader(enabled=False))
        assert isinstance(notice, FetchRequest)
        assert notice.ignored == "disabled"


@pytest.mark.parametrize("entity", [None, "23", 23.0, True, 0, -1, [], 2**63, "missing"])
def test_an_event_without_its_id_is_refused_in_words(entity: Any) -> None:
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
def test_what_is_signed_but_no_event_is_a_bad_request(body: bytes, why: str) -> None:
    refused = read(body)

    assert isinstance(refused, Refused)
    assert refused.status == 400
    assert why in refused.detail


def test_what_is_not_signed_is_not_even_parsed() -> None:
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
def test_when_it_happened_is_read_with_seven_digits(text: object, expected: datetime | None) -> None:
    assert instant(text) == expected


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner) | st.dictionaries(st.text(), inner)


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), nested, max_leaves=5)


@UNHURRIED
@given(st.binary(max_size=200), st.lists(st.tuples(st.binary(max_size=30), st.binary(max_size=30)), max_size=4))
def test_no_bytes_make_it_raise(body: bytes, given_headers: list[tuple[bytes, bytes]]) -> None:
    assert isinstance(reader().read(given_headers, body, NOW), Refused)
    assert isinstance(read(body), (FetchRequest, Refused))


@UNHURRIED
@given(st.sampled_from(sorted(NAMES)) | st.text(), VALUES, VALUES)
def test_no_signed_event_makes_it_raise(name: str, entity: Any, when: Any) -> None:
    event = {"EventName": name, "EventDateTime": when, "UnitId": entity, "LeaseId": entity, "PropertyId": entity}

    assert isinstance(read(event), (FetchRequest, Refused))
