"""The node's Redis or Valkey server: its commands, its state, its log, and why it refuses."""
