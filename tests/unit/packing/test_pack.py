"""`modfleet pack MODULE.so`: what a server says of the module, and the package around it."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from modfleet.packing import loading
from tests.unit.packing.conftest import module_json_of, processes_with
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[3]


def test_it_works(run, module, tmp_path):
    answer = run(module(), "-o", "greet.zip")
    document = module_json_of("greet.zip")
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert answer.stdout.startswith("packed greet.zip\n  module    greet 10000 (1.0.0)\n")
    assert (document["module_name"], document["version"], document["semantic_version"]) == ("greet", 10000, "1.0.0")
    assert document["sha256"] == hashlib.sha256((tmp_path / "greet.so").read_bytes()).hexdigest()
    assert [each["command_name"] for each in document["commands"]] == ["greet.hello"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["greet.so", "greet.zip"]


def test_commands_have_what_the_server_tells_of_them(run, module):
    run(module("needs_arguments"), "-o", "args.zip", "--args", "name Ada")
    document = module_json_of("args.zip")
    assert [each["command_name"] for each in document["commands"]] == ["args.name", "args.set"]
    assert document["commands"][1] == {
        "command_name": "args.set",
        "command_arity": -1,
        "first_key": 1,
        "last_key": 1,
        "step": 1,
        "flags": ["write", "denyoom", "module"],
    }


def test_without_a_name_it_is_named_after_the_module(run, module):
    assert run(module()).exit_code == 0
    assert list(Path().glob("*.zip")) == [Path(f"greet-1.0.0-{os.uname().machine}.zip")]


def test_the_same_input_is_the_same_file(run, module):
    path = module()
    run(path, "-o", "one.zip", "--author", "Ada")
    os.utime(path, (1, 1))
    path.chmod(0o600)
    run(path, "-o", "two.zip", "--author", "Ada")
    assert Path("one.zip").read_bytes() == Path("two.zip").read_bytes()


def test_again_is_no_change(run, module):
    first = run(module(), "-o", "greet.zip", "--json")
    inode = Path("greet.zip").stat().st_ino
    again = run(module(), "-o", "greet.zip", "--json")
    assert (first.exit_code, json.loads(first.stdout)["changed"]) == (0, True)
    assert (again.exit_code, json.loads(again.stdout)["changed"]) == (0, False)
    assert Path("greet.zip").stat().st_ino == inode


def test_another_package_is_replaced_by_force_only(run, refused, module):
    run(module(), "-o", "greet.zip")
    assert "--force" in refused("greet.so", "-o", "greet.zip", "--author", "Ada")
    assert run("greet.so", "-o", "greet.zip", "--author", "Ada", "--force").exit_code == 0
    assert module_json_of("greet.zip")["author"] == "Ada"


def test_json_has_all_of_the_summary(run, module):
    document = json.loads(run(module(), "-o", "greet.zip", "--json").stdout)
    assert document.keys() == {
        *("fine", "problems", "warnings", "changed", "file", "module_name", "version", "semantic_version"),
        *("platforms", "size", "package_sha256", "content_sha256", "module_file", "commands", "capabilities"),
        *("command_line_args", "min_redis_version", "dependencies", "servers"),
    }
    assert (document["fine"], document["problems"], document["warnings"]) == (True, [], [])
    assert document["package_sha256"] == hashlib.sha256(Path("greet.zip").read_bytes()).hexdigest()


# --- Modules that do not load -----------------------------------------------------------------------------------------


def test_a_module_that_needs_arguments_says_which(run, refused, module):
    path = module("needs_arguments")
    said = refused(path, "-o", "args.zip")
    assert said.startswith("needs_arguments.so refuses to load: ")
    assert "give me: name <word>" in said
    assert "--args" in said
    assert run(path, "-o", "args.zip", "--args", "name 'Ada Lovelace'").exit_code == 0
    assert module_json_of("args.zip")["command_line_args"] == "name 'Ada Lovelace'"


def test_arguments_for_here_only_are_not_written(run, module):
    assert run(module("needs_arguments"), "-o", "args.zip", "--run-args", "name Ada").exit_code == 0
    assert module_json_of("args.zip")["command_line_args"] == ""


def test_wrong_arguments_are_named(refused, module):
    assert "refuses to load with the arguments 'x'" in refused(module("needs_arguments"), "-o", "a.zip", "--args", "x")
    assert "No closing quotation" in refused("needs_arguments.so", "-o", "a.zip", "--args", "'x")


def test_a_module_that_takes_the_server_down(refused, module):
    assert refused(module("crashes"), "-o", "a.zip").startswith("crashes.so crashed its server when it was loaded")


def test_a_module_that_refuses(refused, module):
    said = refused(module("refuses"), "-o", "a.zip")
    assert said.startswith("refuses.so refuses to load: Module refuses.so initialization failed")


def test_a_module_that_does_not_come_to_an_end(refused, module, monkeypatch):
    monkeypatch.setattr(loading, "SECONDS", 3.0)
    assert refused(module("hangs"), "-o", "a.zip").startswith("hangs.so did not load within 3 s")


def test_terminated_it_leaves_nothing(module, temporary, tmp_path):
    words = [sys.executable, "-m", "modfleet", "pack", str(module("hangs")), "-o", str(tmp_path / "a.zip")]
    environ = os.environ | {"TMPDIR": str(temporary)}
    with subprocess.Popen(words, cwd=ROOT, env=environ, stderr=subprocess.PIPE, start_new_session=True) as process:
        while not processes_with(f"unixsocket:{temporary}") and process.poll() is None:
            time.sleep(0.02)
        process.terminate()
        process.communicate(timeout=PATIENCE)
    assert process.returncode > 0
    assert not processes_with(str(temporary))
    assert [path.name for path in tmp_path.iterdir()] == ["hangs.so"]


# --- Several servers --------------------------------------------------------------------------------------------------

BOTH = ("--server", "valkey-server", "--server", "redis-server")


def test_it_claims_only_the_oldest_server_that_it_has_seen(run, module, programs):
    assert run(module(), "-o", "one.zip").exit_code == 0
    assert module_json_of("one.zip")["min_redis_version"] == "7.2"
    answer = run(module(), "-o", "both.zip", *BOTH)
    assert module_json_of("both.zip")["min_redis_version"] == "7.0"
    assert module_json_of("both.zip")["compatible_redis_version"] == "7.0"
    servers = [line.split(maxsplit=1)[1] for line in answer.stdout.splitlines() if line.startswith("  server ")]
    assert [re.sub(r"[0-9]+\.[0-9.]+", "N", each) for each in servers] == [
        "valkey-server (Valkey N): loaded",
        "redis-server (Redis N): loaded",
    ]


def test_a_given_version_stays(run, module, programs):
    run(module(), "-o", "a.zip", *BOTH, "--min-redis-version", "7.4")
    assert module_json_of("a.zip")["min_redis_version"] == "7.4"


def test_what_a_server_that_refuses_has_said_is_shown(run, module, programs):
    answer = run(module("valkey_only"), "-o", "a.zip", *BOTH, "--json")
    assert (answer.exit_code, module_json_of("a.zip")["min_redis_version"]) == (0, "7.2")
    loaded, refused = json.loads(answer.stdout)["servers"]
    assert (loaded["loaded"], loaded["message"], refused["loaded"]) == (True, "", False)
    assert "does not export RedisModule_OnLoad" in refused["message"]


def test_no_server_that_loads_it_is_a_failure_with_the_words_of_each(refused, module, programs):
    said = refused(module("floor"), "-o", "a.zip", *BOTH)
    assert said.count("Floor requires redis-server 99.0") == 2
    assert "valkey-server (Valkey" in said
    assert "redis-server (Redis 7.0" in said


def test_a_crash_in_one_server_is_a_failure(refused, module, programs):
    assert refused(module("crashes"), "-o", "a.zip", *BOTH).startswith("crashes.so crashed its server")


# --- Files that are no modules, places that are no files --------------------------------------------------------------


def test_a_truncated_module_reaches_no_server(refused, module):
    path = module()
    path.write_bytes(path.read_bytes()[:9000])
    assert "truncated" in refused(path, "-o", "a.zip")


def test_a_file_that_is_no_module(refused, tmp_path):
    (tmp_path / "a.so").write_text("x" * 100)
    assert refused("a.so", "-o", "a.zip") == "a.so is not a module: the .so file is not an ELF shared object."


@pytest.mark.parametrize(
    ("output", "said"),
    [("away/a.zip", "There is no directory away"), (".", "is a directory"), ("greet.so", "is an input of the package")],
)
def test_a_place_where_no_package_can_be(refused, module, output, said):
    assert said in refused(module(), "-o", output, "--force")


@pytest.mark.parametrize("server", ["no-such-server", "false"])
def test_a_server_that_is_none(refused, module, server):
    assert "server" in refused(module(), "-o", "a.zip", "--server", server)


def test_without_the_extra_it_says_what_to_install(refused, module, monkeypatch):
    monkeypatch.setattr("modfleet.packing.find_spec", lambda _: None)
    assert refused(module(), "-o", "a.zip") == (
        "`modfleet pack` needs modfleet[server]. Install it (missing: elftools)."
    )


@pytest.mark.parametrize("words", [(), ("greet.so", "--check", "a.zip"), ("--check", "a.zip", "--author", "Ada")])
def test_a_command_line_that_means_nothing(run, module, words):
    module()
    assert run(*words).exit_code == 2


def test_help_names_the_options(run):
    answer = run("--help")
    assert answer.exit_code == 0
    for option in ("--output", "--check", "--manifest", "--args", "--no-load", "--deps", "--force", "--json"):
        assert option in answer.stdout


# --- Files for deps/ --------------------------------------------------------------------------------------------------


def test_files_for_deps_are_packed_and_named(run, module, tmp_path):
    (tmp_path / "jdk.tgz").write_bytes(b"jdk")
    (tmp_path / "words.txt").write_bytes(b"words")
    answer = run(module(), "-o", "a.zip", "--deps", "words.txt", "--deps", "jdk.tgz", "--json")
    with zipfile.ZipFile("a.zip") as archive:
        assert archive.namelist() == ["greet.so", "module.json", "deps/jdk.tgz", "deps/words.txt"]
    assert module_json_of("a.zip")["dependencies"] == {"jdk": {"sha256": hashlib.sha256(b"jdk").hexdigest()}}
    assert json.loads(answer.stdout)["dependencies"] == ["jdk", "words.txt"]


def test_two_files_for_deps_of_one_name(refused, module, tmp_path_factory):
    files = [tmp_path_factory.mktemp("deps") / "a.tgz" for _ in range(2)]
    for file in files:
        file.write_bytes(b"x")
    assert "same name: a.tgz" in refused(module(), "-o", "a.zip", "--deps", files[0], "--deps", files[1])


def test_where_a_packed_dependency_comes_from(run, module, tmp_path):
    (tmp_path / "jdk.tgz").write_bytes(b"jdk")
    link = "https://example.com/jdk.tgz"
    run(module(), "-o", "a.zip", "--deps", "jdk.tgz", "--dependency", f"jdk={link}", "--dependency", "other")
    assert module_json_of("a.zip")["dependencies"] == {
        "jdk": {"url": link, "sha256": hashlib.sha256(b"jdk").hexdigest()},
        "other": {},
    }


@pytest.mark.parametrize("link", ["https://example.com/jdk.tgz", f"#sha256={'a' * 64}"])
def test_a_dependency_that_is_not_packed(refused, module, link):
    assert "deps/jdk.tgz is declared" in refused(module(), "-o", "a.zip", "--dependency", f"jdk={link}")


def test_a_package_for_two_operating_systems(run, module):
    document = json.loads(run(module(), "--os", "rhel9", "--os", "rhel8", "--json").stdout)
    machine = document["platforms"][0].partition("/")[2]
    assert document["platforms"] == [f"rhel8/{machine}", f"rhel9/{machine}"]
    assert document["file"].endswith(f"-rhel9-rhel8-{machine}.zip")
