"""The catalogue of metrics, and the HTTP endpoints of a process."""

import asyncio
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streams.observability.metrics import CATALOGUE, CLOSED, OTHER, Metrics
from streams.observability.probes import Heartbeat, Probes, ProbesError


def test_names_and_labels_of_metrics_are_a_contract() -> None:
    """Dashboards and alerts depend on every name and its labels."""
    expected = {
        "rentstream_records_total": ("flow", "verdict"),
        "rentstream_record_seconds": ("flow",),
        "rentstream_scan_seconds": ("flow",),
        "rentstream_calls_total": ("port", "outcome"),
        "rentstream_call_seconds": ("port",),
        "rentstream_webhooks_total": ("system", "result"),
        "rentstream_consumer_lag": ("topic", "partition"),
        "rentstream_consumer_lag_seconds": ("topic", "partition"),
        "rentstream_parked": ("rung",),
        "rentstream_retry_overdue_seconds": ("rung",),
        "rentstream_dead_letters_total": ("origin", "reason"),
        "rentstream_batches_total": ("sink", "mode", "outcome"),
        "rentstream_batch_units": ("sink",),
        "rentstream_freshness_seconds": ("stage",),
        "rentstream_oldest_undelivered_seconds": ("sink",),
        "rentstream_receiver_hold": ("sink",),
        "rentstream_open_dead_letters": ("sink",),
        "rentstream_doubts": ("kind",),
        "rentstream_held_removals": ("system",),
        "rentstream_unswept_connections": ("system",),
        "rentstream_stopped_partitions": ("flow",),
        "rentstream_lost_records_total": ("topic",),
        "rentstream_view_age_seconds": (),
        "rentstream_standby_lag": (),
        "rentstream_webhook_misses_total": ("system",),
        "rentstream_api_budget_used_ratio": ("system",),
    }

    assert {spec.name: spec.labels for spec in CATALOGUE} == expected
    assert {(name, label) for name, label in CLOSED if label not in expected[name]} == set()


def updated_metrics() -> Metrics:
    """Return metrics of which every one was updated once."""
    metrics = Metrics()
    metrics.record("maintain_rent_roll", "applied", 0.002, records=3)
    metrics.dead("pms.webhooks", "malformed")
    metrics.call("PropertySource", "ok", 0.2)
    metrics.webhook("buildium", "accepted")
    metrics.batch("rentsync", "snapshot", "acknowledged", 12)
    metrics.fresh("acknowledged", 1.5)
    metrics.missed("buildium", 2)
    metrics.standby_lag(7)
    metrics.scanned("watch_syncs", 0.01)
    metrics.watch("rentstream_api_budget_used_ratio", lambda: [(("buildium",), 0.25)])
    metrics.watch("rentstream_receiver_hold", lambda: [(("rentsync",), 1.0)])
    metrics.undelivered("rentsync", 4.0)
    metrics.open_dead_letters("rentsync", 2)
    metrics.doubts("overdue_move_out", 3)
    metrics.held_removals("buildium", 12)
    metrics.unswept("buildium", 1)
    metrics.lost("pms.webhooks", 990)
    metrics.stopped("maintain_rent_roll", 1)
    metrics.lag("pms.webhooks", 3, 17, 8.5)
    metrics.parked_now("5m", 2, 0.0)
    return metrics


def test_every_metric_can_be_updated_and_is_exported() -> None:
    """A method updates each metric; the export is valid Prometheus text and contains all of them."""
    metrics = updated_metrics()
    families = {family.name: family for family in text_string_to_metric_families(metrics.text().decode())}

    for spec in CATALOGUE:
        family = families[spec.name.removesuffix("_total")]
        assert family.type == spec.kind
        assert family.documentation == spec.help
        assert family.samples, spec.name
    assert metrics.value("rentstream_records_total", flow="maintain_rent_roll", verdict="applied") == 3
    assert metrics.value("rentstream_consumer_lag", topic="pms.webhooks", partition="3") == 17
    assert metrics.value("rentstream_batch_units_sum", sink="rentsync") == 12


def test_labels_are_closed_sets() -> None:
    """A value outside its set is counted as other, so that an id cannot create a time series."""
    metrics = Metrics()
    for number in range(50):
        metrics.webhook("buildium", f"made-up-{number}")
        metrics.dead("pms.webhooks", f"because of {number}")

    assert metrics.value("rentstream_webhooks_total", system="buildium", result=OTHER) == 50
    assert metrics.value("rentstream_dead_letters_total", origin="pms.webhooks", reason=OTHER) == 50
    assert b"made-up" not in metrics.text()


