"""What a node has of a module after an operation succeeds."""

from dataclasses import replace

from rollout.domain.placement.events import Intent, Target
from rollout.messages import Action, Activation


def desired_after(before: tuple[Target, ...], intent: Intent) -> tuple[Target, ...]:
    """Return the versions of the module on the node after a success of `intent`, by version. At most one is loaded."""
    former = {each.version: each for each in before}
    removed = {intent.version, intent.undoes}
    kept = {version: each for version, each in former.items() if version not in removed}
    if intent.action == Action.INSTALL:
        activation = intent.activation
        if intent.version in former and intent.undoes != intent.version:
            activation = max(activation, former[intent.version].activation)  # an install of files unloads nothing
        if activation == Activation.LOAD:  # a server holds one version of a module at a time
            kept = {version: replace(each, activation=Activation.FILES) for version, each in kept.items()}
        kept[intent.version] = Target(
            version=intent.version, activation=activation, content_sha256=intent.content_sha256
        )
    return tuple(kept[version] for version in sorted(kept))
