"""Refuses the import of all our packages but `eventstore`, `decoding` and `tests`. Import it first; pytest takes it as a plugin."""

import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFUSED = {each.name for each in ROOT.iterdir() if any(each.glob("*.py"))} - {"eventstore", "decoding", "tests"}


class Refusal(MetaPathFinder):
    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"{fullname} is refused: the log must not need it")


sys.meta_path.insert(0, Refusal())
