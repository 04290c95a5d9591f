"""An append-only event log for Django: the public API. `__init__.pyi` lists its names.

docs/explanation/event-sourcing-in-django.md builds an application with it. `eventstore.conf` has its settings.

Each name is loaded when it is first used. So events and deciders can be imported before Django is set up, or without it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
