"""Metrics of the fleet, from the database and the broker: read at each scrape, with a dozen queries for any fleet size.

The control workers and relays have no port of their own. Their metrics are here too, from any API process.
"""

import logging
from collections import Counter
from collections.abc import Iterator

from django.db import Error
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from eventstore import database_now, head, size_bytes
from operations.broker import BrokerAwayError, depths
from operations.models import Outcome
from operations.relay_heartbeat import relay_heartbeat
from rollout.delivery.outbox import outbox
from rollout.domain.node.health import DOCTOR_FAILED, NOT_EXAMINED, WOULD_NOT_START
from rollout.domain.node.state import NodePhase
from rollout.domain.rollout.events import RolloutPhase
from rollout.messages import ServerProblem
from rollout.queries import statistics
from rollout.queries.freeze import current_freeze
from webhooks.selectors import backlog

logger = logging.getLogger(__name__)

#: Label of all reasons that this release does not know. A node may invent any, and each would be another time series.
OTHER = "other"


class FleetCollector(Collector):
    """Reads the values at each scrape."""

    def describe(self) -> list[Metric]:
        return []  # otherwise the registration would read the database

    def collect(self) -> Iterator[Metric]:
        try:
            # Read all before the first one is sent: half an answer would look like a smaller fleet.
            found = [*_rollouts(), *_operations(), *_nodes(), *_log_and_relay()]
            names = statistics.node_names()
        except Error as error:
            logger.warning("the database cannot be asked for metrics: %s", error)
            found, names = [], []
        yield gauge("modfleet_database_up", "1 if the database answered this scrape.", 1 if found else 0)
        yield from found
        yield from _broker(names)


def gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_text, value=value)


def _rollouts() -> Iterator[Metric]:
    counts = {each.phase: each for each in statistics.rollouts_by_phase()}
    rollouts = GaugeMetricFamily("modfleet_rollouts", "Rollouts, by phase.", labels=["phase"])
    for phase in RolloutPhase:
        rollouts.add_metric([phase], counts[phase].count if phase in counts else 0)
    yield rollouts
    waits = GaugeMetricFamily(
        "modfleet_rollout_waits_for_person_seconds",
        "How long the oldest rollout that waits for a person has waited, by cause; 0 if none does.",
        labels=["cause"],
    )
    since = statistics.waits_for_person()
    now = database_now() if since else None
    for cause in ("approval", "gate", "paused"):
        waits.add_metric([cause], max(0.0, (now - since[cause]).total_seconds()) if now and cause in since else 0.0)
    yield waits
    durations = HistogramMetricFamily(
        "modfleet_rollout_duration_seconds",
        "Duration of finished rollouts from the request to the end, with all waits, by phase.",
        labels=["phase"],
    )
    for each in counts.values():
        if each.ended:
            ends = zip(statistics.ROLLOUT_SECONDS, each.within, strict=True)
            buckets = [*((str(float(end)), float(count)) for end, count in ends), ("+Inf", float(each.ended))]
            durations.add_metric([each.phase], buckets, each.seconds)
    yield durations


def _operations() -> Iterator[Metric]:
    unfinished = GaugeMetricFamily(
        "modfleet_operations_unfinished", "Unfinished operations, by phase and reason.", labels=["phase", "reason"]
    )
    for (phase, reason), count in statistics.unfinished_operations_by_phase().items():
        unfinished.add_metric([phase, reason], count)
    yield unfinished
    outcomes = list(Outcome.objects.all())
    finished = CounterMetricFamily(
        "modfleet_operations_finished",
        "Finished operations, by phase and reason. Each attempt counts.",
        labels=["phase", "reason"],
    )
    seconds = CounterMetricFamily(
        "modfleet_operations_worked_seconds", "Seconds that operations took on their nodes.", labels=["phase", "reason"]
    )
    for each in outcomes:
        finished.add_metric([each.phase, each.reason], each.count)
        seconds.add_metric([each.phase, each.reason], each.seconds)
    yield finished
    yield seconds


