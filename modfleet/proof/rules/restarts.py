"""`restart`: after the restart of every server, each has the modules and the data that it had before."""

from collections.abc import Iterator

from modfleet.proof.rules.dumps import Dumps, Server
from modfleet.proof.rules.violation import Violation


def check_restarts(final: Dumps, restarted: Dumps) -> Iterator[Violation]:
    for name in sorted(final.keys() | restarted.keys()):
        if name not in restarted:
            yield Violation(rule="restart", message=f"{name} did not answer after its restart.", server=name)
        elif name not in final:
            yield Violation(rule="restart", message=f"{name} answered after the restart only.", server=name)
        else:
            yield from _differences(name, final[name], restarted[name])


def _differences(name: str, before: Server, after: Server) -> Iterator[Violation]:
    had, has = before.dump.modules, after.dump.modules
    for module in sorted(had.keys() | has.keys()):
        if had.get(module) != has.get(module):
            message = f"{name} had {_text(module, had)} before its restart, and has {_text(module, has)} after it."
            yield Violation(rule="restart", message=message, server=name, module=module)
    for key in sorted(before.keys.keys() | after.keys.keys()):
        if (old := before.keys.get(key)) != (new := after.keys.get(key)):
            message = f"{name} had {_entries(old)} at {key} before its restart, and has {_entries(new)} after it."
            yield Violation(rule="restart", message=message, server=name, key=key)


def _text(module: str, modules: dict[str, str]) -> str:
    return f"{module} {modules[module]!r}" if module in modules else f"no {module}"


def _entries(entries: tuple[int, ...] | None) -> str:
    return "nothing" if entries is None else str(list(entries))
