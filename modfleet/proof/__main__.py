"""`python -m modfleet.proof FOLDER`: judge the files of a proof and print the verdict."""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import msgspec

from modfleet.failure import UsageError
from modfleet.proof.checker import DEFAULT, Limits, Verdict, Violation, check

#: So many violations of each rule are printed; --json prints all.
SHOWN = 20


def main() -> int:
    options = _parser().parse_args()
    limits = Limits(
        retry_seconds=options.retry_seconds, stall_ratio=options.stall_ratio, restarted=not options.not_restarted
    )
    try:
        verdict = check(options.folder, limits)
    except UsageError as error:
        print(error, file=sys.stderr)  # noqa: T201  # a command prints
        return UsageError.code
    print(msgspec.json.encode(verdict).decode() if options.json else "\n".join(_lines(verdict)))  # noqa: T201  # its output
    return 1 if verdict.violations else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m modfleet.proof",
        description="Judge the files of a proof: what clients saw, what the operator did, what the servers have.",
        epilog="Exit codes: 0: no violation. 1: violations. 2: a file cannot be read, or an option is wrong.",
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the folder with the histories, changes and dumps")
    parser.add_argument(
        "--retry-seconds",
        type=_positive,
        default=DEFAULT.retry_seconds,
        help="a call must be acknowledged after so many seconds (default: %(default)g)",
    )
    parser.add_argument(
        "--stall-ratio",
        type=_ratio,
        default=DEFAULT.stall_ratio,
        help="the longest stall may be so many times that of the control client; "
        "`none`: measure the stalls, do not judge them (default: %(default)g)",
    )
    parser.add_argument("--not-restarted", action="store_true", help="the servers were not restarted at the end")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON, with all violations")
    return parser


def _positive(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not greater than 0")
    return number


def _ratio(text: str) -> float | None:
    return None if text == "none" else _positive(text)


def _lines(verdict: Verdict) -> list[str]:
    by_rule: dict[str, list[Violation]] = defaultdict(list)
    for violation in verdict.violations:
        by_rule[violation.rule].append(violation)
    lines = [line for rule, found in by_rule.items() for line in _of_rule(rule, found)]
    return [
        *lines,
        f"Violations: {len(verdict.violations)}",
        f"Acknowledged calls: {verdict.acknowledged} (writes: {verdict.writes}, reads: {verdict.reads}) in {verdict.seconds:.0f} s",
        f"Changes: {_counts(verdict.changes)}",
        f"Allowed errors: {_counts(verdict.errors)}",
        f"Longest stall: {verdict.longest_stall:.3f} s, of the control client: {verdict.control_stall:.3f} s",
        f"Longest stall while a server restarted: {verdict.longest_restart_stall:.3f} s",
        f"Writes lost because a server was killed before it had saved them: {verdict.lost_by_faults}",
        *(f"  {key}" for key in verdict.keys_lost_by_faults[:SHOWN]),
    ]


def _of_rule(rule: str, found: list[Violation]) -> list[str]:
    lines = [f"{rule}: {_where(each)}{each.message}" for each in found[:SHOWN]]
    return [*lines, f"{rule}: and {len(found) - SHOWN} more"] if len(found) > SHOWN else lines


def _where(violation: Violation) -> str:
    """Return what finds the call in the histories."""
    fields = {"client": violation.client, "key": violation.key, "server": violation.server}
    at = f"{violation.at:.3f}" if violation.at is not None else ""
    named = ", ".join(f"{name} {value}" for name, value in {**fields, "at": at}.items() if value)
    return f"[{named}] " if named else ""


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


if __name__ == "__main__":
    sys.exit(main())
