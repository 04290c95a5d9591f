"""Restarts the node's server: who starts it again, when it is safe, and how long a start may take."""
