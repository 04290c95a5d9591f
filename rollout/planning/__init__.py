"""From a request to a plan. `planner.plan_of` reads as the way: `nodes` (chosen and skipped), `dependencies` and
`dependents`, `waves`, `plan`. `catalogue` knows module versions, `observed` knows the fleet. Nothing here writes."""
