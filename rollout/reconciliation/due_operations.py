"""Decides which operations are due: those that bring nodes to their desired state, and need not wait.

The rules are in `docs/reference/desired-state.md`.
"""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from accounts.selectors import drift_is_corrected
from artifacts_app.selectors import artifact_documents
from eventstore import database_now
from rollout.domain.node.events import ABSENT
from rollout.messages import Action, Activation
from rollout.queries.freeze import current_freeze
from rollout.reconciliation import desired_state
from rollout.reconciliation.desired_state import DifferingModule, MissedTarget
from rollout.reconciliation.differences import Differences, Place, place_of
from rollout.reconciliation.needed_operation import Intent, NeededOperation
from rollout.reconciliation.transient_failures import JUDGED_AGAIN, repetitions

#: How long the second operation on a module of a node waits after the first; it doubles with each further one, seconds.
BACKOFF_SECONDS = 30.0
LONGEST_BACKOFF_SECONDS = 3600.0
#: Operations that ended longer ago do not count for the backoff, seconds.
COUNTED_SECONDS = 3600.0


def due_operations(differences: Differences) -> tuple[dict[Intent, list[str]], datetime | None]:
    """Return the nodes of the operations that are due now, by intent, and when the next one is due, if one waits."""
    found = [*_corrections(differences), *repetitions(differences), *_missed_targets(differences)]
    needed = _without_unloads({each.place: each for each in found})
    if not needed or current_freeze():
        return {}, None
    now = database_now()
    due_at = _due_at(needed, now)
    due: dict[Intent, list[str]] = {}
    for each in _with_a_build(needed.values()):
        if due_at.get(each.place, now) <= now:
            due.setdefault(each.intent, []).append(each.node)
    return due, min((at for at in due_at.values() if at > now), default=None)


def _missed_targets(differences: Differences) -> list[NeededOperation]:
    """Return what the cluster's target asks for, except what a person or a permanent reason kept from a node before."""
    if not differences.missed:
        return []
    kept_away = {
        (each.node, each.module_name, each.version, each.action)
        for each in desired_state.newest_unreleased_operations(differences.missed)
        if each.reason not in JUDGED_AGAIN
    }
    return [
        NeededOperation(node=each.node, platforms=each.platforms, intent=_intent_of(each))
        for each in differences.missed.values()
        if (each.node, each.module_name, each.version, each.action) not in kept_away
    ]


def _intent_of(missed: MissedTarget) -> Intent:
    return Intent(
        action=missed.action,
        module_name=missed.module_name,
        version=missed.version,
        activation=missed.activation,
    )


def _corrections(differences: Differences) -> list[NeededOperation]:
    """Return what corrects drift. Modules that are not desired stay, and modules that were unloaded by hand stay
    unloaded: a person has done that."""
    by_hand = {place_of(each.row) for each in differences.drifted if each.row.unloaded_by_hand}
    correctable = [
        each for each in differences.drifted if each.row.desired != ABSENT and place_of(each.row) not in by_hand
    ]
    return _first_steps(correctable) if correctable and drift_is_corrected() else []


def _first_steps(modules: Iterable[DifferingModule]) -> list[NeededOperation]:
    """Return one operation for each module of a node, even if several of its versions differ: the desired loaded version
    first."""
    steps: dict[Place, NeededOperation] = {}
    for each in sorted(modules, key=lambda each: each.row.desired, reverse=True):
        row = each.row
        if row.desired == Activation.FILES and row.content_sha256 == row.desired_sha256:
            continue  # loaded though only its files are desired: putting them in place unloads nothing
        intent = Intent(
            action=Action.INSTALL,
            module_name=row.module_name,
            version=row.version,
            activation=Activation(row.desired),
        )
        steps.setdefault(place_of(row), NeededOperation(node=row.node, platforms=each.platforms, intent=intent))
    return list(steps.values())


def _without_unloads(needed: dict[Place, NeededOperation]) -> dict[Place, NeededOperation]:
    """Return the operations without those that would unload a module, which only a person's rollout does: since the
    module was loaded there, clients or data may have come to need it."""
    unloading = {place: version for place, each in needed.items() if (version := each.unloads) is not None}
    loaded = desired_state.loaded_versions(unloading) if unloading else set()
    return {place: each for place, each in needed.items() if (*place, unloading.get(place)) not in loaded}


def _with_a_build(operations: Collection[NeededOperation]) -> list[NeededOperation]:
    """Return the operations without installations on nodes for which there is no build, or none any more."""
    installed = {(each.intent.module_name, each.intent.version) for each in operations if _installs(each)}
    available = {
        (document["module_name"], document["version"], build["platform"])
        for document in (artifact_documents(installed) if installed else ())
        for build in document["builds"]
    }
    return [
        each
        for each in operations
        if not _installs(each)
        or any((each.intent.module_name, each.intent.version, platform) in available for platform in each.platforms)
    ]


def _installs(operation: NeededOperation) -> bool:
    return operation.intent.action == Action.INSTALL


def _due_at(places: Collection[Place], now: datetime) -> dict[Place, datetime]:
    """Return when the next operation is due, by how many the reconciler has run there lately."""
    recent = desired_state.reconciler_operations(places, since=now - timedelta(seconds=COUNTED_SECONDS))
    return {
        place: newest + timedelta(seconds=min(BACKOFF_SECONDS * 2.0 ** (count - 1), LONGEST_BACKOFF_SECONDS))
        for place, (count, newest) in recent.items()
    }
