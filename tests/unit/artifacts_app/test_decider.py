"""The rules of one artifact: given(events).when(command).then(events)."""

from dataclasses import replace

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from artifacts_app.decider import ARTIFACT, AddBuild, DeleteArtifact
from artifacts_app.errors import ArtifactExistsError
from artifacts_app.events import ArtifactDeleted, ArtifactUploaded

BUILD = ArtifactUploaded(
    module_name="greet",
    version=1,
    platform="linux/x86_64",
    content_sha256="a" * 64,
    package_sha256="b" * 64,
    size=10,
    storage_key="b/1",
    module_file="greet.so",
    members=(),
    dependencies=(),
    document={},
)
REZIPPED = replace(BUILD, package_sha256="c" * 64, storage_key="c/1")
OTHER = replace(BUILD, content_sha256="d" * 64)
FOR_ARM = replace(OTHER, platform="linux/aarch64")
DELETE = DeleteArtifact(module_name="greet", version=1)
DELETED = ArtifactDeleted(module_name="greet", version=1)


def decided(events, command):
    return ARTIFACT.decide(ARTIFACT.fold(events), command)


@pytest.mark.parametrize(
    ("given", "when", "then"),
    [
        pytest.param([], AddBuild(build=BUILD), [BUILD], id="a first build"),
        pytest.param([BUILD], AddBuild(build=BUILD), [], id="the same again is nothing new"),
        pytest.param([BUILD], AddBuild(build=REZIPPED), [], id="nor is the same content in another zip"),
        pytest.param([BUILD], AddBuild(build=FOR_ARM), [FOR_ARM], id="each platform has a build of its own"),
        pytest.param([BUILD, DELETED], AddBuild(build=OTHER), [OTHER], id="a deleted build may be replaced"),
        pytest.param([BUILD, FOR_ARM], DELETE, [DELETED], id="all builds are deleted at once"),
        pytest.param([], DELETE, [], id="where there is none, nothing is deleted"),
        pytest.param([BUILD, DELETED], DELETE, [], id="nor twice"),
    ],
)
def test_it_works(given, when, then):
    assert decided(given, when) == then


def test_a_build_never_changes():
    with pytest.raises(ArtifactExistsError):
        decided([BUILD], AddBuild(build=OTHER))


@for_all(st.lists(st.sampled_from([DELETE, *(AddBuild(build=each) for each in (BUILD, REZIPPED, OTHER, FOR_ARM))])))
def test_every_command_twice_yields_no_event_the_second_time(commands):
    state = ARTIFACT.initial
    for command in commands:
        try:
            state = ARTIFACT.fold(ARTIFACT.decide(state, command), state)
        except ArtifactExistsError:
            continue
        assert ARTIFACT.decide(state, command) == []