def test_metrics_share_no_state() -> None:
    """Every `Metrics` has its own registry."""
    one, other = Metrics(), Metrics()
    one.webhook("buildium", "accepted")

    assert other.value("rentstream_webhooks_total", system="buildium", result="accepted") is None


def test_an_unknown_lag_is_not_exported() -> None:
    """`forget_lag` removes the gauges; they can be set again."""
    metrics = updated_metrics()
    metrics.forget_lag()
    forgotten = metrics.value("rentstream_consumer_lag", topic="pms.webhooks", partition="3")
    metrics.lag("pms.webhooks", 3, 1, 1.0)

    assert forgotten is None
    assert metrics.value("rentstream_parked", rung="5m") is None
    assert metrics.value("rentstream_consumer_lag", topic="pms.webhooks", partition="3") == 1


def test_a_gauge_can_be_read_at_the_scrape() -> None:
    """A watched gauge exports the value that its callback returns at that moment."""
    metrics = Metrics()
    used = {("buildium",): 0.5}
    metrics.watch("rentstream_api_budget_used_ratio", used.items)
    used["buildium",] = 0.75

    assert metrics.value("rentstream_api_budget_used_ratio", system="buildium") == 0.75


# ------------------------------------------------------------------------------------------------------- the endpoints


class Process:
    """The results of the checks of a process."""

    alive = (True, "the event loop runs")
    ready = (False, "tables are recovering")


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.fixture
def probes(process: Process) -> Iterator[Probes]:
    with Probes("127.0.0.1", 0, updated_metrics(), alive=lambda: process.alive, ready=lambda: process.ready) as probes:
        yield probes


def get(probes: Probes, path: str) -> tuple[int, str, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{probes.port}{path}")
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, response.headers["content-type"], response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["content-type"], error.read()


def test_metrics_are_served(probes: Probes) -> None:
    """The response has the content type and the text that Prometheus expects."""
    status, content_type, body = get(probes, "/metrics?name=x")

    assert status == 200
    assert content_type.startswith("text/plain; version=")
    assert b'rentstream_webhooks_total{result="accepted",system="buildium"} 1.0' in body


def test_health_and_readiness_have_a_reason(probes: Probes, process: Process) -> None:
    """A process that is alive but not ready answers 200 and 503, each with a sentence; later it is ready."""
    alive, waiting = get(probes, "/healthz"), get(probes, "/readyz")
    process.ready = (True, "12 partitions are assigned")
    ready = get(probes, "/readyz")

    assert (alive[0], json.loads(alive[2])) == (200, {"ok": True, "detail": "the event loop runs"})
    assert (waiting[0], json.loads(waiting[2])) == (503, {"ok": False, "detail": "tables are recovering"})
    assert (ready[0], json.loads(ready[2])) == (200, {"ok": True, "detail": "12 partitions are assigned"})


def test_an_unknown_path_is_a_problem_document(probes: Probes) -> None:
    """The 404 names the paths that exist."""
    status, content_type, body = get(probes, "/admin")

    assert (status, content_type) == (404, "application/problem+json")
    assert "/metrics" in json.loads(body)["detail"]


def test_a_check_that_raises_is_unhealthy() -> None:
    """An exception of a check is a 503, not a broken connection."""

    def broken() -> tuple[bool, str]:
        raise KeyError("secret")

    with Probes("127.0.0.1", 0, Metrics(), alive=broken, ready=broken) as probes:
        status, _, body = get(probes, "/healthz")

    assert status == 503
    assert json.loads(body) == {"ok": False, "detail": "the check itself failed (KeyError)"}


def test_a_port_in_use_is_one_sentence() -> None:
    """The error names the setting to change."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        probes = Probes("127.0.0.1", port, Metrics(), alive=lambda: (True, ""), ready=lambda: (True, ""))
        with pytest.raises(ProbesError, match=f"cannot be served on 127.0.0.1:{port}: .* RENTSTREAM_ADMIN") as error:
            probes.start()

    assert "\n" not in str(error.value)


async def test_a_blocked_event_loop_is_unhealthy() -> None:
    """The endpoints run on another thread, so that they can report a blocked event loop."""
    heartbeat = Heartbeat(within=0.2, every=0.01)
    beating = asyncio.create_task(heartbeat.run())
    await asyncio.sleep(0.05)
    healthy = heartbeat.check()[0]
    with Probes("127.0.0.1", 0, Metrics(), alive=heartbeat.check, ready=heartbeat.check) as probes:
        time.sleep(0.4)  # blocks the event loop
        status, _, body = get(probes, "/healthz")
    beating.cancel()

    assert healthy
    assert status == 503
    assert "the event loop last ran 0." in json.loads(body)["detail"]
