"""An append-only event log for Django: the public API. `__init__.pyi` lists it.

Each name is loaded from its module when it is first used, so that events and deciders can be defined before Django is
set up, and without it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
