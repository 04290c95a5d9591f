"""Rollouts, operations, nodes, modules on nodes, join tokens and ignored replicas in the admin site.

Each module registers its model. All node counts come from the counters of the rollout's row.
"""

from rollout.admin import ignored_replicas, join_tokens, node_modules, nodes, operations, rollouts

__all__ = ["ignored_replicas", "join_tokens", "node_modules", "nodes", "operations", "rollouts"]
