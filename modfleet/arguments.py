"""The arguments of `modfleet agent` and its commands. They are read with argparse, which the base installation has."""

import argparse
import sys
from typing import NoReturn

from modfleet.failure import ExitCode


class Parser(argparse.ArgumentParser):
    """Print each error as one line to standard error."""

    def error(self, message: str) -> NoReturn:
        end(f"{message.removesuffix('.')}. See `{self.prog} --help`.", ExitCode.USAGE)


def end(sentence: str, code: ExitCode) -> NoReturn:
    print(" ".join(sentence.split()), file=sys.stderr)  # noqa: T201  # the person who typed the command reads it
    sys.exit(code)
