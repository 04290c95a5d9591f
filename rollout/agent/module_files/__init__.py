"""The modules on the node's disk: download, check, store, and the lines that load them at a start of the server."""
