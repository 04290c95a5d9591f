"""Who acts, in words: a kind, a colon, a name. No login name has a colon, so that what is shown tells them apart.

The kinds are `user` (a person, by login name), `system` (a part of the program), `unknown` (an older log does not say),
and those that the program adds. Knows no Django.
"""

_PERSON = "user:"


def person(login: str) -> str:
    """The actor of whoever has logged in."""
    return f"{_PERSON}{login}"


def is_person(actor: str) -> bool:
    return actor.startswith(_PERSON)


def is_shown_person(shown: str) -> bool:
    """Whether an actor is a person, from how it is shown."""
    return ":" not in shown


def in_words(actor: str) -> str:
    """An actor in a sentence, given with its kind or as it is shown: `the user alice`, `the node n1`, `the relay`. A person
    and a node may have the same name."""
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
    """A person's login name, any other actor with its kind: `alice`, `system:relay`."""
    return actor.removeprefix(_PERSON)
