"""Actors: who did something. An actor is `<kind>:<name>`, such as `user:alice` or `system:relay`.

Three kinds have a meaning here: `user` is a person, by login name; `system` is a part of the program; `unknown` marks
events of older logs that have no kind. A program may use any other kind. Login names must not contain a colon. Needs no
Django.
"""

_PERSON = "user:"


def person(login: str) -> str:
    """Return the actor of the person with this login name: `user:alice`."""
    return f"{_PERSON}{login}"


def is_person(actor: str) -> bool:
    """Return True if the actor, given with its kind, is a person."""
    return actor.startswith(_PERSON)


def is_shown_person(shown: str) -> bool:
    """Return True if the actor, given in the short form of `shown`, is a person."""
    return ":" not in shown


def in_words(actor: str) -> str:
    """Return the actor for use in a sentence: `the user alice`, `the printer p1`, `the relay`.

    Accepts an actor with its kind, or in the short form of `shown`. The kind is part of the answer because a person and
    something else may have the same name.
    """
    kind, colon, name = actor.partition(":")
    match kind:
        case _ if not colon:
            return f"the user {actor}"
        case "system":
            return f"the {name}"
        case "unknown":
            return f"{name}, of an unknown kind"
        case _:
            return f"the {kind} {name}"


def shown(actor: str) -> str:
    """Return the short form of an actor: a person's login name, any other actor with its kind (`system:relay`)."""
    return actor.removeprefix(_PERSON)
