"""Rollouts, operations, nodes, modules on nodes and join tokens in the admin site.

Each module registers its model. All node counts come from the counters of the rollout's row.
"""

from rollout.admin import join_tokens, node_modules, nodes, operations, rollouts

__all__ = ["join_tokens", "node_modules", "nodes", "operations", "rollouts"]
