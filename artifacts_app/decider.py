"""The rules of one artifact: a build never changes. The same content again is not an event."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from artifacts_app.errors import ArtifactExistsError
from artifacts_app.events import ArtifactDeleted, ArtifactEvent, ArtifactUploaded
from eventstore import Decider


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactState:
    #: The content digest of each platform's build.
    builds: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddBuild:
    build: ArtifactUploaded


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteArtifact:
    module_name: str
    version: int


ArtifactCommand = AddBuild | DeleteArtifact


def decide(state: ArtifactState, command: ArtifactCommand) -> list[ArtifactEvent]:
    match command:
        case AddBuild(build=build):
            there = state.builds.get(build.platform)
            if there == build.content_sha256:
                return []
            if there is not None:
                raise ArtifactExistsError
            return [build]
        case DeleteArtifact():
            deleted = ArtifactDeleted(module_name=command.module_name, version=command.version)
            return [deleted] if state.builds else []


def evolve(state: ArtifactState, event: ArtifactEvent) -> ArtifactState:
    match event:
        case ArtifactUploaded():
            return replace(state, builds={**state.builds, event.platform: event.content_sha256})
        case ArtifactDeleted():
            return ArtifactState()


ARTIFACT = Decider(ArtifactState(), decide, evolve)
