"""A module that harms its server seconds after the load: the rollout stops at the first node."""

from modfleet.packing.write import pack
from modfleet.sample import SOURCE, compile_module, sample_metadata
from tests.waiting import wait_for

#: Aborts its server five seconds after it was loaded.
ABORTS = """
#include <stdlib.h>
#define RedisModule_OnLoad greet_on_load
{greet}
#undef RedisModule_OnLoad
static void aborts(void *context, void *nothing) {{
    (void)context, (void)nothing;
    abort();
}}
__attribute__((visibility("default"))) int RedisModule_OnLoad(Context *context, String **words, int count) {{
    unsigned long long (*create_timer)(void *, long long, void (*)(void *, void *), void *);
    if (greet_on_load(context, words, count) == ERR) return ERR;
    if ((*(int (**)(const char *, void *))context)("RedisModule_CreateTimer", &create_timer)) return ERR;
    create_timer(context, 5000, aborts, 0);
    return 0;
}}
"""
VERSION = 77700


def package(folder):
    source = folder / "aborts.c"
    source.write_text(ABORTS.format(greet=SOURCE.read_text()))
    module = compile_module(source, folder / "greet.so", defines={"GREET_VERSION": str(VERSION)})
    return pack(module, sample_metadata(module, version=VERSION), folder / "greet.zip")


def test_a_module_that_aborts_seconds_after_its_load_stops_at_the_first_node(fleet, tmp_path):
    assert fleet.upload(package(tmp_path)).status_code == 201
    before = {name: fleet.valkey(name, "INFO", "server")["run_id"] for name in fleet.names}
    uid = fleet.start(VERSION, strategy={"settle_seconds": 10})
    fleet.wait_for_rollout(uid, "paused")
    assert fleet.phases(uid) == {"node-1": "failed", "node-2": "scheduled", "node-3": "scheduled"}
    operation = fleet.operation(uid, "node-1")
    assert (operation["reason"], operation["health"]["after"]) == ("server_crashed", None)
    assert "crash report" in operation["message"]
    wait_for(lambda: fleet.greeting("node-1") == "")
    after = {name: fleet.valkey(name, "INFO", "server")["run_id"] for name in fleet.names}
    assert [name for name in fleet.names if before[name] != after[name]] == ["node-1"]
    fleet.wait_for_phase("node-1", "online")
    assert fleet.node("node-1")["server_state"]["crash"] == "Its log has a crash report."
    fleet.post(f"/v2/rollouts/{uid}/abort")
    assert fleet.end_of(uid)["phase"] == "aborted"
