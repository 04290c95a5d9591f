"""Run `modfleet`. `modfleet agent` needs only the base installation, all other commands the extra `cli`."""

import sys
from importlib.util import find_spec

from modfleet.failure import ExitCode

#: Modules that the extra `cli` installs.
CLI = ("typer", "rich", "httpx", "yaml")


def main() -> None:
    words = sys.argv[1:]
    if words[:1] == ["agent"]:
        from modfleet.commands import agent

        agent.main(words[1:])
    elif missing := [name for name in CLI if find_spec(name) is None]:
        print(  # noqa: T201  # the person who typed the command reads it
            f"Only `modfleet agent` works here. For the other commands install modfleet[cli] (missing: {', '.join(missing)}).",
            file=sys.stderr,
        )
        sys.exit(ExitCode.USAGE)
    else:
        from modfleet.cli import app

        app()


if __name__ == "__main__":
    main()
