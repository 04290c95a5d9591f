"""The certificate of a proof: one page for people as Markdown, and the same for programs as JSON.

docs/explanation/proof.md describes the fields of the JSON. A field keeps its name and its meaning.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from modfleet.proof.checker import Verdict
from modfleet.proof.history import read_calls

#: Violations of each run that a certificate shows. The histories have the others.
SHOWN = 20

NOT_PROVEN = (
    "What clients do not see: memory, log files, and the data of other clients.",
    "Commands, keys and modules that the clients did not use.",
    "What did not happen during the recording, such as the loss of a host or of power.",
)


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The head of the control plane's log when the proof ended."""

    position: int
    hash: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the checker cannot know of a run."""

    #: Such as `1 master, 2 replicas`.
    topology: str
    #: The release of each server, such as `Redis 7.2.4`, by the server's name.
    servers: dict[str, str]
    #: Each module with the versions that it went through, in their order.
    modules: dict[str, list[str]]
    seed: int
    clients: int
    #: Calls that were repeated after an error.
    retries: int
    #: The longest wait while no change was in progress, seconds. None: it was not measured.
    quiet_stall: float | None = None
    log_head: Head | None = None
    #: SHA-256 of each file of the proof, by its name.
    files: dict[str, str] = {}
    #: Repeats the verdict from the files.
    command: str = ""
    #: What this run leaves open, and what went wrong beside the clients.
    notes: list[str] = []


class Run(NamedTuple):
    """One topology or one fleet. `title` names it."""

    title: str
    verdict: Verdict
    facts: Facts


def is_proven(verdict: Verdict) -> bool:
    """Return True if nothing was violated and at least one write was acknowledged."""
    return not verdict.violations and verdict.writes > 0


def document(runs: Sequence[Run], *, made_at: str, release: str) -> dict[str, Any]:
    """Return the certificate for programs. `made_at`: RFC 3339; `release`: of Modfleet."""
    return {
        "format": 1,
        "proven": bool(runs) and all(is_proven(each.verdict) for each in runs),
        "made_at": made_at,
        "modfleet": release,
        "violations": sum(len(each.verdict.violations) for each in runs),
        "acknowledged": sum(each.verdict.acknowledged for each in runs),
        "writes": sum(each.verdict.writes for each in runs),
        "reads": sum(each.verdict.reads for each in runs),
        "seconds": round(sum(each.verdict.seconds for each in runs), 1),
        "runs": [_run_document(each) for each in runs],
        "not_proven": list(NOT_PROVEN),
    }


def _run_document(run: Run) -> dict[str, Any]:
    verdict, facts = run.verdict, run.facts
    counts: dict[str, Any] = msgspec.to_builtins(verdict)
    shown = counts.pop("violations")[:SHOWN]
    return {
        "title": run.title,
        "proven": is_proven(verdict),
        **{name: round(value, 3) if isinstance(value, float) else value for name, value in counts.items()},
        "violations": len(verdict.violations),
        "violations_by_rule": dict(Counter(each.rule for each in verdict.violations)),
        "first_violations": shown,
        **msgspec.to_builtins(facts),
    }


def markdown(runs: Sequence[Run], *, made_at: str, release: str) -> str:
    """Return the certificate for people. The parameters are those of `document`."""
    made = document(runs, made_at=made_at, release=release)
    verdict = "succeeded" if made["proven"] else "failed"
    lines = [
        "# Proof from the clients' side",
        "",
        f"**The proof {verdict}: {_count(made['violations'], 'violation')} in {_count(made['acknowledged'], 'acknowledged call')}.**",
        "",
        f"Made at {made_at} by Modfleet {release}.",
    ]
    if not made["writes"]:
        lines += ["", "No write was acknowledged, so nothing is proven."]
    for run in runs:
        lines += ["", f"## {run.title}", "", *_table(_rows(run)), *_violations(run), *_list("Notes", run.facts.notes)]
    lines += _list("Not proven", NOT_PROVEN)
    for run in runs:
        lines += _repeat(run)
    return "\n".join(lines) + "\n"


def _rows(run: Run) -> dict[str, str]:
    verdict, facts = run.verdict, run.facts
    quiet = verdict.control_stall if facts.quiet_stall is None else facts.quiet_stall
    head = facts.log_head
    return {
        "verdict": _count(len(verdict.violations), "violation"),
        "modules": "; ".join(f"{name} {' → '.join(versions)}" for name, versions in facts.modules.items()),
        "topology": facts.topology,
        "servers": _servers(facts.servers),
        "seed": str(facts.seed),
        "clients": f"{facts.clients}, for {verdict.seconds / 60:.1f} min",
        "acknowledged": f"{verdict.acknowledged:,}, of these {_count(verdict.writes, 'write')} and {_count(verdict.reads, 'read')}",
        "allowed errors": _counts(verdict.errors),
        "repeated calls": f"{facts.retries:,}",
        "changes": _counts(verdict.changes),
        "longest stall": f"{verdict.longest_stall:.3f} s; while a server restarted: {verdict.longest_restart_stall:.3f} s",
        "longest stall without a change": f"{quiet:.3f} s" if quiet else "not measured",
        "writes lost by killed servers": str(verdict.lost_by_faults),
        "head of the log": f"`{head.position}:{head.hash}`" if head else "not known",
    }


def _violations(run: Run) -> list[str]:
    found = run.verdict.violations
    lines = [f"- `{each.rule}`: {_plain(each.message)}" for each in found[:SHOWN]]
    more = [f"- and {len(found) - SHOWN:,} more: `{run.facts.command}` shows all"] if len(found) > SHOWN else []
    return ["", "Violations:", "", *lines, *more] if found else []


def _repeat(run: Run) -> list[str]:
    facts = run.facts
    if not facts.files:
        return []
    files = [f"{digest}  {name}" for name, digest in facts.files.items()]
    return [
        "",
        f"## Repeat the verdict: {run.title}",
        "",
        f"`{facts.command}` judges these files (SHA-256):",
        "",
        "```",
        *files,
        "```",
    ]


def _list(title: str, items: Sequence[str]) -> list[str]:
    return ["", f"{title}:", "", *(f"- {_plain(each)}" for each in items)] if items else []


def _table(rows: Mapping[str, str]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {_plain(value)} |" for name, value in rows.items())]


def _servers(servers: Mapping[str, str]) -> str:
    return ", ".join(
        f"{release} ({count})" if count > 1 else release for release, count in sorted(Counter(servers.values()).items())
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "none"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _plain(text: str) -> str:
    """Return text that stays in its line and its cell."""
    return " ".join(text.replace("|", "\\|").split())


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that the checker reads, by its name."""
    return {path.name: _digest(path) for path in sorted(folder.glob("*.ndjson"))}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def count_retries(folder: Path) -> int:
    """Return how many calls were repetitions of one that had failed."""
    return sum(call.attempt > 1 for path in folder.glob("history-*.ndjson") for call in read_calls(path))


def write(folder: Path, runs: Sequence[Run], *, made_at: str, release: str) -> dict[str, Any]:
    """Write `certificate.md` and `certificate.json` into the folder, and return the latter."""
    made = document(runs, made_at=made_at, release=release)
    (folder / "certificate.md").write_text(markdown(runs, made_at=made_at, release=release), encoding="utf-8")
    text = json.dumps(made, indent=2, ensure_ascii=False) + "\n"
    (folder / "certificate.json").write_text(text, encoding="utf-8")
    return made
