"""Types are prepared by one thread: msgspec crashes the process if two use a class for the first time at once."""

import ast
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from decoding import convert, decode

ROOT = Path(__file__).parents[2]
#: Packages of the product: what has an `__init__.py` below the root, but for the tests.
CODE = sorted(each.parent for each in ROOT.glob("*/__init__.py") if each.parent.name != "tests")

FOUR_THREADS_USE_A_NEW_CLASS = """
import sys
import threading
from dataclasses import make_dataclass

from decoding import convert, decode

sys.setswitchinterval(1e-6)
FIELDS = [f"field_{number}" for number in range(30)]
INNER = dict.fromkeys(FIELDS, 1)
OUTER = {"one": INNER, "many": [INNER], "named": {"a": INNER}, **dict.fromkeys(FIELDS, "x")}


def use(kind, start):
    start.wait()
    USE


for _ in range(300):
    inner = make_dataclass("Inner", [(name, int | None) for name in FIELDS])
    outer = make_dataclass(
        "Outer",
        [("one", inner), ("many", list[inner]), ("named", dict[str, inner]), *((name, str | None) for name in FIELDS)],
    )
    start = threading.Barrier(4)
    threads = [threading.Thread(target=use, args=(outer, start)) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
"""


@pytest.mark.parametrize("use", ["convert(OUTER, kind)", "import msgspec; decode(msgspec.json.encode(OUTER), kind)"])
def test_threads_may_use_a_class_for_the_first_time_at_once(use):
    script = FOUR_THREADS_USE_A_NEW_CLASS.replace("USE", use)
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("value", ["3", 3])
def test_a_value_of_another_type_is_refused(value):
    with pytest.raises(msgspec.ValidationError):
        convert(value, tuple[int, ...])
    with pytest.raises(msgspec.DecodeError):
        decode(msgspec.json.encode(value), tuple[int, ...])


def prepares_a_type(node):
    """`msgspec.convert(...)`, `json.decode(..., type=...)`, `Decoder(...)`, or an import of one of these names."""
    match node:
        case ast.ImportFrom(module="msgspec" | "msgspec.json", names=names):
            return any(each.name in {"convert", "decode", "Decoder"} for each in names)
        case ast.Call(func=ast.Attribute(value=ast.Name(id="msgspec"), attr="convert")):
            return True
        case ast.Call(func=ast.Attribute(attr="Decoder")):
            return True
        case ast.Call(func=ast.Attribute(value=value, attr="decode"), args=args, keywords=keywords):
            is_json = ast.unparse(value) in {"json", "msgspec.json"}
            return is_json and (len(args) > 1 or any(each.arg == "type" for each in keywords))
    return False


def found_in(path):
    nodes = [each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.ImportFrom | ast.Call)]
    return [f"{path}:{each.lineno}" for each in nodes if prepares_a_type(each)]


def test_all_types_are_prepared_here():
    paths = [path for folder in CODE for path in folder.rglob("*.py") if folder.name != "decoding"]
    assert len(paths) > 300
    assert [line for path in paths for line in found_in(path)] == []


@pytest.mark.parametrize(
    "code",
    [
        "from msgspec import convert",
        "from msgspec.json import Decoder",
        "msgspec.convert(value, Kind)",
        "msgspec.json.decode(text, type=Kind)",
        "json.decode(text, type=Kind)",
        "msgspec.json.Decoder(Kind)",
    ],
)
def test_it_finds_them(tmp_path, code):
    path = tmp_path / "code.py"
    path.write_text(f"text = msgspec.json.decode(text)\n{code}\n")
    assert found_in(path) == [f"{path}:2"]
