"""Deliveries: what each receiver has to be sent of a property, as a state machine over one row of table ``deliveries``.

`states` holds the transitions, `cut` decides what a batch carries, `machine` applies both to the rows, and `recall`
decides what is tried again that no record would bring back.
"""

from streams.core.delivery.keys import deliveries_of, delivery_key, open_key, open_of, property_of, receiver_key
from streams.core.delivery.machine import Cause, ReadOffer, apply, is_open

__all__ = [
    "Cause",
    "ReadOffer",
    "apply",
    "deliveries_of",
    "delivery_key",
    "is_open",
    "open_key",
    "open_of",
    "property_of",
    "receiver_key",
]
