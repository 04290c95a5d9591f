"""`python -m modfleet.sample FOLDER [VERSION]`: builds the sample's package and prints where it is."""

import argparse
import sys
from pathlib import Path

from modfleet.sample import SampleError, build_sample
from modules_app.metadata import MAX_VERSION


def _version(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_VERSION:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to {MAX_VERSION}")
    return int(text)


parser = argparse.ArgumentParser(prog="python -m modfleet.sample", description="Builds the sample's package.")
parser.add_argument("folder", metavar="FOLDER", type=Path, help="where the package is put; made if it is not there")
parser.add_argument(
    "version",
    metavar="VERSION",
    type=_version,
    nargs="?",
    default=10000,
    help="major * 10000 + minor * 100 + patch; default: 10000, which is 1.0.0",
)
wanted = parser.parse_args()
try:
    print(build_sample(wanted.folder, version=wanted.version))  # noqa: T201  # its output
except SampleError as error:
    sys.exit(str(error))
except OSError as error:
    sys.exit(f"{error.filename or wanted.folder}: {error.strerror}.")
