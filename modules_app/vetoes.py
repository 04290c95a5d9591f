"""The vetoes of other apps against changes of modules. Each app registers its vetoes when it is ready."""

from collections.abc import Callable
from typing import Generic, ParamSpec

from eventstore import Condition

Asked = ParamSpec("Asked")


class Vetoes(Generic[Asked]):
    """A list of vetoes. Each raises an error to refuse a change, or returns the condition under which the change is allowed."""

    def __init__(self) -> None:
        self._vetoes: list[Callable[Asked, Condition]] = []

    def register(self, veto: Callable[Asked, Condition]) -> None:
        self._vetoes.append(veto)

    def conditions(self, *args: Asked.args, **kwargs: Asked.kwargs) -> list[Condition]:
        """Call all vetoes. Return their conditions for `append(unless=...)`. Raises: the error of a veto."""
        return [veto(*args, **kwargs) for veto in self._vetoes]


#: Called with the name of a module before it is registered.
REGISTRATION: Vetoes[[str]] = Vetoes()
#: Called with name and version of a module before its object is deleted.
DELETION: Vetoes[[str, int]] = Vetoes()
