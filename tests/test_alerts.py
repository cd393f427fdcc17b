"""The alerts in ``deploy/prometheus``: they name metrics that exist, and fire for what they are named after."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from streams.observability.metrics import CATALOGUE

RULES: Final = Path(__file__).parents[1] / "deploy" / "prometheus" / "alerts.yml"

CASES: Final = {
    "RentStreamUndelivered": (
        'rentstream_oldest_undelivered_seconds{sink="rentsync"}',
        "901+60x40",
        {"sink": "rentsync"},
    ),
    "RentStreamReceiverHold": ('rentstream_receiver_hold{sink="rentsync"}', "1x40", {"sink": "rentsync"}),
    "RentStreamDeadLetters": (
        'rentstream_dead_letters_total{origin="deliveries.batches",reason="rejected"}',
        "_x5 1x35",
        {"origin": "deliveries.batches", "reason": "rejected"},
    ),
    "RentStreamFlowStopped": ('rentstream_stopped_partitions{flow="emit_batches"}', "1x40", {"flow": "emit_batches"}),
    "RentStreamLag": ('rentstream_consumer_lag_seconds{topic="t",partition="0"}', "61x40", {"topic": "t"}),
    "RentStreamRetriesOverdue": ('rentstream_retry_overdue_seconds{rung="1m"}', "61x40", {"rung": "1m"}),
    "RentStreamWebhooksRefused": (
        'rentstream_webhooks_total{system="buildium",result="unsigned"}',
        "_x2 4x38",
        {"system": "buildium", "result": "unsigned"},
    ),
    "RentStreamRecordsLost": ('rentstream_lost_records_total{topic="t"}', "0x2 7x38", {"topic": "t"}),
    "RentStreamRemovalsHeld": ('rentstream_held_removals{system="buildium"}', "41x40", {"system": "buildium"}),
    "RentStreamNotSwept": ('rentstream_unswept_connections{system="buildium"}', "1x90", {"system": "buildium"}),
    "RentStreamViewBehind": ("rentstream_view_age_seconds", "61x40", {}),
}
"""By alert: a series, what it has minute by minute, and the labels of the alert that follows."""

SLOW: Final = ("RentStreamNotSwept", None)
"""Those that are looked at after more than an hour."""

QUIET: Final = """\
      - series: 'rentstream_oldest_undelivered_seconds{sink="rentsync"}'
        values: '0x90'
      - series: 'rentstream_dead_letters_total{origin="deliveries.batches",reason="rejected"}'
        values: '5x90'
      - series: 'rentstream_webhooks_total{system="buildium",result="accepted"}'
        values: '0+5x90'
      - series: 'rentstream_view_age_seconds'
        values: '1x90'
"""


def test_every_alert_is_about_metrics_that_exist() -> None:
    text = RULES.read_text(encoding="utf-8")
    assert set(re.findall(r"\brentstream_[a-z_]+", text)) <= {spec.name for spec in CATALOGUE}
    assert re.findall(r"- alert: (\w+)", text) == list(CASES)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, of Prometheus, is not installed")
@pytest.mark.parametrize("alert", [*CASES, None])
def test_an_alert_fires_for_its_metric_alone(tmp_path: Path, alert: str | None) -> None:
    """Without a fault none does."""
    series, values, labels = CASES[alert] if alert else ("", "", {})
    given = f"      - series: '{series}'\n        values: '{values}'\n" if alert else QUIET
    firing = f'max by ({", ".join(["alertname", *labels])}) (ALERTS{{alertstate="firing"}})'
    named = {"alertname": alert, **labels}
    sample = "{" + ", ".join(f'{name}="{value}"' for name, value in named.items()) + "}"
    file = tmp_path / "test.yml"
    file.write_text(
        f"rule_files: [{RULES}]\n"
        "tests:\n"
        "  - interval: 1m\n"
        "    input_series:\n"
        f"{given}"
        "    promql_expr_test:\n"
        f"      - expr: '{firing}'\n"
        f"        eval_time: {80 if alert in SLOW else 10}m\n"
        f"        exp_samples: {[{'labels': sample, 'value': 1}] if alert else []}\n",
        encoding="utf-8",
    )

    found = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)

    assert found.returncode == 0, found.stdout + found.stderr
