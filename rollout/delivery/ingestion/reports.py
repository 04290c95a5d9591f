"""Reports: what nodes say of their operations."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from django.db import InterfaceError, OperationalError, transaction

from eventstore import Batch, Metadata, append, begun_by, load_state, load_states, retry_on_conflict
from rollout.delivery.ingestion.batches import all_or_each
from rollout.delivery.ingestion.order import MessageOrder, locked_rows
from rollout.delivery.ingestion.verification import verified_reports
from rollout.delivery.scratch_successes import keep_successes
from rollout.delivery.server_logs import keep_server_logs
from rollout.domain.node.commands import RecordContact, RecordInventory
from rollout.domain.node.decider import NODE
from rollout.domain.node.events import actor_of, node_stream
from rollout.domain.node.pace import Change
from rollout.domain.placement.commands import RecordReport, RejectReport
from rollout.domain.placement.decider import PLACEMENT
from rollout.domain.placement.events import placement_stream
from rollout.domain.placement.reports import refusal
from rollout.messages import REPORTS, Report
from rollout.models import Liveness, Operation
from rollout.process.advance import advance_all
from rollout.projections.counters import operation_key
from rollout.queries.nodes import silent_among
from rollout.queries.operations import operations_by_key
from rollout.queries.rollouts import unfinished_rollouts_of

logger = logging.getLogger(__name__)

#: The longest message of a report, characters. The rest is cut off.
LONGEST_MESSAGE = 4000
#: The longest reason why a report could not be recorded, characters.
LONGEST_REASON = 500


def record_reports(bodies: Sequence[Any]) -> None:
    """Record a batch of reports in one transaction, then move their rollouts on. Reports may come more than once."""
    reports = [_tidy(report) for report in verified_reports(bodies)]
    concerned = [uid for uids in all_or_each(_record_all, reports, _try_to_reject) for uid in uids]
    advance_all(dict.fromkeys(concerned))


def _tidy(report: Report) -> Report:
    """Return the report with a message that a database can store and that is not too long."""
    return replace(report, message=_storable(report.message)[:LONGEST_MESSAGE])


def _storable(text: str) -> str:
    return text.replace("\0", "").encode(errors="replace").decode()


@retry_on_conflict
def _record_all(reports: Sequence[Report]) -> list[str]:
    """Record the reports. Return the uids of their rollouts, and of the rollouts that have work for nodes that were
    offline: a report is a sign of life too.

    A report that leads to no event is no sign of life, and its inventory is left to the next heartbeat: anyone who can read
    the queue may have kept it, and may repeat it without end.
    """
    placements = load_states([placement_stream(each.node, each.module_name) for each in reports], PLACEMENT)
    answered = _operations_of(reports)
    of_nodes, of_placements = Batch(), Batch()
    recorded: list[Report] = []
    news: list[Report] = []
    refused: list[str] = []
    for report in reports:
        placement = placements[placement_stream(report.node, report.module_name)]
        if why := refusal(placement.state, report):
            refused.append(f"{report.node} on {report.module_name}: {why}")
        record, cause = RecordReport(report=report), _caused_by(_operation_of(report, answered), report)
        if of_placements.decide(placement, PLACEMENT, record, cause):
            news.append(report)
            recorded += [] if why else [report]
    names = sorted({each.node for each in news})
    order = MessageOrder(REPORTS, names)
    for words in refused:
        order.reject("rejected", words)
    silent = silent_among(names)
    read = [*silent, *(each.node for each in news if each.inventory is not None)]
    nodes = load_states([node_stream(name) for name in read], NODE)
    for name in silent:
        order.count_change(name, Change.CONTACT)
        of_nodes.decide(nodes[node_stream(name)], NODE, RecordContact(node=name), begun_by(actor_of(name)))
    for report in news:
        if report.inventory is None:
            continue
        known = nodes[node_stream(report.node)]
        if order.accepts(report.node, report.inventory) or order.overtook(
            report.node, report.inventory, recorded=known.state.sequence
        ):
            operation = _operation_of(report, answered)
            inventory = RecordInventory(node=report.node, inventory=report.inventory)
            # After the end of the operation, the node itself is the cause of its inventory.
            awaited = None if operation is None or operation.finished_at else operation
            of_nodes.decide(known, NODE, inventory, _caused_by(awaited, report))
    with transaction.atomic():
        # Before the rows of Liveness are locked.
        append(*of_nodes.appends(), *of_placements.appends())
        keep_server_logs(recorded)
        keep_successes(recorded, answered)
        ended = [each.node for each in news if each.phase.is_final and not _has_ended(each, answered)]
        _record_liveness(names, order, ended)
    order.count_rejected()
    return [*(each.rollout for each in answered.values()), *unfinished_rollouts_of(*silent)]


def _operations_of(reports: Iterable[Report]) -> dict[str, Operation]:
    """Return the operations of the reports, by key. A report of something that no rollout asked for has none."""
    return operations_by_key(operation_key(each.rollout, each.node) for each in reports)


def _operation_of(report: Report, operations: Mapping[str, Operation]) -> Operation | None:
    operation = operations.get(operation_key(report.rollout, report.node))
    return operation if operation is not None and operation.module_name == report.module_name else None


def _caused_by(operation: Operation | None, report: Report) -> Metadata:
    """Return the metadata of an event that a report leads to: caused by the operation, or by the node itself.

    The log knows which command the node got, so the message is not asked for its cause.
    """
    actor = actor_of(report.node)
    return begun_by(actor) if operation is None else operation.leads_to(actor)


def _has_ended(report: Report, operations: Mapping[str, Operation]) -> bool:
    """Return True if no operation in progress has waited for the report."""
    operation = _operation_of(report, operations)
    return operation is None or operation.finished_at is not None


def _record_liveness(names: Sequence[str], order: MessageOrder, ended: Iterable[str]) -> None:
    """`ended`: the nodes on which an operation has ended."""
    rows = locked_rows(names)
    order.refresh(rows)
    order.allow_more(ended)
    for row in rows:
        row.last_seen, row.pace = order.now, order.pace(row.node)
        heard = order.heard.get(row.node)
        if heard is not None and not (heard.incarnation == row.incarnation and heard.counter < row.counter):
            row.incarnation, row.counter, row.former = heard.incarnation, heard.counter, list(heard.former)
    Liveness.objects.bulk_update(rows, ["last_seen", "incarnation", "counter", "former", "pace"])


def _try_to_reject(report: Report, error: Exception) -> None:
    """Record that the report was rejected, and why. Raises: as `all_or_each`."""
    why = _storable(f"It could not be recorded: {type(error).__name__}: {error}")[:LONGEST_REASON]
    try:
        _reject(RejectReport(report=report, why=why))
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        logger.exception("the rejection of a report cannot be recorded: %s", report)


@retry_on_conflict
def _reject(command: RejectReport) -> None:
    report = command.report
    loaded = load_state(placement_stream(report.node, report.module_name), PLACEMENT)
    operation = _operation_of(report, _operations_of([report]))
    append(loaded.append(PLACEMENT.decide(loaded.state, command), _caused_by(operation, report)))
