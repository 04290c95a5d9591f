"""The rules of one module object: given(events).when(command).then(events)."""

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from modules_app.decider import MODULE, DeleteModule, DescribePackage, ForgetPackages, RegisterModule
from modules_app.errors import MetadataMismatchError, ModuleExistsError, NoSuchModuleError
from modules_app.events import ModuleDeleted, ModulePackaged, ModulePackagesDeleted, ModuleRegistered

UID = "0" * 32
DOCUMENT = {"module_name": "greet", "version": 1, "display_name": "Greet"}
OTHER = {**DOCUMENT, "display_name": "Hello"}
SILENT = {"module_name": "greet", "version": 1}

REGISTER = RegisterModule(uid=UID, module_name="greet", version=1, document=DOCUMENT)
DELETE = DeleteModule(uid=UID)
REGISTERED = ModuleRegistered(uid=UID, module_name="greet", version=1, document=DOCUMENT)
DELETED = ModuleDeleted(uid=UID)


def describe(document, platform="linux/x86_64"):
    return DescribePackage(uid=UID, platform=platform, document=document)


def packaged(document, platform="linux/x86_64"):
    return ModulePackaged(uid=UID, platform=platform, document=document)


def decided(events, command):
    return MODULE.decide(MODULE.fold(events), command)


@pytest.mark.parametrize(
    ("given", "when", "then"),
    [
        pytest.param([], REGISTER, [REGISTERED], id="a new object is registered"),
        pytest.param([REGISTERED], REGISTER, [], id="the same again is nothing new"),
        pytest.param([REGISTERED, DELETED], REGISTER, [REGISTERED], id="deleted, it may be registered again"),
        pytest.param([REGISTERED], DELETE, [DELETED], id="what is there can be deleted"),
        pytest.param([], describe(SILENT), [packaged(SILENT)], id="a package may come first"),
        pytest.param([packaged(SILENT)], REGISTER, [REGISTERED], id="then the object"),
        pytest.param([REGISTERED], describe(SILENT), [packaged(SILENT)], id="or the object first"),
        pytest.param([packaged(SILENT)], describe(SILENT), [], id="the same package again is nothing new"),
        pytest.param(
            [packaged(SILENT)],
            describe(SILENT, "linux/aarch64"),
            [packaged(SILENT, "linux/aarch64")],
            id="another platform has a package of its own",
        ),
        pytest.param(
            [packaged(SILENT)], ForgetPackages(uid=UID), [ModulePackagesDeleted(uid=UID)], id="packages are forgotten"
        ),
        pytest.param([], ForgetPackages(uid=UID), [], id="where there are none, nothing is"),
        pytest.param(
            [packaged(OTHER), ModulePackagesDeleted(uid=UID)],
            REGISTER,
            [REGISTERED],
            id="what a deleted package said does not count",
        ),
        pytest.param([REGISTERED, DELETED], describe(OTHER), [packaged(OTHER)], id="nor what a deleted object said"),
    ],
)
def test_it_works(given, when, then):
    assert decided(given, when) == then


@pytest.mark.parametrize(
    ("given", "when", "error"),
    [
        pytest.param(
            [ModuleRegistered(uid=UID, module_name="greet", version=1, document=OTHER)],
            REGISTER,
            ModuleExistsError,
            id="another body under the same name and version",
        ),
        pytest.param([], DELETE, NoSuchModuleError, id="deleting what never was"),
        pytest.param([REGISTERED, DELETED], DELETE, NoSuchModuleError, id="deleting twice"),
        pytest.param([packaged(SILENT)], DELETE, NoSuchModuleError, id="deleting what only has a package"),
        pytest.param([REGISTERED], describe(OTHER), MetadataMismatchError, id="a package against its object"),
        pytest.param([packaged(OTHER)], REGISTER, MetadataMismatchError, id="an object against its package"),
        pytest.param(
            [packaged(SILENT), packaged(OTHER, "linux/aarch64")],
            REGISTER,
            MetadataMismatchError,
            id="an object against one of its packages",
        ),
    ],
)
def test_it_refuses(given, when, error):
    with pytest.raises(error):
        decided(given, when)


def test_a_contradiction_names_the_fields():
    with pytest.raises(MetadataMismatchError, match=r"differ in: capabilities, display_name\."):
        decided([packaged({**OTHER, "capabilities": ["types"]})], _with_capabilities())


def _with_capabilities():
    document = {**DOCUMENT, "capabilities": []}
    return RegisterModule(uid=UID, module_name="greet", version=1, document=document)


COMMANDS = st.sampled_from(
    [
        REGISTER,
        DELETE,
        ForgetPackages(uid=UID),
        *(describe(each, platform) for each in (DOCUMENT, OTHER, SILENT) for platform in ("a", "b")),
    ]
)


@for_all(st.lists(COMMANDS, max_size=12))
def test_every_command_twice_yields_no_event_the_second_time(commands):
    state = MODULE.initial
    for command in commands:
        try:
            state = MODULE.fold(MODULE.decide(state, command), state)
        except (ModuleExistsError, MetadataMismatchError, NoSuchModuleError):
            continue
        try:
            assert MODULE.decide(state, command) == []
        except NoSuchModuleError:
            assert command == DELETE  # what is gone cannot be deleted: the page documents 404