def _nodes() -> Iterator[Metric]:
    by_phase = statistics.nodes_by_phase()
    nodes = GaugeMetricFamily("modfleet_nodes", "Nodes, by phase.", labels=["phase"])
    for phase in NodePhase:
        nodes.add_metric([phase], by_phase.get(phase, 0))
    yield nodes
    degraded = GaugeMetricFamily(
        "modfleet_nodes_degraded", "Nodes whose server cannot be used, by reason.", labels=["reason"]
    )
    reasons: Counter[str] = Counter(
        dict.fromkeys([*ServerProblem, WOULD_NOT_START, DOCTOR_FAILED, NOT_EXAMINED, OTHER], 0)
    )
    for reason, count in statistics.degraded_nodes().items():
        reasons[reason if reason in reasons else OTHER] += count
    for reason, count in reasons.items():
        degraded.add_metric([reason], count)
    yield degraded
    now = database_now()
    facts = statistics.fact_counts(now)
    yield gauge(
        "modfleet_nodes_restarting",
        "Nodes whose server has restarted three times or more in ten minutes.",
        facts.restarting,
    )
    yield gauge(
        "modfleet_nodes_include_missing",
        "Nodes whose server's configuration does not include the agent's file.",
        facts.include_missing,
    )
    yield gauge(
        "modfleet_nodes_persistence_conflict",
        "Nodes with two lines of the server's configuration that load the same module.",
        facts.conflicting,
    )
    yield gauge("modfleet_nodes_duplicate", "Nodes of which two agents are heard.", statistics.duplicate_nodes())
    yield gauge(
        "modfleet_nodes_clock_skewed", "Nodes whose clock differs by more than 30 s.", statistics.skewed_nodes()
    )
    maintenance = GaugeMetricFamily(
        "modfleet_node_maintenance",
        "1 from before the agent restarts its server until the node is in service again.",
        labels=["node", "shard", "action"],
    )
    for labels in statistics.nodes_in_maintenance():
        maintenance.add_metric(labels, 1)
    yield maintenance
    dropped = CounterMetricFamily(
        "modfleet_dropped_messages",
        "Messages that the control workers have dropped because they could not use them.",
        labels=["queue", "reason"],
    )
    for queue, reason, count in statistics.dropped_messages():
        dropped.add_metric([queue, reason], count)
    yield dropped
    placements = GaugeMetricFamily("modfleet_node_modules", "Nodes by module and state.", labels=["module", "state"])
    drifted = GaugeMetricFamily(
        "modfleet_drifted_node_modules",
        "Nodes on which a module is not as the last operation left it, by module.",
        labels=["module"],
    )
    by_module, since = dict[str, int](), None
    for each in statistics.placements_by_state():
        placements.add_metric([each.module_name, each.state], each.count)
        by_module[each.module_name] = by_module.get(each.module_name, 0) + each.drifted
        since = min(filter(None, (since, each.drifted_at)), default=None)
    for module, count in by_module.items():
        drifted.add_metric([module], count)
    yield placements
    yield drifted
    age = max(0.0, (now - since).total_seconds()) if since else 0
    yield gauge("modfleet_oldest_drift_seconds", "Since when a module has differed on any node; 0 if none does.", age)
    frozen = 1 if current_freeze() else 0
    yield gauge("modfleet_fleet_frozen", "1 while nothing may be released anywhere.", frozen)


def _log_and_relay() -> Iterator[Metric]:
    now, position = database_now(), head()
    yield gauge("modfleet_log_position", "Position of the newest event in the log.", position)
    yield gauge(
        "modfleet_log_size_bytes",
        "Size of the log on disk, with indexes; on SQLite of the whole database.",
        size_bytes(),
    )
    pending = outbox(now)
    oldest = pending.oldest_released_at
    age = max(0.0, (now - oldest).total_seconds()) if oldest else 0
    yield gauge("modfleet_outbox_commands", "Commands that are due to be published.", pending.due)
    yield gauge(
        "modfleet_outbox_oldest_seconds", "Age of the oldest command that was never published; 0 if there is none.", age
    )
    if (heartbeat := relay_heartbeat()) is not None:
        lag = max(0.0, (now - heartbeat.looked_at).total_seconds())
        yield gauge("modfleet_relay_lag_seconds", "Seconds since a relay last had nothing left to do.", lag)
        behind = max(0, position - heartbeat.position)
        yield gauge("modfleet_relay_lag_events", "Events since the position that this relay has processed.", behind)
    waiting = backlog(position)
    webhooks = GaugeMetricFamily("modfleet_webhooks", "Webhooks, by state.", labels=["state"])
    webhooks.add_metric(["healthy"], waiting["enabled"] - waiting["failing"])
    for state in ("failing", "disabled"):
        webhooks.add_metric([state], waiting[state])
    yield webhooks
    yield gauge(
        "modfleet_webhook_backlog_events",
        "Log positions by which all enabled webhooks together are behind.",
        waiting["behind"],
    )
    yield gauge(
        "modfleet_webhook_backlog_longest_events",
        "Log positions by which the slowest enabled webhook is behind.",
        waiting["most_behind"],
    )


def _broker(nodes: list[str]) -> Iterator[Metric]:
    try:
        found, is_up = depths(nodes), True
    except BrokerAwayError:
        found, is_up = None, False
    yield gauge("modfleet_broker_up", "1 if the broker answered this scrape.", 1 if is_up else 0)
    if found is None:
        return
    queues = GaugeMetricFamily(
        "modfleet_control_queue_messages", "Messages that wait for the control workers.", labels=["queue"]
    )
    for name, length in found.control.items():
        queues.add_metric([name], length)
    yield queues
    yield gauge("modfleet_node_queue_messages", "Commands that wait in the queues of all nodes.", found.nodes)
    yield gauge(
        "modfleet_node_queue_longest_messages",
        "Commands that wait in the longest queue of a node.",
        found.longest_node,
    )
