"""The changes of a proof, in an order that the seed chooses."""

from collections.abc import Callable, Mapping
from random import Random

from modfleet.proof.history import Way
from tests.proof.operator import Operator
from tests.proof.packages import MODULES

#: The upgrades of a topology.
UPGRADES = 25
#: How often each kind of change is chosen.
WEIGHTS: Mapping[str, int] = {"upgrade": 26, "fail": 2, "roll back": 3, "remove": 2, "install": 3, "rewrite": 3}


class Schedule:
    """Chooses each change and lets the operator carry it out."""

    def __init__(self, operator: Operator, random: Random) -> None:
        self._operator, self._random = operator, random
        self._newest = dict.fromkeys(operator.site.modules, 0)
        self.upgrades = 0

    def begin(self) -> None:
        """Install each module."""
        for module in self._newest:
            self._operator.install(module, self._next(module))

    def step(self) -> None:
        """Carry out one change."""
        operator, random = self._operator, self._random
        choices: dict[str, tuple[list[str], Callable[[str], None]]] = {
            "upgrade": (sorted(operator.loaded), self._upgrade),
            "fail": (self._loadable(), self._fail),
            "roll back": (
                sorted(each for each, (_, former) in operator.undoable.items() if former),
                operator.roll_back,
            ),
            "remove": (self._removable(), operator.remove),
            "install": (sorted(self._newest.keys() - operator.loaded), self._install),
            # Modules that need each other have an order, which a CONFIG REWRITE by hand may break (docs/adr/0015).
            "rewrite": ([] if any(MODULES[each].needs for each in operator.loaded) else [""], self._rewrite),
        }
        possible = [each for each, (modules, _) in choices.items() if modules]
        kind = random.choices(possible, [WEIGHTS[each] for each in possible])[0]
        modules, carry_out = choices[kind]
        carry_out(random.choice(modules))

    def _next(self, module: str) -> int:
        self._newest[module] += 1
        return self._newest[module]

    def _install(self, module: str) -> None:
        self._operator.install(module, self._next(module))

    def _upgrade(self, module: str) -> None:
        self._install(module)
        self.upgrades += 1

    def _fail(self, module: str) -> None:
        self._operator.fail(module, self._next(module), self._random.choice(self._operator.site.machines))

    def _rewrite(self, _: str) -> None:
        self._operator.rewrite(self._random.choice(self._operator.site.machines))

    def _loadable(self) -> list[str]:
        """Modules whose servers need no restart for an upgrade."""
        return [each for each in sorted(self._operator.loaded) if MODULES[each].way is Way.LOAD]

    def _removable(self) -> list[str]:
        """Modules that no other module needs, and whose keys are strings. A few stay, so that clients have work."""
        loaded = self._operator.loaded
        needed = {name for each in loaded for name in MODULES[each].needs}
        return [each for each in self._loadable() if each not in {"writes", *needed}]
