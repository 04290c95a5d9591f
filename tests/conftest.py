pytest_plugins = ["tests.plugins.cast"]
