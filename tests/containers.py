"""`docker` without containers, for `tests.host`: the container file's own lines, run in a folder that stands for the image.

`docker build` runs each `RUN` on what each `COPY` took, `docker run` runs a command as the image would. What `docker
compose up` would start is read by `services`.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.host import SYSTEM, clean


def instructions(containerfile: Path) -> list[tuple[str, str]]:
    """Name and words of each, in order."""
    text = re.sub(r"^#.*\n", "", containerfile.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [(name, words) for name, words in (line.split(None, 1) for line in text.splitlines() if line)]


def inside(root: Path, text: str) -> str:
    """`text` with the image's paths as they are here."""
    for each in (*SYSTEM, "/build"):
        text = re.sub(rf"(?<![\w/.-]){each}\b", f"{root}{each}", text)
    return text


def build(containerfile: Path, context: Path, root: Path) -> None:
    place = root
    for name, words in instructions(containerfile):
        match name:
            case "WORKDIR":
                place = Path(inside(root, words))
                place.mkdir(parents=True, exist_ok=True)
            case "COPY" if "--from" not in words:
                *sources, target = words.split()
                for each in sources:
                    copy = shutil.copytree if (context / each).is_dir() else shutil.copy
                    copy(context / each, place / target / ("" if copy is shutil.copy else "."))
            case "RUN":
                path = {"PATH": os.environ["PATH"]}
                subprocess.run(["bash", "-euc", inside(root, words)], cwd=place, env=clean() | path, check=True)


def environment(containerfile: Path, root: Path) -> dict[str, str]:
    """What the image sets."""
    (words,) = [words for name, words in instructions(containerfile) if name == "ENV"]
    given = dict(each.split("=", 1) for each in shlex.split(inside(root, words)))
    return {**given, "PATH": given["PATH"].replace("$PATH", "/usr/local/bin:/usr/bin:/bin")}


def command(containerfile: Path, name: str = "CMD") -> list[str]:
    """Words of the image's `CMD`, or of its health check."""
    (line,) = [
        words[words.index("[") :]
        for each, words in instructions(containerfile)
        if each == {"CMD": "CMD", "HEALTHCHECK": "HEALTHCHECK"}[name]
    ]
    words: list[str] = json.loads(line)
    return words


def services(compose: Path, **variables: str) -> dict[str, Any]:
    """The services of the compose file, as if `variables` were in the environment."""
    text = re.sub(r"\$\{(\w+)(:[-?][^}]*)?\}", lambda each: variables.get(each[1], ""), compose.read_text())
    found: dict[str, Any] = yaml.safe_load(text)["services"]
    return found


def main(words: list[str]) -> None:
    root = Path(os.environ["ROOT"])
    match words:
        case ["build", "--file", file, "--tag", "modfleet", context]:
            build(Path(file), Path(context), root)
            shutil.copy(file, root / "Containerfile")
        case ["run", "--rm", "--interactive", "modfleet", *given]:
            env = environment(root / "Containerfile", root)
            program = shutil.which(given[0], path=env["PATH"])
            assert program, given[0]
            os.execvpe(program, given, env)
        case ["compose", "up", "--detach"]:
            assert os.environ["MODFLEET_HOST"]
        case _:
            raise SystemExit(f"docker {shlex.join(words)}: not known here")


if __name__ == "__main__":
    main(sys.argv[1:])
