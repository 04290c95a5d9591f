"""Events to rows: rollouts with their operations in `rollouts`, nodes with their modules in `nodes`, the switch for
everything in `fleet`. A batch is folded, then written at once."""
