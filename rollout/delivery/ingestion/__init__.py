"""Report ingestion: records what agents send, reports and heartbeats, in batches. A message may come any number of times.

The order in which a node sent its messages is checked against what it sent before (`order`). A message with an order that
cannot be right is dropped. So a faulty node harms only what is known about itself, and for three heartbeats at most.
Changes that come too often are recorded now and then (`domain.node.pace`).
"""

from rollout.delivery.ingestion.dropped import record_dropped
from rollout.delivery.ingestion.heartbeats import record_heartbeats
from rollout.delivery.ingestion.reports import record_reports

__all__ = ["record_dropped", "record_heartbeats", "record_reports"]
