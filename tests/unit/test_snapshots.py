"""No snapshot is held while a generator waits for its caller: it would last as long as the caller likes, and whatever the
caller writes meanwhile would be refused."""

import ast

import pytest

from tests.unit.test_clocks import CODE, ROOT

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def is_snapshot(node):
    """Whether it calls `snapshot`, by whatever name it was imported from its module."""
    return isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "snapshot"


def yields(nodes):
    """Whether any of the nodes yields, functions inside of them aside."""
    for node in nodes:
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, FUNCTIONS) and yields(ast.iter_child_nodes(node)):
            return True
    return False


def held_over_a_yield(source):
    """Lines of the `with` statements and functions whose snapshot is held over a yield."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.With | ast.AsyncWith):
            held = any(is_snapshot(each.context_expr) for each in node.items)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            held = any(is_snapshot(each) for each in node.decorator_list)
        else:
            continue
        if held and yields(node.body):
            found.append(node.lineno)
    return found


def test_none_is_held_over_a_yield():
    found = {
        str(path.relative_to(ROOT)): lines
        for folder in CODE
        for path in (ROOT / folder).rglob("*.py")
        if (lines := held_over_a_yield(path.read_text()))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("def f():\n    with snapshot():\n        yield 1", [2]),
        ("def f():\n    with a, database.snapshot() as b:\n        for c in b:\n            yield from c", [2]),
        ("@snapshot()\ndef f():\n    yield 1", [2]),
        ("@snapshot()\ndef f():\n    return [g(x) for x in y]", []),
        ("def f():\n    with snapshot():\n        a = b\n    yield a", []),
        ("def f():\n    with snapshot():\n        def g():\n            yield 1\n        return list(g())", []),
    ],
)
def test_what_it_finds(source, lines):
    assert held_over_a_yield(source) == lines
