"""Commands: what an agent needs to know to carry out one operation."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from django.conf import settings

import decoding
from artifacts_app.selectors import BuildToFetch, build_to_fetch
from eventstore import database_now
from rollout.domain.node.state import Identity
from rollout.domain.placement.commands import Skip
from rollout.domain.rollout.events import Origin
from rollout.domain.strategy import Strategy
from rollout.domain.words import some_of
from rollout.messages import Action, Activation, Command, FailedCalls, Package, Replication, Way, any_known
from rollout.models import Node, Operation, Rollout
from rollout.planning.load_order import LoadOrders
from rollout.process import timeouts
from rollout.queries.failbacks import listed_addresses
from rollout.queries.learned import BuildFacts, build_facts, lost_options
from rollout.queries.operations import rollouts_that_lose_options


def commands_of(operations: Sequence[Any]) -> Iterator[tuple[Any, Command]]:
    """Return the command of each operation, which is annotated with the `incarnation` of its node's agent. An operation whose build is missing, or no longer fits the node, is ended instead."""
    nodes = Node.objects.in_bulk([each.node for each in operations])
    platforms = {name: node.fitting_platforms for name, node in nodes.items()}
    rollouts = _rollouts(each.rollout for each in operations)
    load_orders = LoadOrders(operations, platforms)
    contents = {each.key: load_orders.contents_on_node(each) for each in operations}
    former = {each.key: load_orders.contents_of_module(each) for each in operations}
    facts = build_facts(content for each in operations for content in (each.content_sha256, *former[each.key]))
    accepted = rollouts_that_lose_options(rollouts.values())
    former_masters = listed_addresses(operations)
    sent_at = database_now().timestamp()
    found: dict[tuple[str, int, str, tuple[str, ...]], BuildToFetch | None] = {}
    lacking: list[tuple[Operation, Skip]] = []
    for each in operations:
        build = None
        if each.action == Action.INSTALL and not each.fails_back_to:
            planned = (each.module_name, each.version, each.content_sha256, platforms[each.node])
            if planned not in found:
                found[planned] = build_to_fetch(*planned)
            build = found[planned]
            if build is None:
                module = load_orders.module(each)
                lacking.append((each, module.lack_of_planned_build(nodes[each.node], each.content_sha256)))
                continue
        # If its start is not known, no agent accepts the command; its next heartbeat leads to another one.
        incarnation = (each.incarnation or "unknown") if nodes[each.node].identity == Identity.SIGNED else ""
        command = replace(
            _command(each, build, rollouts[each.rollout], sent_at, load_orders, incarnation),
            fails_back_to=former_masters.get(each.key, ""),
        )
        new = facts.get(each.content_sha256, BuildFacts()) if build else BuildFacts()
        there = [facts[content] for content in contents[each.key] if content in facts]
        yield (
            each,
            replace(
                command,
                scratch_done=new.keys,
                scratch_sources=new.sources,
                has_types=command.has_types or any(known.has_types for known in (new, *there)),
                has_types_from=""
                if command.has_types
                else _names(known.types_from for known in (new, *there) if known.has_types),
                aux_data=any_known(known.aux_data for known in there),
                aux_data_from=_names(known.aux_data_from for known in there if known.aux_data),
                options=None if new.sure_options is None else tuple(sorted(new.sure_options)),
                **_options(each, rollouts[each.rollout], former[each.key], facts, is_retry=each.rollout in accepted),
            ),
        )
    timeouts.end_for_lack_of_a_build(lacking)


def _names(sources: Iterable[tuple[str, ...]]) -> str:
    """Return the nodes on whose word it is based alone; empty if a package says it for one of the builds."""
    known = [*sources]
    return some_of(sorted(set().union(*known))) if all(known) else ""


def _options(
    operation: Operation, rollout: Rollout, former: Collection[str], facts: Mapping[str, BuildFacts], *, is_retry: bool
) -> dict[str, Any]:
    """Return the fields of the command that say which options may be lost."""
    is_upgrade = operation.action == Action.INSTALL and operation.activation == Activation.LOAD
    if is_retry or operation.rollback or not is_upgrade:
        return {}
    if _keeps_options(operation, rollout, former, facts):
        return {"keep_options": True}
    lost = (lost_options(each, operation.content_sha256, facts) for each in former)
    return {"accepted_losses": tuple(sorted(set().union(*lost)))}


def _keeps_options(
    operation: Operation, rollout: Rollout, former: Iterable[str], facts: Mapping[str, BuildFacts]
) -> bool:
    """Return True if no person has accepted a plan that lists the options which the operation would lose.

    What was known before the rollout was created is in its plan. No person sees the plans of the reconciler, and a rollback
    restores what was there.
    """
    since = [facts.get(each, BuildFacts()).since for each in (operation.content_sha256, *former)]
    is_planned = all(each is not None and each < rollout.created_at for each in since)
    return operation.yields or not is_planned


def _rollouts(uids: Iterable[str]) -> dict[str, Rollout]:
    """Return the rollouts, with the fields that commands need."""
    rows = Rollout.objects.filter(uid__in=set(uids)).only(
        "uid", "strategy", "even_if_used", "adopt", "may_discard_data", "one_way", "origin", "created_at", "retry_of"
    )
    return {row.uid: row for row in rows}


def _command(
    operation: Operation,
    build: BuildToFetch | None,
    rollout: Rollout,
    sent_at: float,
    load_orders: LoadOrders,
    incarnation: str,
) -> Command:
    strategy: Mapping[str, Any] = rollout.strategy
    return Command(
        rollout=operation.rollout,
        node=operation.node,
        module_name=operation.module_name,
        version=operation.version,
        action=Action(operation.action),
        activation=Activation(operation.activation),
        generation=operation.generation,
        attempt=operation.attempt,
        # Half the life of a download link: a link never expires before its command.
        expires=sent_at + settings.ENVIRONMENT.download_seconds / 2,
        sent_at=sent_at,
        deadline_seconds=strategy["node_deadline_seconds"],
        # A rollout that was started by an older version has none.
        settle_seconds=strategy.get("settle_seconds", Strategy().settle_seconds),
        failed_calls=FailedCalls(strategy.get("health", {}).get("failed_calls", FailedCalls.WARN)),
        load_order=load_orders.of(operation.node),
        has_types=load_orders.module(operation).has_types,
        package=None if build is None else _package(build, operation.node),
        args=() if build is None else build.args,
        command_line_args="" if build is None else build.command_line_args,
        scratch_args=None if build is None else build.scratch_args,
        commands=() if build is None else build.commands,
        undoes=operation.undoes,
        way=Way(operation.way),
        may_discard_data=rollout.may_discard_data,
        one_way=rollout.one_way is not None and not operation.rollback,
        pause_seconds=strategy.get("pause_seconds", Strategy().pause_seconds),
        correlation_id=operation.correlation_id,
        incarnation=incarnation,
        release=operation.releases,
        expects=None if operation.expects is None else decoding.convert(operation.expects, Replication),
        # A rollback restores what was there before, also after the first calls.
        even_if_used=rollout.even_if_used or operation.rollback,
        adopt=rollout.adopt and not operation.rollback,
        may_unload=rollout.origin != Origin.RECONCILER,
    )


def _package(build: BuildToFetch, node: str) -> Package:
    return Package(
        url=build.url(node),
        size=build.size,
        package_sha256=build.package_sha256,
        content_sha256=build.content_sha256,
        module_file=build.module_file,
        members=build.members,
    )
