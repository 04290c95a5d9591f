import pytest

from tests.unit.proof.builder import Proof


@pytest.fixture
def proof(tmp_path):
    """A clean proof: the client `a` has added 1, 2 and 3 to the key `k` of the master `s`; its replica is `r`."""
    made = Proof(tmp_path)
    for entry in (1, 2, 3):
        made.add(float(entry), entry)
    made.server("s", {"k": (1, 2, 3)})
    made.server("r", {"k": (1, 2, 3)}, master="s")
    return made
