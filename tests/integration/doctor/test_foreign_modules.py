"""What the doctor says about modules that Modfleet did not install."""

import pytest

from modfleet.sample import compile_module
from tests.integration.agent.conftest import SERVERS, SOURCES

pytestmark = pytest.mark.parametrize("binary", SERVERS, ids=["valkey", "redis"])


@pytest.fixture
def module(site):
    file = compile_module(SOURCES / "base.c", site.folder / "base.so", defines={"VERSION": "1"})
    file.chmod(0o755)
    return file


def found(site):
    finding = site.examine_here()["foreign_modules"]
    return finding.status, finding.message, finding.fix


def test_there_is_none(site):
    site.start()
    status, message, _ = found(site)
    assert (status, message.startswith("The server has loaded no module")) == ("pass", True)


def test_it_can_be_adopted(site, module):
    site.server.lines.append(f"loadmodule {module}")
    site.start()
    assert found(site)[:2] == ("pass", "`modfleet adopt` can adopt the modules that Modfleet did not install: base.")


def test_its_file_was_replaced_after_the_load(site, module):
    site.server.lines.append(f"loadmodule {module}")
    site.start()
    content = module.read_bytes()
    module.unlink()
    module.write_bytes(content)
    status, message, fix = found(site)
    assert (status, message.startswith("base cannot be adopted: ")) == ("warn", True)
    assert fix == "Restart the server: then the file on disk is the one that it has loaded."


def test_a_file_of_another_owner_loads_it(site, module):
    """Modfleet changes a line of the main file, and none of another one."""
    other = site.folder / "other.conf"
    other.write_text(f"loadmodule {module}\n")
    site.server.lines.append(f"include {other}")
    site.start()
    status, message, _ = found(site)
    assert (status, message.startswith("base cannot be adopted: ")) == ("warn", True)
    assert str(other) in message
