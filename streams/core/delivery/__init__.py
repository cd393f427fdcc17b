"""Deliveries: what each receiver has to be sent of a property, as a state machine over one row of table ``deliveries``.

`states` holds the transitions, `cut` decides what a batch carries, and `machine` applies both to the rows.
"""

from streams.core.delivery.machine import Cause, ReadOffer, apply, delivery_key, receiver_key

__all__ = ["Cause", "ReadOffer", "apply", "delivery_key", "receiver_key"]
