"""python -m tests.proof.power.play SCENARIO FOLDER: play one scenario with the code of this tree."""

import sys
from pathlib import Path

from tests.proof.power.scenarios import SCENARIOS
from tests.proof.power.stage import perform

if __name__ == "__main__":
    perform(SCENARIOS[sys.argv[1]], Path(sys.argv[2]))
