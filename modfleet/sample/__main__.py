"""`python -m modfleet.sample FOLDER [VERSION]`: builds the sample's package and prints where it is."""

import sys
from pathlib import Path

from modfleet.sample import SampleError, build_sample

try:
    folder, *rest = sys.argv[1:]
    print(build_sample(Path(folder), version=int(rest[0]) if rest else 10000))  # noqa: T201  # its output
except (SampleError, ValueError) as error:
    sys.exit(f"python -m modfleet.sample FOLDER [VERSION]: {error}")
