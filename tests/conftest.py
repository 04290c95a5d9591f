pytest_plugins = [
    "tests.plugins.databases",
    "tests.plugins.ledger",
    "tests.plugins.cast",
    "tests.plugins.packages",
    "tests.plugins.played_nodes",
    "tests.plugins.refusals",
    "tests.plugins.server",
]
