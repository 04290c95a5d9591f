"""`modfleet push`, and what it has brought."""

import json
import zipfile
import zlib

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def package(pack, tmp_path):
    def packed(name="pushed", **changes):
        file = tmp_path / f"{name}.zip"
        file.write_bytes(pack(module_name=name, **changes))
        return str(file)

    return packed


def test_it_registers_and_uploads_and_again_it_changes_nothing(run, package):
    first, again = (json.loads(run("push", package("pushed"), "--json").stdout) for _ in range(2))
    assert set(first) == {"module", "module_created", "artifact", "artifact_created"}
    assert [first["module_created"], first["artifact_created"]] == [True, True]
    assert [again["module_created"], again["artifact_created"]] == [False, False]
    assert again["artifact"] == first["artifact"]
    assert run("push", package("pushed")).stdout == (
        "pushed 1: no change, this package is already uploaded (linux/x86_64)\n"
    )


def test_what_it_brought_can_be_seen_and_deleted(run, package):
    assert "module registered, package uploaded" in run("push", package("shown")).stdout
    assert json.loads(run("modules", "show", "shown", "1", "--json").stdout)["module_name"] == "shown"
    assert json.loads(run("artifacts", "show", "shown", "1", "--json").stdout)["version"] == 1
    assert "linux/x86_64" in run("artifacts", "show", "shown", "1").stdout
    assert run("artifacts", "delete", "shown", "1").stdout == "deleted the artifact shown 1\n"
    assert json.loads(run("modules", "delete", "shown", "1", "--json").stdout) == {}


def test_other_bytes_of_the_same_version_are_refused(run, package):
    run("push", package("taken"))
    shown = run("push", package("taken", members={"deps/x": b"x"}))
    assert (shown.exit_code, shown.stdout, shown.stderr.count("\n")) == (1, "", 1)


@pytest.mark.parametrize(
    "members",
    [
        *[{}, {"module.json": "[]"}, {"module.json": "{"}, None],
        *[{"module.json": '{"version": 1e400}'}, {"module.json": '{"module_name": "\\ud800"}'}],
    ],
)
def test_a_file_that_is_no_package(run, tmp_path, members):
    file = tmp_path / "bad.zip"
    if members is None:
        file.write_text("no zip")
    else:
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    shown = run("push", str(file))
    assert (shown.exit_code, shown.stderr.count("\n"), "bad.zip" in shown.stderr) == (2, 1, True)


def test_a_package_that_is_refused_leaves_nothing_behind(run, package, tmp_path):
    with zipfile.ZipFile(package("refused")) as good, zipfile.ZipFile(tmp_path / "bad.zip", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, good.read(name) if name == "module.json" else b"no shared object")
    assert run("push", str(tmp_path / "bad.zip")).exit_code == 2
    for kind in ("modules", "artifacts"):
        assert "refused" not in {each["module_name"] for each in json.loads(run(kind, "list", "--json").stdout)}


def test_a_package_that_is_damaged(run, tmp_path):
    file = tmp_path / "bad.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("module.json", "{}")
    file.write_bytes(file.read_bytes().replace(zlib.compress(b"{}", wbits=-15), b"\xff" * 4))
    assert run("push", str(file)).stderr.startswith(f"{file} is not a readable zip file. ")


def test_a_file_that_is_not_there(run, tmp_path):
    shown = run("push", str(tmp_path / "nope.zip"))
    assert (shown.exit_code, shown.stderr) == (2, f"{tmp_path}/nope.zip cannot be read: No such file or directory.\n")


def test_a_bar_on_a_terminal(terminal, package):
    pushing = terminal("push", package("barred"))
    assert pushing.end() == 0
    assert b"barred.zip" in pushing.seen
    assert "barred 1: module registered, package uploaded" in pushing.text
