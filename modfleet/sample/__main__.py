"""`python -m modfleet.sample DIRECTORY [VERSION]`: build the sample's package and print its path."""

import argparse
import sys
from pathlib import Path

from modfleet.sample import SampleError, build_sample
from modules_app.metadata import MAX_VERSION


def _version(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_VERSION:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {MAX_VERSION}")
    return int(text)


parser = argparse.ArgumentParser(
    prog="python -m modfleet.sample", description="Build the package of the sample module and print its path."
)
parser.add_argument(
    "directory", metavar="DIRECTORY", type=Path, help="directory for the package; created if it does not exist"
)
parser.add_argument(
    "version",
    metavar="VERSION",
    type=_version,
    nargs="?",
    default=10000,
    help="major * 10000 + minor * 100 + patch; default: 10000, which is 1.0.0",
)
options = parser.parse_args()
try:
    print(build_sample(options.directory, version=options.version))  # noqa: T201  # its output
except SampleError as error:
    sys.exit(str(error))
except OSError as error:
    sys.exit(f"{error.filename or options.directory}: {error.strerror}.")
