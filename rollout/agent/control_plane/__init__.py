"""Who the node is, whom it believes, and how it reaches the control plane: over HTTP and through the broker."""
