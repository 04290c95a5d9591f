"""No test fails because the machine was busy: none compares how long something took with a number.

What must not wait for something is tested with something that never comes, and the limit of `pytest-timeout`.
"""

import ast
from pathlib import Path
from typing import TypeGuard

TESTS = Path(__file__).parents[1]
CLOCKS = {"monotonic", "perf_counter", "time"}


def is_elapsed(node: ast.AST) -> bool:
    """`time.monotonic() - began` and the like."""
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Sub)
        and isinstance(node.left, ast.Call)
        and isinstance(node.left.func, ast.Attribute)
        and node.left.func.attr in CLOCKS
    )


def has_a_limit(node: ast.AST) -> TypeGuard[ast.Assert]:
    """`assert elapsed < ...`, also as a part of a longer comparison."""
    if not isinstance(node, ast.Assert) or not isinstance(node.test, ast.Compare):
        return False
    test = node.test
    pairs = zip([test.left, *test.comparators], test.ops, test.comparators, strict=False)
    return any(is_elapsed(left) and isinstance(how, ast.Lt | ast.LtE) for left, how, _ in pairs)


def timed(path: Path) -> list[str]:
    return [f"{path}:{node.lineno}" for node in ast.walk(ast.parse(path.read_text())) if has_a_limit(node)]


def test_no_test_has_a_time_limit_of_its_own():
    assert [line for path in TESTS.rglob("test_*.py") for line in timed(path)] == []


def test_it_finds_them(tmp_path):
    test = tmp_path / "test_it.py"
    test.write_text("assert time.monotonic() - began < 2\nassert 0.4 <= time.time() - began <= 2\nassert 1 < 2\n")
    assert timed(test) == [f"{test}:1", f"{test}:2"]
