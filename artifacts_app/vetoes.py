"""The vetoes of other apps against the deletion of an artifact, and against the use of a download link."""

from collections.abc import Callable

from modules_app.vetoes import Vetoes

#: Called with module name and version.
DELETION: Vetoes[[str, int]] = Vetoes()

#: Called with the name of the node that a link is for, the link, and the client's proof that it is this node.
#: Each raises an error to refuse.
FETCH: list[Callable[[str, str, str], None]] = []
