"""Share options between commands.

A builder is a function whose parameters are typer options. A command names the builders whose results it takes:

    @app.command()
    @builds(session=open_session)
    def show(name: NodeName, session: Session) -> None:

`modfleet nodes show` then also has the options of `open_session`, and `session` is what `open_session` returned.
"""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import wraps
from typing import Any


def builds(**builders: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace each named parameter by those of its builder. A context manager is entered around the command."""

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
        run.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]  # typer reads the parameters from it
        run.__annotations__ = {name: each.annotation for name, each in merged.items()}
        return run

    return decorate
