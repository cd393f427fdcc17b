"""The shell of a scan."""

from streams.core.flows import encoded
from streams.runners.scan import Scan
from tests.streams.runners.stage import emit_of


def test_what_a_scan_says_goes_to_the_topic_under_its_prefix_and_pauses_are_passed_on() -> None:
    scan = Scan(lambda _views, partition: [None, emit_of(f"org{partition}:due")], prefix="p.")

    assert list(scan({}, 3)) == [None, encoded(emit_of("org3:due"), "p.")]
