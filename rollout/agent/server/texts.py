"""Values from a server's answers, as messages may have them: storable and short. A value that is missing is unknown."""

#: Limit of texts in a heartbeat, characters; shorter than the limits of `messages`, so that a heartbeat stays small.
LONGEST_FACT = 200


def number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 19 else None


def truth(text: str | None) -> bool | None:
    return {"0": False, "1": True}.get(text or "")


def address(host: str, port: str) -> str:
    return storable(f"{host}:{port}")[:264]


def word(text: str) -> str:
    return storable(text)[:32]


def fact(text: str) -> str:
    return storable(text)[:LONGEST_FACT]


def storable(text: str) -> str:
    """Return text that a database can store."""
    return str(text).encode("utf-8", "replace").decode().replace("\0", "")
