"""`modfleet pack` keeps a module from the host, as a node does."""

import pytest

from modfleet.packing import PackError
from modfleet.packing.loading import try_servers
from modfleet.sample import compile_module
from rollout.agent.scratch import confinement
from tests.integration.agent.conftest import SOURCES


@pytest.mark.parametrize("has_namespaces", [True, False])
def test_a_module_writes_no_file(tmp_path, monkeypatch, has_namespaces):
    if not has_namespaces:
        monkeypatch.setattr(confinement, "_namespaces_work", lambda _: False)
    target = tmp_path / "file"
    target.write_text("ours")
    module = compile_module(SOURCES / "attacks.c", tmp_path / "attacks.so", defines={"VERSION": "10000"})
    with pytest.raises(PackError, match="refuses to load"):
        try_servers((), module, args=("write", str(target)))
    assert target.read_text() == "ours"
