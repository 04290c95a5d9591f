"""Which version of a module the whole cluster should have."""

from rollout.domain.rollout.events import Origin, RolloutPhase
from rollout.messages import Action
from rollout.models import ClusterTarget, Rollout


def update_target(rollout: Rollout, phase: RolloutPhase) -> None:
    """Set the target of the module if the rollout named no nodes and has succeeded. A rollback that restored at least one
    node restores the previous target.

    A rollout of the vendor's routes sets the target also if it has succeeded on some nodes only. The reconciler brings
    the module to the nodes that were skipped because they were offline.
    """
    has_brought = phase == RolloutPhase.SUCCEEDED or (
        phase == RolloutPhase.COMPLETED_WITH_FAILURES and rollout.origin == Origin.VENDOR and rollout.succeeded
    )
    target = ClusterTarget.objects.filter(module_name=rollout.module_name).first()
    if rollout.rollback_of:
        if target is not None and target.rollout == rollout.rollback_of and rollout.rolled_back:
            _restore_target(target)
    elif has_brought and not rollout.named:
        _replace_target(target, rollout)


def _replace_target(target: ClusterTarget | None, rollout: Rollout) -> None:
    is_removal = rollout.action == Action.REMOVE
    if is_removal and (target is None or target.version != rollout.version):
        return
    former = None
    if target is not None:
        former = {name: getattr(target, name) for name in ("version", "activation", "rollout", "position")}
    ClusterTarget(
        module_name=rollout.module_name,
        version=None if is_removal else rollout.version,
        activation=rollout.activation,
        rollout=rollout.uid,
        position=rollout.started_position,
        former=former,
    ).save()


def _restore_target(target: ClusterTarget) -> None:
    if target.former is None:
        target.delete()
        return
    ClusterTarget(module_name=target.module_name, former=None, **target.former).save()
