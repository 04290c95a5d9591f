"""The names of `eventstore`, each loaded from its file when it is first used."""

import pkgutil
from types import ModuleType

import eventstore

NAMES: list[str] = vars(eventstore)["__all__"]  # the stub file has the names themselves


def test_every_name_is_there():
    assert len(NAMES) > 50
    assert not [each for each in NAMES if isinstance(getattr(eventstore, each), ModuleType)]


def test_no_name_is_that_of_a_file():
    """Python would replace it when the file is imported."""
    assert not {each.name for each in pkgutil.iter_modules(eventstore.__path__)} & set(NAMES)
