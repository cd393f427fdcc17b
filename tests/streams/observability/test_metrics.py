"""The catalogue of metrics, and the pages that show it."""

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


def test_the_catalogue_is_what_dashboards_hold_on_to() -> None:
    """Every name and its labels are a promise."""
    promised = {
        "rentstream_records_total": ("flow", "verdict"),
        "rentstream_record_seconds": ("flow",),
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
        "rentstream_webhook_misses_total": ("system",),
        "rentstream_api_budget_used_ratio": ("system",),
    }

    assert {spec.name: spec.labels for spec in CATALOGUE} == promised
    assert {(name, label) for name, label in CLOSED if label not in promised[name]} == set()


def moved() -> Metrics:
    metrics = Metrics()
    metrics.record("maintain_rent_roll", "applied", 0.002, records=3)
    metrics.dead("pms.webhooks", "malformed")
    metrics.call("PropertySource", "ok", 0.2)
    metrics.webhook("buildium", "accepted")
    metrics.batch("rentsync", "snapshot", "acknowledged", 12)
    metrics.fresh("acknowledged", 1.5)
    metrics.missed("buildium", 2)
    metrics.watch("rentstream_api_budget_used_ratio", lambda: [(("buildium",), 0.25)])
    metrics.hold("rentsync", held=True)
    metrics.undelivered("rentsync", 4.0)
    metrics.lag("pms.webhooks", 3, 17, 8.5)
    metrics.parked_now("5m", 2, 0.0)
    return metrics


def test_every_metric_can_be_moved_and_is_shown() -> None:
    """One method moves each metric; all of them stand on the page, in the form that Prometheus reads."""
    metrics = moved()
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
    """A value that no set knows is counted as other: no id ever makes a series."""
    metrics = Metrics()
    for number in range(50):
        metrics.webhook("buildium", f"made-up-{number}")
        metrics.dead("pms.webhooks", f"because of {number}")

    assert metrics.value("rentstream_webhooks_total", system="buildium", result=OTHER) == 50
    assert metrics.value("rentstream_dead_letters_total", origin="pms.webhooks", reason=OTHER) == 50
    assert b"made-up" not in metrics.text()


def test_two_processes_in_one_test_do_not_meet() -> None:
    """Every `Metrics` has a registry of its own."""
    one, other = Metrics(), Metrics()
    one.webhook("buildium", "accepted")

    assert other.value("rentstream_webhooks_total", system="buildium", result="accepted") is None


def test_a_lag_that_nobody_knows_is_not_shown() -> None:
    """After `forget_lag` the gauges are gone, and can be set anew."""
    metrics = moved()
    metrics.forget_lag()
    forgotten = metrics.value("rentstream_consumer_lag", topic="pms.webhooks", partition="3")
    metrics.lag("pms.webhooks", 3, 1, 1.0)

    assert forgotten is None
    assert metrics.value("rentstream_parked", rung="5m") is None
    assert metrics.value("rentstream_consumer_lag", topic="pms.webhooks", partition="3") == 1


def test_a_gauge_can_be_read_when_it_is_asked_for() -> None:
    """A watched gauge shows what its owner says at that moment."""
    metrics = Metrics()
    used = {("buildium",): 0.5}
    metrics.watch("rentstream_api_budget_used_ratio", used.items)
    used["buildium",] = 0.75

    assert metrics.value("rentstream_api_budget_used_ratio", system="buildium") == 0.75


# ------------------------------------------------------------------------------------------------------------ the pages


class Process:
    """What a process says of itself."""

    alive = (True, "the loop runs")
    ready = (False, "tables recover")


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.fixture
def pages(process: Process) -> Iterator[Probes]:
    with Probes("127.0.0.1", 0, moved(), alive=lambda: process.alive, ready=lambda: process.ready) as pages:
        yield pages


def get(pages: Probes, path: str) -> tuple[int, str, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{pages.port}{path}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.headers["content-type"], answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["content-type"], error.read()


def test_metrics_are_served(pages: Probes) -> None:
    """Prometheus finds its text."""
    status, kind, body = get(pages, "/metrics?name=x")

    assert status == 200
    assert kind.startswith("text/plain; version=")
    assert b'rentstream_webhooks_total{result="accepted",system="buildium"} 1.0' in body


def test_health_and_readiness_are_said_in_a_sentence(pages: Probes, process: Process) -> None:
    """Alive but not ready is 200 and 503, each with why; then it is ready."""
    alive, waiting = get(pages, "/healthz"), get(pages, "/readyz")
    process.ready = (True, "it works on 12 partitions")
    ready = get(pages, "/readyz")

    assert (alive[0], json.loads(alive[2])) == (200, {"ok": True, "detail": "the loop runs"})
    assert (waiting[0], json.loads(waiting[2])) == (503, {"ok": False, "detail": "tables recover"})
    assert (ready[0], json.loads(ready[2])) == (200, {"ok": True, "detail": "it works on 12 partitions"})


def test_another_path_is_a_problem(pages: Probes) -> None:
    """What is not here says what is."""
    status, kind, body = get(pages, "/admin")

    assert (status, kind) == (404, "application/problem+json")
    assert "/metrics" in json.loads(body)["detail"]


def test_a_check_that_raises_is_not_well() -> None:
    """A bug in a check is 503, not a broken connection."""

    def broken() -> tuple[bool, str]:
        raise KeyError("secret")

    with Probes("127.0.0.1", 0, Metrics(), alive=broken, ready=broken) as pages:
        status, _, body = get(pages, "/healthz")

    assert status == 503
    assert json.loads(body) == {"ok": False, "detail": "the check itself failed (KeyError)"}


def test_a_taken_port_is_one_clear_sentence() -> None:
    """Whoever starts a second process learns what to set."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        pages = Probes("127.0.0.1", port, Metrics(), alive=lambda: (True, ""), ready=lambda: (True, ""))
        with pytest.raises(ProbesError, match=f"cannot be served on 127.0.0.1:{port}: .* RENTSTREAM_ADMIN") as error:
            pages.start()

    assert "\n" not in str(error.value)


async def test_the_pages_answer_while_the_loop_is_stuck() -> None:
    """A blocked loop is seen from outside: health says so, from another thread."""
    heartbeat = Heartbeat(within=0.2, every=0.01)
    beating = asyncio.create_task(heartbeat.run())
    await asyncio.sleep(0.05)
    well = heartbeat.check()[0]
    with Probes("127.0.0.1", 0, Metrics(), alive=heartbeat.check, ready=heartbeat.check) as pages:
        time.sleep(0.4)  # the loop is stuck in here
        status, _, body = get(pages, "/healthz")
    beating.cancel()

    assert well
    assert status == 503
    assert "the event loop ran 0." in json.loads(body)["detail"]
