"""Tests of the runner of a scan."""

from streams.core.flows import encoded
from streams.runners.scan import Scan
from tests.streams.runners.stage import emit_of


def test_a_scan_yields_records_with_prefixed_topics_and_nulls() -> None:
    scan = Scan(lambda _views, partition: [None, emit_of(f"org{partition}:due")], prefix="p.")

    assert list(scan({}, 3)) == [None, encoded(emit_of("org3:due"), "p.")]
