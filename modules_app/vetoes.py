"""What other apps know that forbids a change here: each registers its vetoes when it is ready."""

from collections.abc import Callable
from typing import Generic, ParamSpec

from eventstore import Condition

Asked = ParamSpec("Asked")


class Vetoes(Generic[Asked]):
    """Each veto raises what refuses the change, or returns what it has read, which must hold until the change is recorded."""

    def __init__(self) -> None:
        self._vetoes: list[Callable[Asked, Condition]] = []

    def register(self, veto: Callable[Asked, Condition]) -> None:
        self._vetoes.append(veto)

    def conditions(self, *args: Asked.args, **kwargs: Asked.kwargs) -> list[Condition]:
        """For `append(unless=...)`. Raises: what a veto raises."""
        return [veto(*args, **kwargs) for veto in self._vetoes]


#: Asked with the name of a module that is to be registered.
REGISTRATION: Vetoes[[str]] = Vetoes()
#: Asked with name and version of a module whose object is to be deleted.
DELETION: Vetoes[[str, int]] = Vetoes()
