"""From a request to what starts it: `planner` makes a `plan` of it, by what `catalogue`, `observed` and `dependencies`
know; `selection` picks nodes, and `forecast` says how much and how long. Nothing here writes."""
