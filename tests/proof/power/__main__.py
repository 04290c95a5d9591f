"""`make prove-power`: for each fault, does the proof catch it? And does the product without it pass?

python -m tests.proof.power [--only NAME] [--jobs N] [--out FOLDER]
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modfleet.proof.checker import Limits, check
from tests.fleet import ROOT
from tests.proof.power.faults import FAULTS, Fault

#: A small machine is busy with the servers and agents of two scenarios, so stalls say nothing here.
LIMITS = Limits(stall_ratio=None)
#: The longest time for one scenario, seconds.
SCENARIO_SECONDS = 600
#: What a copy of the tree leaves out where no Git says what belongs to it.
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The violations of each rule, and how the scenario failed, empty if it did not."""

    violations: Counter[str]
    failure: str

    @property
    def words(self) -> str:
        rules = ", ".join(f"{rule} {count}" for rule, count in sorted(self.violations.items()))
        return rules or self.failure or "nothing"


def main() -> int:
    given = _arguments()
    faults = [each for each in FAULTS if given.only in {None, each.name}]
    scenarios = list(dict.fromkeys(each.scenario for each in faults))
    out = Path(given.out or tempfile.mkdtemp(prefix="mf-power-"))
    with ThreadPoolExecutor(given.jobs) as pool:
        passes = [pool.submit(_passes, each, out / each) for each in scenarios]
        catches = [pool.submit(_catches, each, out / each.name) for each in faults]
    caught = sum(each.result() for each in catches)
    print(f"{caught}/{len(faults)}")  # noqa: T201
    return 0 if caught == len(faults) and all(each.result() for each in passes) else 1


def _arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(prog="python -m tests.proof.power", description=__doc__.splitlines()[0])
    made.add_argument("--only", choices=[each.name for each in FAULTS], help="One fault.")
    made.add_argument("--jobs", type=int, default=2, help="Scenarios at a time.")
    made.add_argument("--out", help="Keep the histories in this folder.")
    return made.parse_args()


def _passes(scenario: str, folder: Path) -> bool:
    """Return True if clients see nothing wrong without a fault."""
    seen = play(scenario, ROOT, folder)
    if seen.failure and not seen.violations:  # the machine was too busy for it
        seen = play(scenario, ROOT, folder / "again")
    is_right = not seen.violations and not seen.failure
    if not is_right:
        print(f"{scenario}: without a fault: {seen.words}\n{seen.failure}", flush=True)  # noqa: T201
    return is_right


def _catches(fault: Fault, folder: Path) -> bool:
    with patched(fault) as tree:
        seen = play(fault.scenario, tree, folder)
    rule = next((each for each in fault.rules if seen.violations[each]), "")
    verdict = f"caught by {rule}" if rule else "NOT CAUGHT"
    print(f"{fault.name}: {verdict} ({seen.words})", flush=True)  # noqa: T201
    return bool(rule)


def play(scenario: str, tree: Path, folder: Path) -> Seen:
    """Play the scenario with the code of the tree, and judge it with the code of this one."""
    folder.mkdir(parents=True)
    log = folder / "output"
    words = [sys.executable, "-m", "tests.proof.power.play", scenario, str(folder)]
    with log.open("wb") as output:
        done = subprocess.run(
            ["timeout", "--kill-after=30", str(SCENARIO_SECONDS), "env", f"PYTHONPATH={tree}", *words],
            cwd=tree,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        )
    failure = "\n".join(log.read_text(errors="replace").splitlines()[-5:]) if done.returncode else ""
    return Seen(violations=Counter(each.rule for each in check(folder, LIMITS).violations), failure=failure)


@contextmanager
def patched(fault: Fault) -> Iterator[Path]:
    """A copy of the tree with the fault, until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="mf-tree-") as folder:
        tree = Path(folder) / "tree"
        copy_tree(tree)
        apply(fault.patch, tree)
        yield tree


def copy_tree(tree: Path) -> None:
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(words, cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        return
    for name in map(Path, filter(None, listed.decode().split("\0"))):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


def apply(patch: Path, tree: Path, *, is_trial: bool = False) -> None:
    """Apply the patch to the tree. Raises: `subprocess.CalledProcessError` if it does not fit."""
    if shutil.which("git"):
        words = ["git", "apply", *(["--check"] if is_trial else []), str(patch)]
    else:
        words = ["patch", "-p1", "--force", *(["--dry-run"] if is_trial else []), "-i", str(patch)]
    subprocess.run(words, cwd=tree, capture_output=True, check=True)


if __name__ == "__main__":
    sys.exit(main())
