"""No two tests get the same port, and no outgoing connection takes it before the server does."""

import gc
import re
import subprocess
import sys
from pathlib import Path

from tests import ports
from tests.fleet import ROOT
from tests.ports import MOST_MARKS, PORTS, free_port

#: The ports of outgoing connections, by the kernel's default (ip_local_port_range).
OUTGOING = range(32_768, 61_000)
#: A socket that is bound to a port of the kernel's choice, and does not listen yet or never will.
CHOSEN_BY_THE_KERNEL = re.compile(r"\.bind\(\(.*, 0\)\)")


def test_another_process_gets_other_ports():
    ours = [free_port() for _ in range(3)]
    program = (
        "import random, tests.ports as ports\n"
        f"random.sample = lambda *_: {[*ours, *PORTS]}\n"
        "print(ports.free_port(), ports.free_port())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    theirs = [int(each) for each in done.stdout.split()]
    assert len({*ours, *theirs}) == 5


def test_a_long_run_keeps_only_the_newest_marks():
    """An open file for each port of a whole run would be too many. One that is not closed is a warning, and fails a test."""
    for _ in range(2 * MOST_MARKS):
        free_port()
    assert len(ports._marks) == MOST_MARKS
    gc.collect()


def test_no_outgoing_connection_takes_one():
    buses = range(PORTS.start + 10_000, PORTS.stop + 10_000)
    assert not {*PORTS, *buses} & {*OUTGOING}
    assert not {*PORTS} & {*buses}


def test_no_test_chooses_its_port_in_another_way():
    """`socket.create_server` listens at once, and keeps its port."""
    files = [each for each in (ROOT / "tests").rglob("*.py") if each != Path(__file__)]
    assert [str(each) for each in files if CHOSEN_BY_THE_KERNEL.search(each.read_text())] == []
    assert CHOSEN_BY_THE_KERNEL.search('probe.bind(("127.0.0.1", 0))')
