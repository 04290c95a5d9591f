import gc

pytest_plugins = [
    "tests.plugins.databases",
    "tests.plugins.dialect",
    "tests.plugins.interrupts",
    "tests.plugins.ledger",
    "tests.plugins.cast",
    "tests.plugins.packages",
    "tests.plugins.played_nodes",
    "tests.plugins.races",
    "tests.plugins.rate_limits",
    "tests.plugins.refusals",
    "tests.plugins.server",
    "tests.plugins.turns",
    "tests.plugins.set_clock",
    "tests.plugins.static_files",
    "tests.plugins.uploads",
]


def pytest_collection_finish() -> None:
    """Thousands of tests and their modules stay until the end: the garbage collector need not look at them again and again."""
    gc.collect()
    gc.freeze()
