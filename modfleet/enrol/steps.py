"""What the installer prints: one line for each step."""

from collections.abc import Callable


class Steps:
    """`to_do` are the steps that a person must take."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self.to_do: list[str] = []

    def found(self, what: str) -> None:
        self._tell(f"{'found':<13} {what}")

    def done(self, what: str) -> None:
        self._tell(f"{'done':<13} {what}")

    def unchanged(self, what: str) -> None:
        self._tell(f"{'unchanged':<13} {what}")

    def step(self, changed: bool, what: str) -> None:
        (self.done if changed else self.unchanged)(what)

    def note(self, what: str) -> None:
        self._tell(f"{'note':<13} {what}")

    def by_you(self, what: str, *texts: str) -> None:
        """`texts` are printed as they are, to copy them."""
        self.to_do.append(what)
        self._tell(f"{'to do by you':<13} {what}{':' if texts else ''}")
        for text in texts:
            self._tell(f"    {text}")
