"""Modules that need others, in the database alone; and nodes that have them loaded."""

from collections.abc import Iterable
from typing import Any

from artifacts_app.events import ArtifactUploaded, artifact_stream
from artifacts_app.manifest import Member
from eventstore import Append, append
from modules_app.services import register_module
from rollout.domain.request import AT_ONCE
from rollout.messages import Phase
from tests.recorded_fleet import PLATFORM, installed, inventory, say, start


def package(
    module_name: str,
    version: int = 1,
    *platforms: str,
    needs: Iterable[str] = (),
    packed: Iterable[str] = (),
    entry_points: tuple[str, ...] = (),
    **document: Any,
) -> None:
    """Builds of the module, for Linux on x86_64 if no platform is named; its `deps/` holds what is `packed`."""
    described = {"module_name": module_name, "version": version, "commands": [], **document}
    events = [
        ArtifactUploaded(
            module_name=module_name,
            version=version,
            platform=platform,
            content_sha256=content_of(module_name, version),
            package_sha256="p",
            size=10,
            storage_key=f"{module_name}/{version}/{platform}",
            module_file=f"{module_name}.so",
            members=tuple(Member(path=f"deps/{name}.tgz", size=1, sha256="d") for name in packed),
            dependencies=tuple(sorted({*needs, *packed})),
            document={**described, "dependencies": {name: {} for name in needs}},
            entry_points=entry_points,
        )
        for platform in platforms or (PLATFORM,)
    ]
    append(Append(artifact_stream(module_name, version), 0, events))


def content_of(module_name: str, version: int = 1) -> str:
    return f"{module_name}-{version}"


def module_object(module_name: str, version: int = 1, **fields: Any) -> None:
    """Registers it; there is no package."""
    required = {
        "semantic_version": "1.0.0",
        "display_name": module_name,
        "commands": [],
        "command_line_args": "",
        "capabilities": [],
        "min_redis_version": "2.1",
    }
    document = {"module_name": module_name, "version": version, **required, **fields}
    register_module(document)


def load_on(nodes: Iterable[str], module_name: str, version: int = 1) -> None:
    """The module is wanted and loaded on the nodes."""
    uid = released(nodes, module_name=module_name, version=version)
    module = installed(version, content_of(module_name, version), module_name=module_name)
    for node in nodes:
        say(uid, node, Phase.SUCCEEDED, seconds=2.0, inventory=inventory(module))


def released(nodes: Iterable[str], **asked: Any) -> str:
    """The uid of a rollout that all its nodes have in hand."""
    return start(nodes=tuple(nodes), strategy=AT_ONCE, **asked)
