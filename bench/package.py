"""A real package of some megabytes: the sample module with as many random bytes linked into its `.so`."""

import os
from pathlib import Path

from modfleet.packing.write import pack
from modfleet.sample import SOURCE, compile_module, sample_metadata

#: The assembler takes the bytes as they are; as a C array they would take a minute to compile.
WITH_PAYLOAD = """#include "{source}"
__asm__(".section .rodata\\n.global payload\\npayload:\\n.incbin \\"{payload}\\"\\n.previous\\n");
"""


def build_package(folder: Path, *, version: int, size: int) -> Path:
    """A package of greet in `folder` that does not compress; `size` is about its bytes. Raises: `SampleError`."""
    folder.mkdir(parents=True, exist_ok=True)
    payload, source = folder / f"{version}.payload", folder / f"{version}.c"
    payload.write_bytes(os.urandom(size))
    source.write_text(WITH_PAYLOAD.format(source=SOURCE, payload=payload))
    module = compile_module(source, folder / "greet.so", defines={"GREET_VERSION": str(version)})
    return pack(module, sample_metadata(module, version=version), folder / f"greet-{version}.zip")
