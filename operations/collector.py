"""What the database and the broker know of the fleet, read at each scrape: a dozen queries, however large it is.

The control workers and relays have no port of their own: what they do is seen here, whichever process is asked.
"""

import logging
from collections.abc import Iterator

from django.db import Error
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from eventstore import database_now, head, size_bytes
from operations.broker import BrokerAwayError, depths
from operations.models import Outcome
from operations.relay_heartbeat import relay_heartbeat
from rollout.delivery.outbox import outbox
from rollout.domain.rollout.events import RolloutPhase
from rollout.queries import statistics
from webhooks.selectors import backlog

logger = logging.getLogger(__name__)


class FleetCollector(Collector):
    """Asks anew each time it is collected."""

    def describe(self) -> list[Metric]:
        return []  # or registering it would ask the database

    def collect(self) -> Iterator[Metric]:
        try:
            # All of them before the first one is told: half an answer would look like a fleet that has shrunk.
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
    durations = HistogramMetricFamily(
        "modfleet_rollout_duration_seconds",
        "From the request to the end of rollouts that have ended, with all that they waited for; by their phase.",
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
        "modfleet_operations_unfinished", "Operations that have not ended, by phase.", labels=["phase", "reason"]
    )
    for (phase, reason), count in statistics.unfinished_operations_by_phase().items():
        unfinished.add_metric([phase, reason], count)
    yield unfinished
    outcomes = list(Outcome.objects.all())
    finished = CounterMetricFamily(
        "modfleet_operations_finished",
        "Operations that have ended, each attempt counted, by phase and reason.",
        labels=["phase", "reason"],
    )
    seconds = CounterMetricFamily(
        "modfleet_operations_worked_seconds", "What nodes said that operations took them.", labels=["phase", "reason"]
    )
    for each in outcomes:
        finished.add_metric([each.phase, each.reason], each.count)
        seconds.add_metric([each.phase, each.reason], each.seconds)
    yield finished
    yield seconds


def _nodes() -> Iterator[Metric]:
    by_phase = statistics.nodes_by_phase()
    nodes = GaugeMetricFamily("modfleet_nodes", "Nodes, by phase.", labels=["phase"])
    for phase in ("online", "offline", "draining", "decommissioned"):
        nodes.add_metric([phase], by_phase.get(phase, 0))
    yield nodes
    yield gauge(
        "modfleet_nodes_clock_skewed", "Nodes whose clock differs by more than 30 s.", statistics.skewed_nodes()
    )
    dropped = CounterMetricFamily(
        "modfleet_dropped_messages",
        "Messages of the broker that the control workers could not use, and dropped.",
        labels=["queue", "reason"],
    )
    for queue, reason, count in statistics.dropped_messages():
        dropped.add_metric([queue, reason], count)
    yield dropped
    placements = GaugeMetricFamily(
        "modfleet_node_modules", "Nodes on which a module is in a state.", labels=["module", "state"]
    )
    drifted = GaugeMetricFamily(
        "modfleet_drifted_node_modules",
        "Nodes on which a module is not as the last operation left it.",
        labels=["module"],
    )
    now, by_module, since = database_now(), dict[str, int](), None
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
    frozen = statistics.frozen_since()
    yield gauge("modfleet_fleet_frozen", "1 while nothing may be released anywhere.", 1 if frozen else 0)


def _log_and_relay() -> Iterator[Metric]:
    now, position = database_now(), head()
    yield gauge("modfleet_log_position", "Position of the newest event of the log.", position)
    yield gauge("modfleet_log_size_bytes", "The log on disk, with indexes; on SQLite the whole database.", size_bytes())
    standing = outbox(now)
    oldest = standing.oldest_released_at
    age = max(0.0, (now - oldest).total_seconds()) if oldest else 0
    yield gauge("modfleet_outbox_commands", "Commands that are to be published now.", standing.due)
    yield gauge("modfleet_outbox_oldest_seconds", "Age of the oldest that never was published; 0 if none.", age)
    if (heartbeat := relay_heartbeat()) is not None:
        lag = max(0.0, (now - heartbeat.looked_at).total_seconds())
        yield gauge("modfleet_relay_lag_seconds", "Since a relay had last done all that was due.", lag)
        behind = max(0, position - heartbeat.position)
        yield gauge("modfleet_relay_lag_events", "How much the log has grown since that relay looked.", behind)
    waiting = backlog(position)
    webhooks = GaugeMetricFamily("modfleet_webhooks", "Webhooks, by state.", labels=["state"])
    webhooks.add_metric(["healthy"], waiting["enabled"] - waiting["failing"])
    for state in ("failing", "disabled"):
        webhooks.add_metric([state], waiting[state])
    yield webhooks
    yield gauge(
        "modfleet_webhook_backlog_events",
        "Positions of the log by which all enabled webhooks together are behind.",
        waiting["behind"],
    )
    yield gauge(
        "modfleet_webhook_backlog_longest_events",
        "Positions of the log by which the slowest enabled webhook is behind.",
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
    yield gauge("modfleet_node_queue_messages", "Commands that wait in all nodes' queues.", found.nodes)
    yield gauge(
        "modfleet_node_queue_longest_messages",
        "Commands that wait in the longest of the nodes' queues.",
        found.longest_node,
    )
