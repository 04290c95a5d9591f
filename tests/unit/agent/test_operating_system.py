"""What the agent says that its node runs."""

import pytest

from rollout.agent.inspection.host import read_operating_system


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('NAME="Rocky Linux"\nID="rocky"\nID_LIKE="rhel"\nVERSION_ID="9.3"\n', "rhel9"),
        ("# comment\n\nID=debian\nVERSION_ID='12'\n", "debian12"),
        ("ID=arch\n", "arch"),
        ("ID=linux\n", ""),
        ("PRETTY_NAME=Something\n", ""),
        ("", ""),
    ],
)
def test_it_is_read_from_os_release(tmp_path, text, said):
    (tmp_path / "os-release").write_text(text)
    assert read_operating_system([tmp_path / "none", tmp_path / "os-release"]) == said


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_without_a_readable_file_nothing_is_said(tmp_path, content):
    file = tmp_path / "os-release"
    if content is not None:
        file.write_bytes(content)
    assert read_operating_system([file]) == ""
