"""What always holds: looked at when an agent begins to change its server, before and after every event, every time a rollout
has come to rest, and at the end."""

from tests.simulation.rest_rules import RestRules
from tests.simulation.restart_rules import RestartRules
from tests.simulation.watch import Broken

__all__ = ["Broken", "Rules"]


class Rules(RestartRules, RestRules):
    """All rules of one world."""

    def at_end(self) -> None:
        super().at_end()
        self.nothing_is_left()
