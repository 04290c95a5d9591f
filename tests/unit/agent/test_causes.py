"""Causes by the words of server and dynamic linker: what cannot be brought about in a test without root, or at all."""

import pytest
from redis.exceptions import NoPermissionError, ResponseError

from rollout.agent.server.causes import LoadRefusedError, UnloadRefusedError, refusal, why_not_loaded
from rollout.agent.server.session import LoadedModule, RefusedError
from rollout.messages import Reason

MODULE = LoadedModule(name="m", version=1, path="/m/m/1/m.so")
ANSWER = RefusedError(ResponseError("Error loading the extension. Please check the server logs."))
OPEN = "# Module /m/m/1/m.so failed to load: {}: cannot open shared object file: {}"

LINES = [
    ((), Reason.LOAD_FAILED),
    ((OPEN.format("/m/m/1/m.so", "Permission denied"),), Reason.FILE_NOT_READABLE),
    ((OPEN.format("libx.so", "Permission denied"),), Reason.FILE_NOT_READABLE),
    ((OPEN.format("/m/m/1/m.so", "Too many open files"),), Reason.LOAD_FAILED),
    (
        (
            "# Module /m/m/1/m.so failed to load: /m/m/1/m.so: failed to map segment from shared object: Permission denied",
        ),
        Reason.EXECUTION_FORBIDDEN,
    ),
    (("# Module /m/m/1/m.so failed to load: /m/m/1/m.so: wrong ELF class: ELFCLASS32",), Reason.LOAD_FAILED),
    (("# Module /m/other/1/other.so failed to load: It does not have execute permissions.",), Reason.LOAD_FAILED),
]


@pytest.mark.parametrize(("lines", "reason"), LINES)
def test_a_refused_load(lines, reason):
    failure = why_not_loaded(LoadRefusedError(MODULE, ANSWER), lines, {})
    assert failure.reason is reason
    assert "The server refuses to load m 1: " in failure.message


def test_no_advice_where_the_cause_is_not_known():
    refused = LoadRefusedError(MODULE, ANSWER)
    assert (
        why_not_loaded(refused, ("# <m> something new", "# Module /m/m/1/m.so initialization failed."), {}) is refused
    )


def test_what_else_went_wrong_stays():
    refused = LoadRefusedError(MODULE, ANSWER, note="m 0 was not loaded again: no.")
    lines = ("# Module /m/m/1/m.so failed to load: It does not have execute permissions.",)
    assert why_not_loaded(refused, lines, {}).message.endswith("m 0 was not loaded again: no.")


def test_another_cause_than_a_taken_command_wins():
    """The server did not come as far as to the module's own commands."""
    lines = ("# Module /m/m/1/m.so failed to load: It does not have execute permissions.",)
    assert why_not_loaded(LoadRefusedError(MODULE, ANSWER), lines, {"get": ""}).reason is Reason.FILE_NOT_EXECUTABLE


def test_an_unload_that_is_refused_for_a_new_reason():
    failure = UnloadRefusedError(MODULE, RefusedError(ResponseError("Error unloading module: it rains")))
    assert (failure.reason, failure.exports_types) == (Reason.UNLOAD_REFUSED, False)
    assert failure.message == "The server refuses to unload m 1: Error unloading module: it rains."


def test_the_name_of_the_agents_user_is_not_repeated():
    failure = refusal(RefusedError(NoPermissionError("User bob has no permissions to run the 'module|load' command")))
    assert failure.reason is Reason.PERMISSION_DENIED
    assert "bob" not in failure.message


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("unknown command 'MODULE', with args beginning with: 'LOAD'", Reason.MODULE_COMMAND_DISABLED),
        ("unknown command `module`, with args beginning with: `LOAD`", Reason.MODULE_COMMAND_DISABLED),
        ("unknown command 'INFO', with args beginning with:", Reason.SERVER_UNREACHABLE),
        ("max number of clients reached", Reason.SERVER_UNREACHABLE),
    ],
)
def test_a_refusal_of_everything(answer, reason):
    assert refusal(RefusedError(ResponseError(answer))).reason is reason
