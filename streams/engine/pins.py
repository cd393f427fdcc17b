"""The internals of Faust, mode and aiokafka that the engine overrides, calls or depends on.

``fingerprints`` returns what is installed; ``tests/streams/engine/test_pins.py`` holds what was installed when the
engine last passed ``make chaos``. If they differ, read the difference and run ``make chaos``; then update the test.
"""

import hashlib
import inspect
from importlib.metadata import version
from typing import Any

import aiokafka
import aiokafka.client
import aiokafka.conn
import aiokafka.consumer.fetcher as fetching
import aiokafka.consumer.group_coordinator as coordinating
import aiokafka.consumer.subscription_state as subscribing
import aiokafka.producer.message_accumulator as accumulating
import aiokafka.producer.sender as sending
import aiokafka.producer.transaction_manager as identifying
import faust.app.base
import faust.assignor.client_assignment
import faust.assignor.copartitioned_assignor
import faust.assignor.partition_assignor
import faust.stores.base
import faust.tables.base
import faust.tables.manager
import faust.tables.recovery
import faust.topics
import faust.transport.conductor
import faust.transport.consumer
import faust.transport.drivers.aiokafka as driver
import mode.services

PACKAGES = ("faust-streaming", "mode-streaming", "aiokafka")

_TOUCHED: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (
        faust.transport.consumer.Consumer,
        (
            *("getmany", "_drain_messages", "_get_active_partitions", "_set_active_tps", "on_buffer_full"),
            *("on_buffer_drop", "perform_seek", "on_partitions_revoked", "on_partitions_assigned", "stop_flow"),
            *("resume_flow", "track_message", "ack", "wait_empty", "commit", "force_commit", "_commit_tps"),
            *("_filter_committable_offsets", "_filter_tps_with_pending_acks", "_new_offset", "_should_commit"),
            *("_commit_offsets", "_add_gap", "verify_all_partitions_active"),
        ),
    ),
    (faust.transport.consumer.ThreadDelegateConsumer, ("_getmany", "seek_wait", "highwaters", "_commit")),
    (driver.Consumer, ("_new_consumer_thread", "_to_message")),
    (
        driver.AIOKafkaConsumerThread,
        ("_create_worker_consumer", "_fetch_records", "_seek_wait", "_commit", "getmany", "seek_to_committed"),
    ),
    (driver.ConsumerRebalanceListener, ("on_partitions_revoked", "on_partitions_assigned")),
    (
        faust.tables.recovery.Recovery,
        (
            *("_add", "on_rebalance", "_restart_recovery", "on_recovery_completed", "_build_highwaters"),
            *("_build_offsets", "_seek_offsets", "_slurp_changelogs", "need_recovery", "active_remaining"),
        ),
    ),
    (faust.tables.manager.TableManager, ("on_rebalance", "add", "on_start", "_update_channels")),
    (faust.tables.base.Collection, ("_new_store", "persisted_offset", "apply_changelog_batch", "on_rebalance")),
    (faust.stores.base.Store, ("__init__", "on_rebalance", "persisted_offset")),
    (
        faust.app.base.App,
        (
            *("_new_transport", "on_rebalance_start", "on_rebalance_end", "_on_partitions_revoked"),
            *("_on_partitions_assigned", "_stop_consumer", "_consumer_wait_empty", "on_stop", "on_started"),
            "on_started_init_extra_services",
        ),
    ),
    (
        faust.assignor.partition_assignor.PartitionAssignor,
        ("_protocol_assignments", "on_assignment", "assigned_standbys", "_perform_assignment", "_metadata"),
    ),
    (faust.assignor.client_assignment.ClientAssignment, ("standby_tps", "kafka_protocol_assignment")),
    (
        faust.assignor.copartitioned_assignor.CopartitionedAssignor,
        ("get_assignment", "_assign_round_robin", "_find_promotable_standby"),
    ),
    (faust.topics.Topic, ("declare", "maybe_declare")),
    (faust.transport.conductor.Conductor, ("_subscriber", "_update_indices", "acks_enabled_for")),
    (mode.services.Service, ("start", "stop", "crash", "add_runtime_dependency", "_execute_task")),
    (fetching.Fetcher, ("fetched_records",)),
    (fetching.FetchResult, ("check_assignment", "getall")),
    (
        coordinating.GroupCoordinator,
        ("check_errors", "_push_error_to_user", "_send_req", "_do_heartbeat", "_maybe_leave_group"),
    ),
    (subscribing.TopicPartitionState, ("__init__",)),
    (subscribing.Assignment, ("active", "state_value")),
    (aiokafka.AIOKafkaConsumer, ("seek_to_committed", "__init__")),
    (aiokafka.AIOKafkaProducer, ("__init__", "create_batch", "send_batch")),
    (accumulating.BatchBuilder, ("append", "size", "close")),
    (accumulating.MessageBatch, ("failure", "wait_drain")),
    (accumulating.MessageAccumulator, ("add_batch", "_pop_batch", "reenqueue", "drain_by_nodes")),
    (
        identifying.TransactionManager,
        (
            *("__init__", "set_pid_and_epoch", "has_pid", "sequence_number", "increment_sequence_number"),
            *("producer_id", "producer_epoch"),
        ),
    ),
    (sending.SendProduceReqHandler, ("_can_retry", "do", "create_request", "handle_response")),
    (aiokafka.client.AIOKafkaClient, ("send", "close")),
    (aiokafka.conn.AIOKafkaConnection, ("send",)),
)


def versions() -> dict[str, str]:
    return {package: version(package) for package in PACKAGES}


def fingerprints() -> dict[str, str]:
    """Return a fingerprint of the source of each internal; "gone" if it does not exist any more."""
    found = {}
    for owner, names in _TOUCHED:
        for name in names:
            member = inspect.getattr_static(owner, name, None)
            found[f"{owner.__module__}.{owner.__qualname__}.{name}"] = (
                "gone" if member is None else _fingerprint(member)
            )
    return found


def _fingerprint(member: Any) -> str:
    for wrapper in ("fget", "__func__", "fun"):  # a property, a class method, a task of mode's
        member = getattr(member, wrapper, member)
    text = inspect.getsource(inspect.unwrap(member))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
