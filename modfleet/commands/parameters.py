"""Options that several commands share, without repeating them in each.

A builder is a function whose parameters are options in typer's words. A command that takes what it returns says so:

    @app.command()
    @builds(session=open_session)
    def show(name: NodeName, session: Session) -> None:

`modfleet nodes show` then has the parameters of `open_session` as well, and `session` is what that returned for them.
"""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import wraps
from typing import Any


def builds(**builders: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Each named parameter is replaced by those of its builder. A context manager is entered around the command."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        shared = {name: inspect.signature(builder, eval_str=True).parameters for name, builder in builders.items()}
        merged = {name: each for name, each in own.items() if name not in builders}
        for parameters in shared.values():
            for name, each in parameters.items():
                if merged.setdefault(name, each) != each:
                    raise TypeError(f"{command.__name__} has a parameter {name} of its own")

        @wraps(command)
        def run(**given: Any) -> None:
            with ExitStack() as stack:
                made = {}
                for name, builder in builders.items():
                    built = builder(**{each: given[each] for each in shared[name]})
                    is_context = isinstance(built, AbstractContextManager)
                    made[name] = stack.enter_context(built) if is_context else built
                command(**{each: given[each] for each in own if each not in builders}, **made)

        keyword_only = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in merged.values()]
        run.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]  # what typer looks at
        run.__annotations__ = {name: each.annotation for name, each in merged.items()}
        return run

    return decorate
