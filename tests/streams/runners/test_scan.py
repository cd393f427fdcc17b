"""The shell of a scan."""

from schemas.codec import encode
from schemas.rent_roll import SweptRow
from streams.core.flows import Emit, ProducerRecord
from streams.runners.scan import Scan


def test_what_a_scan_says_goes_to_the_topic_under_its_prefix_and_pauses_are_passed_on() -> None:
    said = SweptRow(seq=1)
    scan = Scan(lambda _views, partition: [None, Emit("pms.sweeps", f"org{partition}", said)], prefix="p.")
    assert list(scan({}, 3)) == [None, ProducerRecord("p.pms.sweeps", b"org3", encode(said))]
