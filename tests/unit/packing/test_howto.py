"""docs/howto/pack-a-module.md: its commands work as they are written."""

import re
import shlex
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs/howto/pack-a-module.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
AARCH64 = 0xB7
MACHINE_OFFSET = 18


def test_its_commands_work_as_written(run, module, tmp_path, programs):
    code = bytearray(module("greet").read_bytes())
    code[MACHINE_OFFSET] = AARCH64
    (tmp_path / "greet-arm.so").write_bytes(code)
    module("needs_arguments").rename("limits.so")
    for language, text in BLOCK.findall(PAGE.read_text()):
        if language == "yaml":
            named = re.match(r"# ([\w.]+)", text)
            assert named, text
            (tmp_path / named[1]).write_text(text)
        else:
            for line in text.splitlines():
                program, command, *words = shlex.split(line)
                assert (program, command) == ("modfleet", "pack")
                assert run(*words).exit_code == 0, line
    assert len(list(tmp_path.glob("*.zip"))) == 6
