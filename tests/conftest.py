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
    "tests.plugins.static_files",
]
