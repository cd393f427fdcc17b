"""A partition that ends before what a group has committed: an unclean election, or a topic that was created again."""

import logging

from streams.core.observer import Observer

log = logging.getLogger("streams.backends")


def note_lost(observer: Observer, topic: str, partition: int, committed: int, end: int) -> None:
    """Report that a group continues at the end of a partition, and how many records may be missing."""
    log.error(
        "%s-%d ends at %d, but %d was committed: Kafka has lost up to %d records, or the topic was created again. "
        "Reading continues at the end; the next complete sweep finds what changed meanwhile",
        topic,
        partition,
        end,
        committed,
        committed - end,
    )
    observer.records_lost(topic, committed - end)
