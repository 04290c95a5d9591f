"""One node: its state, its journal, its heartbeats."""
