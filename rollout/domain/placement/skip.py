"""Why nothing can be done on a node."""

from rollout.messages import Reason

#: For machines and for people.
Skip = tuple[Reason, str]
