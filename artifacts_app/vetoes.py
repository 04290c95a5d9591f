"""The vetoes of other apps against the deletion of an artifact."""

from modules_app.vetoes import Vetoes

#: Called with module name and version.
DELETION: Vetoes[[str, int]] = Vetoes()
