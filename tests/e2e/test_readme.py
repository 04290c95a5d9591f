"""The README's walk with curl, as pasted.

Its blocks are those in ```sh after the line `<!-- walkthrough -->`, run as one script. A block in ```console right
after one of them, if there is any, holds lines that must be among what the script prints.
"""

import os
import re
import subprocess

import pytest

from tests.fleet import PASSWORD, ROOT, sample

BLOCK = re.compile(
    r"^<!-- walkthrough -->\n```sh\n(.*?)^```\n(?:\s*```console\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL
)


@pytest.mark.core
def test_walkthrough(fleet, tmp_path):
    fleet.upload(sample(tmp_path, 10000))
    fleet.carry_out(10000)  # as `make run` leaves its nodes
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    assert blocks
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(script for script, _ in blocks)],
        cwd=ROOT,
        env=os.environ | {"MODFLEET_URL": fleet.url, "MODFLEET_PASSWORD": PASSWORD},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    for _, expected in blocks:
        for line in expected.splitlines():
            assert line in done.stdout
    assert fleet.greetings() == ["", "", ""]
