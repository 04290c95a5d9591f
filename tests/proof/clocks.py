"""Wall clocks that jump, each for the processes that were started with its environment. Their monotonic clocks do not.

A preloaded library adds the jump to the time that a process reads. It needs no root, and a C compiler.
"""

import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


@dataclass(frozen=True)
class Clock:
    """`file`: by how much the clock is off. `library`: see `compiled`."""

    file: Path
    library: Path

    def __post_init__(self) -> None:
        self.set(0)

    @property
    def environ(self) -> dict[str, str]:
        """Variables of the processes whose clock this is, and of those that they start."""
        return {"LD_PRELOAD": str(self.library), "CLOCK_FILE": str(self.file)}

    def set(self, seconds: float) -> None:
        """The clock is ahead by so many seconds from now on."""
        with self.file.open("r+b" if self.file.exists() else "wb", buffering=0) as file:
            file.write(struct.pack("q", int(seconds * 1e9)))  # in place: processes have mapped the file


def compiled(folder: Path) -> Path:
    """Compile the library in the folder."""
    library = folder / "clock.so"
    words = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(words, check=True)
    return library
