"""The tests run as any user: none demands root, and none is skipped without it. tests/namespace.py makes a host with root."""

import ast
from pathlib import Path
from typing import TypeGuard

TESTS = Path(__file__).parents[1]


def compares_the_user(node: ast.AST) -> TypeGuard[ast.Compare]:
    """`os.geteuid() == 0` and the like."""
    return (
        isinstance(node, ast.Compare)
        and isinstance(node.left, ast.Call)
        and isinstance(node.left.func, ast.Attribute)
        and node.left.func.attr in {"getuid", "geteuid"}
        and isinstance(node.comparators[0], ast.Constant)
    )


def is_a_demand(node: ast.AST) -> bool:
    """An assertion or `pytest.mark.skipif`."""
    function = node.func if isinstance(node, ast.Call) else None
    return isinstance(node, ast.Assert) or (isinstance(function, ast.Attribute) and function.attr == "skipif")


def demands(path: Path) -> list[str]:
    found = [node for node in ast.walk(ast.parse(path.read_text())) if is_a_demand(node)]
    return [f"{path}:{each.lineno}" for node in found for each in ast.walk(node) if compares_the_user(each)]


def test_no_test_demands_a_user():
    assert [line for path in TESTS.rglob("*.py") for line in demands(path)] == []


def test_it_finds_them(tmp_path):
    test = tmp_path / "test_it.py"
    test.write_text(
        "assert os.geteuid() == 0, 'why'\npytest.mark.skipif(os.getuid() != 0)\nassert os.getuid() == a.uid\n"
    )
    assert demands(test) == [f"{test}:1", f"{test}:2"]
