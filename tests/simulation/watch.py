"""A rule that does not hold, and where it is seen."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.control_plane import ControlPlane


class Broken(AssertionError):
    """A rule does not hold. `rule` is its name."""

    def __init__(self, world: "ControlPlane", rule: str, detail: str = "") -> None:
        self.rule = rule
        again = f"MODFLEET_SEED={world.seed} .venv/bin/pytest -k one_seed tests/simulation"
        last = "\n".join(f"  {each.position} {each.recorded_at:%H:%M:%S.%f} {each.event}" for each in world.log[-15:])
        super().__init__(f"seed {world.seed}: not so: {rule} {detail}\n{last}\nagain: {again}")


class Watch:
    """Of one world."""

    def __init__(self, world: "ControlPlane") -> None:
        self.world = world

    def holds(self, condition: object, rule: str, detail: str = "") -> None:
        if not condition:
            raise Broken(self.world, rule, detail)
